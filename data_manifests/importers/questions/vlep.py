"""VLEP: which of two events is likelier to follow, one JSON object in a line."""

from __future__ import annotations

from ...annotations.dataset_rows import DatasetRows, span_inside
from ...annotations.official_files import OfficialFiles
from ...annotations.row_log import Row
from ...annotations.subtitles import import_subtitles
from ...cards.card import Card

NO_MOMENT = "questions whose moment has no length, kept without it"


def import_vlep(card: Card, files: OfficialFiles, rows: DatasetRows) -> None:
    """The span of a question is the premise, which the events follow."""
    for split in files.splits:

        def take(row: Row, split: str = split) -> None:
            clip_id, events = row.name("vid_name"), row.sentences("events")
            if len(events) != 2:
                row.refuse(f"expected two events, got {len(events)}", key="events")
            start, end = row.pair(row.get("ts"), "ts")
            span = span_inside(row, start, end, duration_seconds=None)
            if span is None:
                row.mend(NO_MOMENT, (start, end))
            rows.clip(row, clip_id, split=split)
            rows.question(
                row,
                row.name("example_id"),
                clip_id,
                question="",
                options=events,
                answer_index=row.integer("answer") if row.has("answer") else None,
                span=span,
            )

        rows.each(files.json_lines(split), take)
    import_subtitles(files, rows)
