"""Moments of a dataset of your own: a CSV with a header for each split of the card."""

from __future__ import annotations

from ...annotations.dataset_rows import DatasetRows, usable_span
from ...annotations.official_files import OfficialFiles
from ...annotations.row_log import Row
from ...cards.card import Card


def import_moments_csv(card: Card, files: OfficialFiles, rows: DatasetRows) -> None:
    """Columns video, start_seconds, end_seconds, sentence; others are not read.

    The card names a file for each split, under the split's name.
    """
    for split in files.splits:

        def take(row: Row, split: str = split) -> None:
            clip_id, text = row.name("video"), row.words("sentence")
            start, end = row.number("start_seconds"), row.number("end_seconds")
            rows.clip(row, clip_id, split=split)
            span = usable_span(row, start, end, duration_seconds=None)
            rows.text(row, clip_id, text, kind="query", span=span)

        columns = ("video", "start_seconds", "end_seconds", "sentence")
        rows.each(files.records(split, columns), take)
