"""Charades-STA: lines of VIDEO START END##SENTENCE., and Charades' own tables of durations."""

from __future__ import annotations

import re
from collections import Counter

from ..annotations.dataset_rows import DatasetRows, usable_span
from ..annotations.official_files import OfficialFiles
from ..annotations.row_log import Row
from ..cards.card import Card
from ..core.faults import excerpt

LINE = re.compile(r"(\S+) (\S+) (\S+?)##(.*)")


def import_charades_sta(card: Card, files: OfficialFiles, rows: DatasetRows) -> None:
    """Moments that end beyond a video whose length is known are cut; those without length go.

    A text is VIDEO#K, the K-th of its video in the file, from 0, those that go counted, too.
    Their videos stay, as clips: the official numbers of videos count them.
    """
    for split in files.splits:
        durations: dict[str, float] = {}
        next_sentence: Counter[str] = Counter()

        def take_length(row: Row, durations: dict[str, float] = durations) -> None:
            durations[row.name("id")] = row.number("length")
            row.written()

        def take(
            row: Row,
            split: str = split,
            durations: dict[str, float] = durations,
            next_sentence: Counter[str] = next_sentence,
        ) -> None:
            match = LINE.fullmatch(row.value)
            if match is None:
                row.refuse(f"expected VIDEO START END##SENTENCE, got {excerpt(row.value)}")
            video, start, end, sentence = match.groups()
            clip_id = row.as_name(video, "video")
            text = row.sentence(sentence, "sentence")
            text_id = f"{clip_id}#{next_sentence[clip_id]}"
            next_sentence[clip_id] += 1
            duration = durations.get(clip_id)
            rows.clip(row, clip_id, split=split, duration_seconds=duration)
            span = usable_span(
                row,
                row.as_number(start, "start"),
                row.as_number(end, "end"),
                duration_seconds=duration,
            )
            rows.text(row, clip_id, text, kind="query", text_id=text_id, span=span)

        lengths = f"{split}_lengths"
        if files.has(lengths):
            rows.each(files.records(lengths, ("id", "length")), take_length)
        rows.each(files.lines(split), take)
