"""mlalign-extract: videos and texts into a feature cache."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from ..data_manifests.core.command_line import (
    DefaultGroup,
    as_program,
    command_errors,
    config_options,
    help_and_version,
)
from .exchange.cli import export_command, import_command


class _Group(DefaultGroup):
    usage = "VIDEOS... -o CACHE [OPTIONS]"


@click.group(cls=_Group)
def main() -> None:
    """Extract frozen-backbone features of VIDEOS into a cache, and look after caches.

    VIDEOS are folders, files, a list (.txt), a table of videos and texts (.csv, .jsonl) or a
    manifest folder. Running again does what is new or changed; a killed run is finished by the
    same command. A folder that is called like one of the commands below is written ./status.

    Exit code: 0 done, 1 a clip failed, 2 wrong usage.
    """


@main.command(context_settings={"show_default": True})
@click.argument("videos", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "-o", "cache", required=True, type=click.Path(path_type=Path), help="The cache folder."
)
@click.option(
    "--manifest",
    "manifest_path",
    type=click.Path(path_type=Path),
    help="A dataset's manifest; VIDEOS is then the folder that its video paths start from.",
)
@click.option("--backbone", help="An open_clip model, or tiny (small, random weights).")
@click.option("--pretrained", help="A pretrained tag of the model, or a checkpoint file.")
@click.option("--fps", type=float, help="Frames sampled per second.  [default: 1]")
@click.option("--frames", type=int, metavar="N", help="Or: N frames spread over each clip.")
@click.option("--every-frame", is_flag=True, help="Or: every frame.")
@click.option(
    "--image-fps",
    type=float,
    metavar="N",
    help="Folders of images are clips, too: their frames, N per second.",
)
@click.option("--keyframes", is_flag=True, help="Or: the key frames, for a fast first look.")
@click.option(
    "--segments",
    multiple=True,
    metavar="RULE",
    help="uniform:N, fixed:SECONDS[:STRIDE], shots or spans (of the manifest's texts). Repeatable.",
)
@click.option("--keep-tokens", is_flag=True, help="Keep the features of the texts' tokens, too.")
@click.option("--device", help="auto, cpu, cuda (every GPU), cuda:1 ...  [default: auto]")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    help="This machine, or a Ray cluster that shares the files.  [default: local]",
)
@click.option("--workers", type=int, help="Decoding processes.  [default: one per core]")
@click.option(
    "--recipe",
    "recipe_path",
    metavar="CACHE",
    type=click.Path(path_type=Path),
    help="Extract the very way that this cache was: its settings and weights.",
)
@click.option(
    "--shard",
    "part",
    metavar="I/N",
    help="Only the I-th of N parts: for N jobs on one cache, each with its own I from 1 to N.",
)
@click.option("--retry-failed", is_flag=True, help="Try again what failed in an earlier run.")
@click.option("--allow-failures", is_flag=True, help="Exit with 0 although clips failed.")
@click.option("--check", is_flag=True, help="Only check the settings.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@config_options
@command_errors
def run(
    videos: tuple[Path, ...],
    cache: Path,
    manifest_path: Path | None,
    frames: int | None,
    every_frame: bool,
    keyframes: bool,
    keep_tokens: bool,
    segments: tuple[str, ...],
    recipe_path: Path | None,
    part: str | None,
    retry_failed: bool,
    allow_failures: bool,
    check: bool,
    as_json: bool,
    config: Path | None,
    overrides: tuple[str, ...],
    **flags: str | float | None,
) -> None:
    """Extract VIDEOS into a cache; the word "run" may be left out."""
    from ..data_manifests.core.settings import load_settings
    from .config import ExtractConfig
    from .planning.inputs import Inputs, JobPart

    image_folders = flags["image_fps"] is not None
    inputs = Inputs(videos=videos, manifest=manifest_path, image_folders=image_folders)
    job = None if part is None else JobPart.parse(part)

    sampling = [f"frames:{frames}"] * (frames is not None)
    sampling += ["every-frame"] * every_frame + ["keyframes"] * keyframes
    if len(sampling) + (flags["fps"] is not None) > 1:
        raise click.UsageError("choose one of --fps, --frames, --every-frame and --keyframes")
    typed = [f"{name}={value}" for name, value in flags.items() if value is not None]
    typed += [f"sampling={rule}" for rule in sampling]
    typed += ["keep_tokens=true"] * keep_tokens
    if segments:
        typed.append(f"segments={json.dumps(list(segments))}")
    recipe = None
    if recipe_path is None:
        settings = load_settings(ExtractConfig, config, (*overrides, *typed))
    else:
        from .planning.recipe import read_recipe, settings_by_recipe

        recipe = read_recipe(recipe_path)
        settings = settings_by_recipe(recipe, config, (*overrides, *typed))
    if check:
        return
    manifest = inputs.read()

    import pyarrow

    from .pipeline import extract_manifest

    # Arrow's own allocator keeps what it once had: 150 MB more at the end of a small run.
    pyarrow.set_memory_pool(pyarrow.system_memory_pool())
    summary = extract_manifest(
        manifest,
        cache,
        settings,
        retry_failed=retry_failed,
        part=job,
        recipe=recipe,
        inputs=inputs,
    )
    click.echo(json.dumps(asdict(summary)) if as_json else summary.line())
    if summary.clips["failed"] and not allow_failures:
        raise SystemExit(1)


@main.command()
@click.argument("cache", type=click.Path(path_type=Path))
@click.option(
    "--segments",
    multiple=True,
    required=True,
    metavar="RULE",
    help="uniform:N, fixed:SECONDS[:STRIDE], shots or spans. Repeatable; the first is the default.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@command_errors
def resegment(cache: Path, segments: tuple[str, ...], as_json: bool) -> None:
    """Cut the segments of CACHE anew by other rules, from its frame features, without decoding.

    It can be killed at any time: the cache has the old rules or the new ones, and the same command
    finishes it.
    """
    from .maintenance.resegment import resegment as cut_anew

    done = cut_anew(cache, segments, report=lambda line: click.echo(line, err=True))
    click.echo(json.dumps(asdict(done)) if as_json else done.line())


@main.command()
@click.argument("cache", type=click.Path(path_type=Path))
@click.argument("videos", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--manifest",
    "manifest_path",
    type=click.Path(path_type=Path),
    help="The dataset that should be in CACHE.  [default: what CACHE was made of]",
)
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON.")
@command_errors
def status(
    cache: Path, videos: tuple[Path, ...], manifest_path: Path | None, as_json: bool
) -> None:
    """What is in CACHE, how it was made, what failed and why, what of VIDEOS is missing.

    Exit code: 0 whatever there is to tell (`verify` judges), 2 when CACHE is no cache.
    """
    from .maintenance.status import cache_status
    from .planning.inputs import Inputs

    inputs = Inputs(videos=videos, manifest=manifest_path)
    found = cache_status(cache, inputs.read() if inputs else None)
    click.echo(json.dumps(asdict(found)) if as_json else "\n".join(found.lines()))


@main.command()
@click.argument("cache", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the problems as JSON.")
@command_errors
def verify(cache: Path, as_json: bool) -> None:
    """Read all of CACHE and list, by file, what is damaged, missing or against the contract.

    Exit code: 0 all is well, 1 there are problems (extracting again repairs them), 2 no cache.
    """
    from .maintenance.verify import verify_cache

    found = verify_cache(cache)
    click.echo(json.dumps(asdict(found)) if as_json else "\n".join(found.lines()))
    if found.problems:
        raise SystemExit(1)


@main.command()
@click.argument("caches", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o", "target", required=True, type=click.Path(path_type=Path), help="The new cache folder."
)
@click.option("--copy", is_flag=True, help="Copy shards even where they could be hard links.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@command_errors
def merge(caches: tuple[Path, ...], target: Path, copy: bool, as_json: bool) -> None:
    """Make one cache of several that were extracted the same way; they stay as they are.

    Exit code: 0 done, 1 the disk refused, 2 the caches do not go together.
    """
    from .maintenance.merge import merge_caches

    done = merge_caches(caches, target, copy=copy)
    click.echo(json.dumps(asdict(done)) if as_json else done.line())


main.add_command(import_command)
main.add_command(export_command)
program = as_program(help_and_version(main))
