"""LSMDC-MC: which of five sentences is the clip's, in a table without header."""

from __future__ import annotations

from collections import Counter

from ..cards import Card
from .dataset_rows import DatasetRows
from .ledger import Row
from .official_files import OfficialFiles

OPTIONS = range(5, 10)
ANSWER = 10
"""Counted from 1 in the file."""


def import_lsmdc_choice(card: Card, files: OfficialFiles, rows: DatasetRows) -> None:
    """A question's id is CLIP, and CLIP/K for further ones of the clip."""
    asked: Counter[str] = Counter()
    for split in files.splits:

        def take(row: Row, split: str = split) -> None:
            clip_id, options = row.name(0), [row.words(column) for column in OPTIONS]
            answer = row.integer(ANSWER) - 1
            rows.clip(row, clip_id, split=split)
            rows.question(
                row,
                f"{clip_id}/{asked[clip_id]}" if asked[clip_id] else clip_id,
                clip_id,
                question="",
                options=options,
                answer_index=answer,
            )
            asked[clip_id] += 1

        rows.each(
            files.fields(split, widths=(ANSWER + 1,), delimiter="\t", quoted=False),
            take,
        )
