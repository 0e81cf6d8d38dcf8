"""`mlalign-search`: texts in, clips and their moments out."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from ...data_manifests.core.command_line import (
    as_program,
    command_errors,
    config_options,
    help_and_version,
)


@click.command()
@click.argument("cache", type=click.Path(path_type=Path))
@click.argument("texts", nargs=-1)
@click.option("--run", type=click.Path(path_type=Path), help="Use the heads of this run.")
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True)
@click.option("--split", help="Search this split only [default: all clips].")
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    help="The backbone's weights, when their file has moved.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON line per hit.")
@click.option("--html", type=click.Path(path_type=Path), help="Write a page with players.")
@config_options
@command_errors
def main(
    cache: Path,
    texts: tuple[str, ...],
    run: Path | None,
    top: int,
    split: str | None,
    checkpoint: Path | None,
    as_json: bool,
    html: Path | None,
    config: Path | None,
    overrides: tuple[str, ...],
) -> None:
    """Find the clips of CACHE that show what TEXTS say, and the moment in each.

    Without TEXTS every line of the standard input is one. Settings are those of mlalign-evaluate:
    --set index.factory=HNSW32 for millions of segments, --set fused_weight=0.3 ...
    """
    import dataclasses

    from ...data_manifests.core.settings import load_settings
    from ..config import EvaluationConfig

    settings = load_settings(EvaluationConfig, config, overrides)
    asked = texts or tuple(line.strip() for line in sys.stdin if line.strip())
    if not asked:
        raise click.UsageError("give a text to search for, or texts on the standard input")

    from .search import Library, check_page_file, write_search_page

    if html is not None:
        check_page_file(html)

    library = Library.open(
        cache,
        run_path=run,
        config=dataclasses.replace(settings, split=split),
        checkpoint=checkpoint,
    )
    answers = list(zip(asked, library.search(asked, top=top), strict=True))
    for text, hits in answers:
        if as_json:
            for hit in hits:
                click.echo(json.dumps(dataclasses.asdict(hit)))
            continue
        if len(answers) > 1:
            click.echo(json.dumps(text, ensure_ascii=False))
        for hit in hits:
            moment = f"{hit.start_seconds:8.1f} - {hit.end_seconds:.1f} s"
            click.echo(f"{hit.rank:3d}  {hit.score:6.3f}  {moment}  {_shown(hit.video)}")
    if html is not None:
        heads = "the backbone as it is" if run is None else f"the heads of {run}"
        weight = f"global weight {library.weight.value:g}, {library.weight.reason}"
        num_clips = len(library.features.clip_ids)
        about = f"{num_clips:,} clips of {cache}, {heads}; {weight}"
        write_search_page(answers, html, about=about)
        click.echo(f"Page: {html}", err=True)


def _shown(name: str) -> str:
    """A file name that cannot move the cursor."""
    return name if name.isprintable() else ascii(name)


program = as_program(help_and_version(main))
