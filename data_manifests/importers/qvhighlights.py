"""QVHighlights: queries with their windows, one JSON object in a line."""

from __future__ import annotations

from ..annotations.dataset_rows import DatasetRows, usable_span
from ..annotations.official_files import OfficialFiles
from ..annotations.row_log import Row
from ..cards.card import Card


def import_qvhighlights(card: Card, files: OfficialFiles, rows: DatasetRows) -> None:
    """A text for each window, QID/0, QID/1 ... (QID where one window is known, or none)."""
    for split in files.splits:

        def take(row: Row, split: str = split) -> None:
            clip_id, query_id = row.name("vid"), row.name("qid")
            query, duration = row.words("query"), row.number("duration")
            rows.clip(
                row,
                clip_id,
                split=split,
                start_seconds=0.0,
                end_seconds=duration,
                duration_seconds=duration,
            )
            if not row.has("relevant_windows"):
                rows.text(row, clip_id, query, kind="query", text_id=query_id)
                return
            windows = [
                row.pair(window, "relevant_windows") for window in row.items("relevant_windows")
            ]
            if not windows:
                row.refuse("expected at least one window", key="relevant_windows")
            spans = [usable_span(row, *window, duration_seconds=duration) for window in windows]
            for place, span in enumerate(spans):
                text_id = query_id if len(spans) == 1 else f"{query_id}/{place}"
                rows.text(
                    row,
                    clip_id,
                    query,
                    kind="query",
                    text_id=text_id,
                    query_id=query_id,
                    span=span,
                )

        rows.each(files.json_lines(split), take)
