"""TVQA and TVQA+: multiple choice about moments of TV clips, with subtitles."""

from __future__ import annotations

from typing import Final

from ...annotations.dataset_rows import DatasetRows, span_inside
from ...annotations.official_files import OfficialFiles
from ...annotations.row_log import Row
from ...annotations.subtitles import import_subtitles
from ...cards.card import Card

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
    told = row.get("ts")
    if not isinstance(told, str):
        start, end = row.pair(told, "ts")
    else:
        first, _, last = told.partition("-")
        if "nan" in (first.strip().lower(), last.strip().lower()):
            row.mend(NO_MOMENT, told)
            return None
        start, end = row.parsed(first, "ts"), row.parsed(last, "ts")
    span = span_inside(row, start, end, duration_seconds=None)
    if span is None:
        row.mend(NO_MOMENT, told)
    return span
