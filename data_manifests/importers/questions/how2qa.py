"""How2QA: multiple choice about instructional videos, in a table without header."""

from __future__ import annotations

import hashlib
import random

from ...annotations.dataset_rows import DatasetRows, span_inside
from ...annotations.official_files import OfficialFiles
from ...annotations.row_log import Row
from ...cards.card import Card
from ..moments.how2r import read_span

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
