"""LSMDC: tables of movie clips and their sentences, without header, tabs between the columns."""

from __future__ import annotations

from ...annotations.dataset_rows import DatasetRows
from ...annotations.official_files import OfficialFiles
from ...annotations.row_log import Row
from ...cards.card import Card

NUM_COLUMNS = 6
"""Clip, start and end as aligned, start and end as extracted, sentence."""


def import_lsmdc(card: Card, files: OfficialFiles, rows: DatasetRows) -> None:
    """A clip for each name in the first column; a clip may have several sentences."""
    for split in files.splits:

        def take(row: Row, split: str = split) -> None:
            clip_id = row.name(0)
            rows.clip(row, clip_id, split=split)
            rows.text(row, clip_id, row.words(NUM_COLUMNS - 1), kind="caption")

        # Quotes stand in the sentences as they are.
        table = files.fields(split, widths=(NUM_COLUMNS,), delimiter="\t", quoted=False)
        rows.each(table, take)
