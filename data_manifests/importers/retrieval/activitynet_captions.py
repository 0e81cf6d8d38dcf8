"""ActivityNet Captions: sentences with their moments, for each video of a split."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...annotations.dataset_rows import DatasetRows, span_inside, usable_span
from ...annotations.official_files import OfficialFiles
from ...annotations.row_log import Row
from ...cards.card import Card

NO_MOMENT = "sentences whose moment has no length stay in the paragraph alone"


def import_activitynet_captions(card: Card, files: OfficialFiles, rows: DatasetRows) -> None:
    """A row of the file is a sentence. With `queries: paragraph` those of a video are joined.

    val_2 annotates videos of val_1 again: there a clip is called VIDEO@val_2, so that each clip has
    one split. A video of which no moment has a length is a clip without queries, since the official
    numbers of videos count it.
    """
    is_paragraph = card.queries == "paragraph"
    for split in files.splits:

        def take(row: Row, split: str = split) -> None:
            name, entry, place, moment, sentence = row.value
            row.value = entry
            if moment is None or sentence is None:
                row.refuse(f"{name!r}: expected as many timestamps as sentences")
            video, duration = row.as_name(name, "video"), row.number("duration")
            text, (start, end) = row.sentence(sentence, "sentences"), row.pair(moment, "timestamps")
            clip_id = f"{video}@{split}" if split == "val_2" else video
            text_id = f"{clip_id}#{place}"
            rows.clip(row, clip_id, split=split, video_names=(video,), duration_seconds=duration)
            if not is_paragraph:
                span = usable_span(row, start, end, duration_seconds=duration)
                rows.text(row, clip_id, text, kind="query", text_id=text_id, span=span)
                return
            rows.sentence(row, clip_id, text)
            own = span_inside(row, start, end, duration_seconds=duration)
            if own is None:
                row.mend(NO_MOMENT, (start, end))
            else:
                rows.text(row, clip_id, text, kind="caption", text_id=text_id, span=own)

        sentences = _sentences(files.entries(split))
        rows.each(files.rows(split, enumerate(sentences, start=1)), take)


def _sentences(entries: list[tuple[str, Any]]) -> Iterator[tuple[str, Any, int, Any, Any]]:
    """Video, its entry, and each moment with its number and sentence; None for what one lacks."""
    for name, entry in entries:
        columns = [
            entry.get(key) if isinstance(entry, dict) else None
            for key in ("timestamps", "sentences")
        ]
        lists = [column if isinstance(column, list) else [] for column in columns]
        for place in range(max(1, *map(len, lists))):
            moment, sentence = (items[place] if place < len(items) else None for items in lists)
            yield name, entry, place, moment, sentence
