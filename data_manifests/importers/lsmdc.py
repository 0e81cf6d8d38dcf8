"""LSMDC: tables of movie clips with their sentences (or five to choose from), without header."""

from __future__ import annotations

from collections import Counter

from ..annotations.dataset_rows import DatasetRows
from ..annotations.official_files import OfficialFiles
from ..annotations.row_log import Row
from ..cards.card import Card
from .how2 import shuffled

NUM_COLUMNS = 6
"""Clip, start and end as aligned, start and end as extracted, sentence."""


def import_lsmdc(card: Card, files: OfficialFiles, rows: DatasetRows) -> None:
    """A clip for each name in the first column; a clip may have several sentences."""
    for split in files.splits:

        def take(row: Row, split: str = split) -> None:
            clip_id = row.name(0)
            rows.clip(row, clip_id, split=split)
            rows.text(row, clip_id, row.words(NUM_COLUMNS - 1), kind="caption")

        # Quotes stand in the sentences as they are.
        table = files.fields(split, widths=(NUM_COLUMNS,), delimiter="\t", quoted=False)
        rows.each(table, take)


OPTIONS = range(5, 10)
ANSWER = 10
"""Counted from 1 in the file; without it the first option is the right one."""


def import_lsmdc_choice(card: Card, files: OfficialFiles, rows: DatasetRows) -> None:
    """A question's id is CLIP, and CLIP/K for further ones of the clip.

    The files of training and validation have the right sentence first and no answer: their options
    are shuffled, by the question's id alone.
    """
    num_questions: Counter[str] = Counter()
    for split in files.splits:

        def take(row: Row, split: str = split) -> None:
            clip_id, options = row.name(0), [row.words(column) for column in OPTIONS]
            question_id = (
                f"{clip_id}/{num_questions[clip_id]}" if num_questions[clip_id] else clip_id
            )
            if len(row.value) > ANSWER:
                answer = row.integer(ANSWER) - 1
            else:
                right = options[0]
                options = shuffled(options, question_id)
                answer = options.index(right)
            rows.clip(row, clip_id, split=split)
            rows.question(
                row,
                question_id,
                clip_id,
                question="",
                options=options,
                answer_index=answer,
            )
            num_questions[clip_id] += 1

        widths = (ANSWER + 1,) if split == card.test_split else (ANSWER, ANSWER + 1)
        rows.each(files.fields(split, widths=widths, delimiter="\t", quoted=False), take)
