"""Sentences with moments: Charades-STA and TACoS.

Charades-STA: lines of VIDEO START END##SENTENCE., and Charades' own tables of durations. TACoS as
2D-TAN has it: sentences with moments in frames, for each video of a split.
"""

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


def import_tacos(card: Card, files: OfficialFiles, rows: DatasetRows) -> None:
    """A row of the file is a sentence; seconds are frames divided by the video's rate."""
    for split in files.splits:

        def take(row: Row, split: str = split) -> None:
            name, entry, place = row.value
            row.value = entry
            clip_id, rate = row.as_name(name, "video"), row.number("fps")
            if rate <= 0:
                row.refuse(f"expected a rate > 0, got {rate:g}", key="fps")
            moments, sentences = row.items("timestamps"), row.items("sentences")
            if len(moments) != len(sentences) or not moments:
                row.refuse(
                    f"{clip_id!r}: expected as many timestamps as sentences, got {len(moments)} "
                    f"and {len(sentences)}"
                )
            text = row.sentence(sentences[place], "sentences")
            start, end = row.pair(moments[place], "timestamps")
            duration = row.number("num_frames") / rate
            rows.clip(row, clip_id, split=split, duration_seconds=duration)
            span = usable_span(row, start / rate, end / rate, duration_seconds=duration)
            text_id = f"{clip_id}#{place}"
            rows.text(row, clip_id, text, kind="query", text_id=text_id, span=span)

        sentences = (
            (name, entry, place)
            for name, entry in files.entries(split)
            for place in range(_num_sentences(entry))
        )
        rows.each(files.rows(split, enumerate(sentences, start=1)), take)


def _num_sentences(entry: object) -> int:
    sentences = entry.get("sentences") if isinstance(entry, dict) else None
    return max(1, len(sentences)) if isinstance(sentences, list) else 1
