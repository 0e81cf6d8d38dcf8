"""TVR: descriptions of moments in TV clips, one JSON object in a line."""

from __future__ import annotations

from ...annotations.dataset_rows import DatasetRows, span_or_none
from ...annotations.official_files import OfficialFiles
from ...annotations.row_log import Row
from ...annotations.subtitles import import_subtitles
from ...cards.card import Card
from ...core.faults import excerpt

UNKNOWN_CLIP = "queries whose clip is not published"
OTHER_SPLIT = "clips of splits that are not built"


def import_tvr(card: Card, files: OfficialFiles, rows: DatasetRows) -> None:
    """Clips from the queries, and all clips of a split where the table of durations is there.

    Corpus retrieval searches among all clips of a split, also those that no query is about.
    """

    def take_duration(row: Row) -> None:
        split, name, value = row.value
        if split not in files.splits:
            row.leave_out(OTHER_SPLIT)
        if name is None:
            row.refuse(f"expected clips with [duration, index], got {excerpt(value)}", key=split)
        clip_id = row.as_name(name, split)
        if not isinstance(value, list) or not value:
            row.refuse(
                f"expected [duration, index] of {clip_id!r}, got {excerpt(value)}", key=split
            )
        duration = row.as_number(value[0], split)
        rows.clip(row, clip_id, split=split, duration_seconds=duration)

    if files.has("durations"):
        listed = (
            (split, name, value)
            for split, clips in files.entries("durations")
            for name, value in (clips if isinstance(clips, dict) else {None: clips}).items()
        )
        rows.each(files.rows("durations", enumerate(listed, start=1)), take_duration)
    for split in files.splits:

        def take(row: Row, split: str = split) -> None:
            query_id, query = row.name("desc_id"), row.words("desc")
            if not row.has("vid_name"):
                row.leave_out(UNKNOWN_CLIP)
            clip_id = row.name("vid_name")
            duration = row.number("duration")
            start, end = row.pair(row.get("ts"), "ts")
            span = span_or_none(row, start, end, duration_seconds=duration)
            rows.clip(row, clip_id, split=split, duration_seconds=duration)
            rows.text(row, clip_id, query, kind="query", text_id=query_id, span=span)

        if files.has(split):
            rows.each(files.json_lines(split), take)
    import_subtitles(files, rows)
