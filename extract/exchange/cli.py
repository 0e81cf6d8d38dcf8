"""mlalign-extract import and export: features from other tools, and to them."""

from __future__ import annotations

import json
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...data_manifests.core.command_line import command_errors

if TYPE_CHECKING:
    from .exporting import Level
    from .sources import FeatureSource, FormatName

_FORMATS = click.Choice(["npy", "webdataset", "npz", "hdf5"])


@click.command("import")
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "-o", "cache", required=True, type=click.Path(path_type=Path), help="The cache folder."
)
@click.option(
    "--manifest",
    "manifest_path",
    required=True,
    type=click.Path(path_type=Path),
    help="The dataset whose clips and texts the features are of.",
)
@click.option("--format", "video_format", type=_FORMATS, help="[default: what SOURCE clearly is]")
@click.option("--fps", metavar="N", help="Features per second.")
@click.option("--seconds-per-feature", metavar="S", help="Or: seconds from one to the next.")
@click.option("--texts", type=click.Path(path_type=Path), help="Features of the texts, by text id.")
@click.option("--text-format", type=_FORMATS, help="[default: what that clearly is]")
@click.option(
    "--questions",
    type=click.Path(path_type=Path),
    help="Features of the questions (ID_q) and of their options (ID_a0, ID_a1 ...).",
)
@click.option("--question-format", type=_FORMATS, help="[default: what that clearly is]")
@click.option(
    "--segments",
    multiple=True,
    metavar="RULE",
    help="uniform:N, fixed:SECONDS[:STRIDE] or spans (of the manifest's texts). Repeatable.",
)
@click.option("--dtype", type=click.Choice(["float16", "float32"]), default="float16")
@click.option("--allow-failures", is_flag=True, help="Exit with 0 although something failed.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@command_errors
def import_command(
    source: Path,
    cache: Path,
    manifest_path: Path,
    video_format: FormatName | None,
    fps: str | None,
    seconds_per_feature: str | None,
    texts: Path | None,
    text_format: FormatName | None,
    questions: Path | None,
    question_format: FormatName | None,
    segments: tuple[str, ...],
    dtype: str,
    allow_failures: bool,
    as_json: bool,
) -> None:
    """Make a cache of the features in SOURCE, which another tool has extracted.

    SOURCE is a folder of .npy or .npz files, a folder of webdataset tars, or an HDF5 file, with
    (rows, width) features under each clip's id or its video's name (docs/feature_exchange.md).
    Running again imports what is new or changed.

    Exit code: 0 done, 1 a clip, text or question has no usable features, 2 wrong usage.
    """
    rate = fps or seconds_per_feature
    if rate is None or (fps and seconds_per_feature):
        raise click.UsageError(
            "say at which rate the features were taken: --fps N or, for one per "
            "S seconds, --seconds-per-feature S"
        )
    from ..planning.inputs import Inputs
    from .importing import import_features
    from .settings import ImportedFeatures, ImportSettings
    from .sources import open_source

    try:
        period = Fraction(rate) if fps is None else 1 / Fraction(rate)
        settings = ImportSettings(seconds_per_feature=period, segments=segments, dtype=dtype)
    except (ValueError, ZeroDivisionError) as error:
        raise click.UsageError(str(error)) from error
    inputs = Inputs(manifest=manifest_path)
    imported = ImportedFeatures(
        video=open_source(source, video_format, npz_array="features"),
        video_path=source,
        text=_open_texts(texts, text_format),
        text_path=texts,
        questions=_open_texts(questions, question_format),
        questions_path=questions,
    )
    done = import_features(inputs.read(), cache, imported, settings, inputs=inputs)
    click.echo(json.dumps(asdict(done)) if as_json else "\n".join(done.lines()))
    if done.has_failed and not allow_failures:
        raise SystemExit(1)


def _open_texts(path: Path | None, format: FormatName | None) -> FeatureSource | None:
    from .sources import open_source

    return None if path is None else open_source(path, format, npz_array="pooler_output")


@click.command("export")
@click.argument("cache", type=click.Path(path_type=Path))
@click.option(
    "-o", "out", required=True, type=click.Path(path_type=Path), help="A new or empty folder."
)
@click.option("--format", "format", required=True, type=_FORMATS, help="Of the files.")
@click.option(
    "--level",
    type=click.Choice(["frame", "segment", "clip"]),
    default="frame",
    show_default=True,
    help="Which features; segments by the first rule of CACHE.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@command_errors
def export_command(cache: Path, out: Path, format: FormatName, level: Level, as_json: bool) -> None:
    """Write the features of CACHE in a format that other tools read.

    OUT gets video (features by clip id); where there are some, text (by text id) and questions
    (ID_q, ID_a0 ...); and index.parquet with the seconds of every row. OUT is there whole or not
    at all.

    Exit code: 0 done, 1 the disk refused, 2 wrong usage or a damaged cache.
    """
    from .exporting import export_features

    done = export_features(cache, out, format=format, level=level)
    click.echo(json.dumps(asdict(done)) if as_json else done.line())
