"""VIOLIN: statements about clips, each with a false twin; one JSON file, or VALUE's JSON Lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from ..annotations.dataset_rows import DatasetRows
from ..annotations.official_files import OfficialFiles
from ..annotations.row_log import Row
from ..cards.card import Card

OPTIONS: Final = ("false", "true")
OTHER_SPLITS: Final = "statements of splits that the card does not have"
SPLITS: Final = {"validate": "val", "validation": "val", "dev": "val"}


def import_violin(card: Card, files: OfficialFiles, rows: DatasetRows) -> None:
    """Every statement is a question of its own, as the official accuracy counts them.

    Ids are CLIP-K-0 for the true statement of pair K, and CLIP-K-1 for the false one, in both
    forms. VALUE's files are read where the official one is not there.
    """
    if not files.has("annotations"):
        for split in files.splits:
            _read_value(files, rows, split)
        return

    def take(row: Row) -> None:
        clip_id, entry, number, place, statement = row.value
        row.value = entry
        split = row.name("split")
        split = SPLITS.get(split, split)
        if split not in files.splits:
            row.leave_out(OTHER_SPLITS, split)
        if place is None:
            row.refuse(f"{clip_id!r}: expected pairs of a true and a false statement")
        text = row.sentence(statement, "statement")
        name = row.name("file") if row.has("file") else clip_id
        rows.clip(row, clip_id, split=split, video_names=tuple(dict.fromkeys((clip_id, name))))
        rows.question(
            row,
            f"{clip_id}-{number}-{place}",
            clip_id,
            question=text,
            options=OPTIONS,
            answer_index=1 - place,
        )

    statements = _statements(files.entries("annotations"))
    rows.each(files.rows("annotations", enumerate(statements, start=1)), take)


def _read_value(files: OfficialFiles, rows: DatasetRows, split: str) -> None:
    """A statement in a line, with its answer where it is published."""

    def take(row: Row) -> None:
        clip_id, text = row.name("vid_name"), row.words("statement")
        rows.clip(row, clip_id, split=split)
        rows.question(
            row,
            row.name("paired_id" if row.has("paired_id") else "example_id"),
            clip_id,
            question=text,
            options=OPTIONS,
            answer_index=row.integer("answer") if row.has("answer") else None,
        )

    rows.each(files.json_lines(split), take)


def _statements(entries: list[tuple[str, Any]]) -> Iterator[tuple[str, Any, int, int | None, Any]]:
    """Clip, its entry, number of the pair, place in the pair (0: true), statement.

    What should be a pair and is none comes once, without a place.
    """
    for clip_id, entry in entries:
        pairs = entry.get("statement") if isinstance(entry, dict) else None
        for number, pair in enumerate(pairs if isinstance(pairs, list) and pairs else [None]):
            if isinstance(pair, list) and len(pair) == 2:
                for place, statement in enumerate(pair):
                    yield clip_id, entry, number, place, statement
            else:
                yield clip_id, entry, number, None, pair
