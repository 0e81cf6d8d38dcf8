"""mlalign-manifest: benchmarks and their cards, checks, exports, procedural scenes."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .core.command_line import as_program, command_errors, help_and_version

if TYPE_CHECKING:
    from .building.export import PeerName
    from .tables.schema import Manifest


@click.group()
def main() -> None:
    """Datasets of videos, texts and questions."""


@main.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the cards as JSON.")
@command_errors
def list_cards(as_json: bool) -> None:
    """The benchmarks that build knows: name, task, and the sizes of their splits."""
    from .cards.card import card_names, load_card
    from .cards.page import card_table
    from .core.settings import settings_dict

    cards = [load_card(name) for name in card_names()]
    if as_json:
        click.echo(json.dumps([settings_dict(card) for card in cards]))
    else:
        click.echo("\n".join(card_table(cards)))


@main.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print the card as JSON.")
@command_errors
def show(name: str, as_json: bool) -> None:
    """A benchmark's card: its files and where they are, splits, protocol, published numbers.

    NAME is one of list's, or a file NAME.yaml of your own.
    """
    from .cards.card import load_card
    from .cards.page import card_page
    from .core.settings import settings_dict

    card = load_card(name)
    click.echo(json.dumps(settings_dict(card)) if as_json else "\n".join(card_page(card, name)))


@main.command()
@click.argument("name")
@click.option(
    "--annotations",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder with the official files, under their official names.",
)
@click.option(
    "--videos",
    type=click.Path(path_type=Path),
    help="Folder of the videos: clips without one are left out, and listed.",
)
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="A folder.")
@click.option("--partial", is_flag=True, help="Accept sizes other than the card's.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@command_errors
def build(
    name: str,
    annotations: Path,
    videos: Path | None,
    out: Path,
    partial: bool,
    as_json: bool,
) -> None:
    """Turn the official files of the benchmark NAME into a dataset for mlalign-extract.

    NAME is one of list's, or a card of your own as NAME.yaml. What was mended or left out is
    reported, and kept in build_report.json; what is wrong is shown all at once, with exit code 2.
    """
    from .building.build import build_dataset
    from .cards.card import load_card

    report = build_dataset(
        load_card(name), annotations=annotations, videos=videos, out=out, partial=partial
    )
    click.echo(json.dumps(report.to_json()) if as_json else "\n".join(report.lines()))


@main.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--videos", type=click.Path(path_type=Path), help="Folder that video paths start from."
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@command_errors
def check(path: Path, videos: Path | None, as_json: bool) -> None:
    """Check the dataset at PATH and count what is in it.

    PATH is a manifest folder, a folder of videos, one video, a list of videos (.txt), or a table
    (.csv, .jsonl) of video_path[, text][, start_seconds, end_seconds][, split]. All faults are
    shown at once; exit code 2 when there are any.
    """
    from .tables.reader import read_manifest

    manifest = read_manifest(path, videos_root=videos)
    _print_summary(_summary(manifest), as_json=as_json)


@main.command()
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="New or empty folder for the videos and their manifest.",
)
@click.option("--clips", "num_clips", type=click.IntRange(min=1), default=1000, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@command_errors
def scenes(out: Path, num_clips: int, seed: int, as_json: bool) -> None:
    """Make a dataset of short procedural videos with captions, spans and questions.

    The first 60 % of the clips are the split train, then 10 % val, 30 % test; some pairs of
    colour and shape occur only in test. The same seed gives the same dataset.
    """
    from .scenes.make import write_scenes

    start = time.monotonic()
    manifest = write_scenes(out, num_clips=num_clips, seed=seed)
    summary = {"path": str(out), **_summary(manifest)}
    _print_summary({**summary, "wall_seconds": round(time.monotonic() - start, 3)}, as_json=as_json)


@main.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="A folder.")
@click.option("--format", "peer", required=True, type=click.Choice(["clip4clip", "qvhighlights"]))
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@command_errors
def export(path: Path, out: Path, peer: PeerName, as_json: bool) -> None:
    """Write the dataset at PATH as the annotation files that another tool reads.

    clip4clip: MSRVTT_data.json and SPLIT.csv; qvhighlights: highlight_SPLIT_release.jsonl. What the
    format has no place for is named; exit code 2 where the other tool would read something else.
    """
    from .building.export import export_manifest
    from .tables.reader import read_manifest

    done = export_manifest(read_manifest(path), out, peer=peer)
    click.echo(json.dumps(asdict(done)) if as_json else "\n".join(done.lines()))


def _summary(manifest: Manifest) -> dict[str, Any]:
    """Numbers of rows per split; a text or question is of segment level when it has a span."""
    import pyarrow.compute as pc

    splits = {}
    for split in manifest.splits:
        clips, texts, questions = (
            table.filter(pc.equal(table["split"], split))
            for table in (manifest.clips, manifest.texts, manifest.questions)
        )
        segment_texts = texts.num_rows - texts["start_seconds"].null_count
        splits[split] = {
            "clips": clips.num_rows,
            "videos": pc.count_distinct(clips["video_path"]).as_py(),
            "global_texts": texts.num_rows - segment_texts,
            "segment_texts": segment_texts,
            "questions": questions.num_rows,
        }
    return {"name": manifest.name, "videos_root": str(manifest.videos_root), "splits": splits}


def _print_summary(summary: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(summary))
        return
    splits: dict[str, dict[str, int]] = summary["splits"]
    names = list(next(iter(splits.values())))
    total = {name: sum(counts[name] for counts in splits.values()) for name in names}
    rows = [["split", *(name.replace("_", " ") for name in names)]]
    for split, counts in {**splits, "total": total}.items():
        rows.append([split, *(f"{counts[name]:,}" for name in names)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    click.echo(f"{summary['name']}, videos in {summary['videos_root']}")
    for row in rows:
        numbers = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        click.echo("  ".join([row[0].ljust(widths[0]), *numbers]))
    if "wall_seconds" in summary:
        click.echo(f"written to {summary['path']} in {summary['wall_seconds']:.1f} s")


program = as_program(help_and_version(main))
