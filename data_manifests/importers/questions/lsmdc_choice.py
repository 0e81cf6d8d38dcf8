"""LSMDC-MC: which of five sentences is the clip's, in a table without header."""

from __future__ import annotations

from collections import Counter

from ...annotations.dataset_rows import DatasetRows
from ...annotations.official_files import OfficialFiles
from ...annotations.row_log import Row
from ...cards.card import Card
from .how2qa import shuffled

OPTIONS = range(5, 10)
ANSWER = 10
"""Counted from 1 in the file; without it the first option is the right one."""


def import_lsmdc_choice(card: Card, files: OfficialFiles, rows: DatasetRows) -> None:
    """A question's id is CLIP, and CLIP/K for further ones of the clip.

    The files of training and validation have the right sentence first and no answer: their options
    are shuffled, by the question's id alone.
    """
    asked: Counter[str] = Counter()
    for split in files.splits:

        def take(row: Row, split: str = split) -> None:
            clip_id, options = row.name(0), [row.words(column) for column in OPTIONS]
            question_id = f"{clip_id}/{asked[clip_id]}" if asked[clip_id] else clip_id
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
            asked[clip_id] += 1

        widths = (ANSWER + 1,) if split == card.test_split else (ANSWER, ANSWER + 1)
        rows.each(files.fields(split, widths=widths, delimiter="\t", quoted=False), take)
