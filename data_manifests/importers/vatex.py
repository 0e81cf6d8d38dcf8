"""VATEX: ten English captions for each clip in the official files; retrieval splits as lists."""

from __future__ import annotations

from ..annotations.dataset_rows import DatasetRows
from ..annotations.official_files import OfficialFiles
from ..annotations.row_log import Row
from ..cards.card import Card

OTHER_CLIPS = "of clips in none of the splits"


def import_vatex(card: Card, files: OfficialFiles, rows: DatasetRows) -> None:
    """Clips by the lists, the English captions from whichever official file has the clip."""
    for split in files.splits:

        def take_name(row: Row, split: str = split) -> None:
            rows.clip(row, row.value.strip(), split=split)

        rows.each(files.lines(f"{split}_list"), take_name)

    def take(row: Row) -> None:
        clip_id = row.name("videoID")
        if clip_id not in rows.clips:
            row.leave_out(OTHER_CLIPS)
        for caption in row.sentences("enCap"):
            rows.text(row, clip_id, caption, kind="caption")

    for word in ("training", "validation"):
        if files.has(word):
            rows.each(files.items(word), take)
