"""How2R and How2QA: moments and questions of instructional videos, in tables without header."""

from __future__ import annotations

import hashlib
import random
import re

from ..annotations.dataset_rows import DatasetRows, span_inside, span_or_none
from ..annotations.official_files import OfficialFiles
from ..annotations.row_log import Row
from ..cards.card import Card
from ..core.faults import excerpt

SPAN = re.compile(r"\[([^:\]]+):([^:\]]+)\]")


def import_how2r(card: Card, files: OfficialFiles, rows: DatasetRows) -> None:
    """VIDEO, [clip start:clip end], [start:end], QUERY; times are seconds of the source video.

    A clip is called VIDEO_START_END; moments become seconds of the clip.
    """
    for split in files.splits:

        def take(row: Row, split: str = split) -> None:
            video = row.name(0)
            first, last = read_span(row, 1)
            start, end = read_span(row, 2)
            query = row.words(3)
            if len(row.value) == 5 and row.value[4].strip():
                row.refuse(f"expected nothing in the fifth column, got {excerpt(row.value[4])}")
            length = last - first
            clip_id = f"{video}_{_exact_number(first)}_{_exact_number(last)}"
            rows.clip(
                row,
                clip_id,
                split=split,
                video_names=(video,),
                start_seconds=first,
                end_seconds=last,
                duration_seconds=length,
            )
            span = span_or_none(row, start - first, end - first, duration_seconds=length)
            rows.text(row, clip_id, query, kind="query", span=span)

        rows.each(files.fields(split, widths=(4, 5)), take)


def read_span(row: Row, column: int) -> tuple[float, float]:
    """[START:END] in a field of a line, seconds."""
    match = SPAN.fullmatch(row.get(column).strip())
    if match is None:
        row.refuse(f"expected [START:END], got {excerpt(row.get(column))}", key=str(column + 1))
    start, end = (row.as_number(number.strip(), str(column + 1)) for number in match.groups())
    return start, end


def _exact_number(seconds: float) -> str:
    """With every digit, so that clips that differ have ids that do; 60, not 60.0."""
    return repr(seconds).removesuffix(".0")


NUM_COLUMNS = 7
"""VIDEO, [start:end], three wrong answers, QUESTION, the right answer."""
NO_MOMENT = "questions whose moment has no length, kept without it"


def import_how2qa(card: Card, files: OfficialFiles, rows: DatasetRows) -> None:
    """The right answer is always the last in the file, so options are shuffled.

    The order follows from the question's id alone, SPLIT-K with K the line, from 0: it is the same
    on every machine, whatever else is built.
    """
    for split in files.splits:

        def take(row: Row, split: str = split) -> None:
            clip_id, question = row.name(0), row.words(5)
            question_id = f"{split}-{row.line - 1}"
            right = row.words(6)
            options = shuffled([right, *(row.words(column) for column in (2, 3, 4))], question_id)
            start, end = read_span(row, 1)
            span = span_inside(row, start, end, duration_seconds=None)
            if span is None:
                row.mend(NO_MOMENT, (start, end))
            rows.clip(row, clip_id, split=split)
            rows.question(
                row,
                question_id,
                clip_id,
                question=question,
                options=options,
                answer_index=options.index(right),
                span=span,
            )

        rows.each(files.fields(split, widths=(NUM_COLUMNS,)), take)


def shuffled(options: list[str], question_id: str) -> list[str]:
    """The options in an order that depends on the question's id and nothing else."""
    seed = int.from_bytes(hashlib.sha256(question_id.encode()).digest()[:8], "big")
    keys = random.Random(seed)
    return sorted(options, key=lambda _: keys.random())
