"""Captions of a dataset of your own: a CSV with a header for each split of the card."""

from __future__ import annotations

from ...annotations.dataset_rows import DatasetRows
from ...annotations.official_files import OfficialFiles
from ...annotations.row_log import Row
from ...cards.card import Card


def import_captions_csv(card: Card, files: OfficialFiles, rows: DatasetRows) -> None:
    """Columns video and caption; others are not read. A video may have several rows.

    The card names one file for each split, under the split's name. With `queries: paragraph` the
    captions of a video are joined, in the order of the file.
    """
    for split in files.splits:

        def take(row: Row, split: str = split) -> None:
            clip_id, caption = row.name("video"), row.words("caption")
            rows.clip(row, clip_id, split=split)
            if card.queries == "paragraph":
                rows.sentence(row, clip_id, caption)
            else:
                rows.text(row, clip_id, caption, kind="caption")

        rows.each(files.records(split, ("video", "caption")), take)
