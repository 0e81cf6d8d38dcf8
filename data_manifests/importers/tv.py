"""TVR, TVQA, TVQA+ and VLEP: moments and questions of TV clips, with subtitles."""

from __future__ import annotations

from typing import Final

from ..annotations.dataset_rows import DatasetRows, span_inside, span_or_none
from ..annotations.official_files import OfficialFiles
from ..annotations.row_log import Row
from ..annotations.subtitles import import_subtitles
from ..cards.card import Card
from ..core.faults import excerpt

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


OPTIONS: Final = ("a0", "a1", "a2", "a3", "a4")
NO_MOMENT: Final = "questions whose moment is not told, or has no length, kept without it"


def import_tvqa(card: Card, files: OfficialFiles, rows: DatasetRows) -> None:
    """JSON Lines (TVQA) or a JSON list (TVQA+); ts is text, "1.21-8.49", or a pair of numbers."""
    for split in files.splits:

        def take(row: Row, split: str = split) -> None:
            clip_id, question = row.name("vid_name"), row.words("q")
            options = [row.words(name) for name in OPTIONS]
            moment = _moment(row)
            rows.clip(row, clip_id, split=split)
            rows.question(
                row,
                row.name("qid"),
                clip_id,
                question=question,
                options=options,
                answer_index=row.integer("answer_idx") if row.has("answer_idx") else None,
                span=moment,
            )

        is_list = files.paths[split].suffix == ".json"
        rows.each(files.items(split) if is_list else files.json_lines(split), take)
    import_subtitles(files, rows)


def _moment(row: Row) -> tuple[float, float] | None:
    """Where the question's moment is; None, and a mend, where that is not told."""
    if not row.has("ts"):
        return None
    timestamp = row.get("ts")
    if not isinstance(timestamp, str):
        start, end = row.pair(timestamp, "ts")
    else:
        first, _, last = timestamp.partition("-")
        if "nan" in (first.strip().lower(), last.strip().lower()):
            row.mend(NO_MOMENT, timestamp)
            return None
        start, end = row.parsed(first, "ts"), row.parsed(last, "ts")
    span = span_inside(row, start, end, duration_seconds=None)
    if span is None:
        row.mend(NO_MOMENT, timestamp)
    return span


NO_LENGTH = "questions whose moment has no length, kept without it"


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
                row.mend(NO_LENGTH, (start, end))
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
