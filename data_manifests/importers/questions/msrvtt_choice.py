"""MSRVTT-MC: which of five captions is the clip's, as JSON Lines of ClipBERT or of others."""

from __future__ import annotations

from ...annotations.dataset_rows import DatasetRows
from ...annotations.official_files import OfficialFiles
from ...annotations.row_log import Row
from ...cards.card import Card


def import_msrvtt_choice(card: Card, files: OfficialFiles, rows: DatasetRows) -> None:
    """Keys qid, clip_name and options, or video and caption; without a qid the line, from 0."""
    for split in files.splits:

        def take(row: Row, split: str = split) -> None:
            clip_id = row.name("clip_name" if row.has("clip_name") else "video")
            options = row.sentences("options" if row.has("options") else "caption")
            if len(options) < 2:
                row.refuse(f"expected at least two options, got {len(options)}")
            question_id = row.name("qid") if row.has("qid") else str(row.line - 1)
            rows.clip(row, clip_id, split=split)
            rows.question(
                row,
                question_id,
                clip_id,
                question="",
                options=options,
                answer_index=row.integer("answer"),
            )

        rows.each(files.json_lines(split), take)
