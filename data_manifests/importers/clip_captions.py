"""Captions of short clips: MSVD, VATEX and LSMDC.

MSVD: lists of clips; captions as a pickle of words (CE, CLIP4Clip) or as JSON (X-Pool). VATEX: ten
English captions for each clip; retrieval splits as lists. LSMDC: tables of movie clips with their
sentences (or five to choose from), without header.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from ..annotations.dataset_rows import DatasetRows
from ..annotations.official_files import OfficialFiles
from ..annotations.row_log import Row
from ..cards.card import Card
from ..core.faults import excerpt
from .how2 import shuffled

OTHER_CLIPS = "captions of clips in none of the splits"


def import_msvd(card: Card, files: OfficialFiles, rows: DatasetRows) -> None:
    """Clips by the lists; every caption of a clip that is in one of them."""
    for split in files.splits:

        def take_name(row: Row, split: str = split) -> None:
            rows.clip(row, row.value.strip(), split=split)

        rows.each(files.lines(split), take_name)

    def take_caption(row: Row) -> None:
        clip_id, caption = row.value
        if clip_id not in rows.clips:
            row.leave_out(OTHER_CLIPS)
        if isinstance(caption, list) and all(isinstance(word, str) for word in caption):
            caption = " ".join(caption)
        rows.text(row, clip_id, row.sentence(caption, clip_id), kind="caption")

    is_pickle = files.paths["captions"].suffix == ".pkl"
    content = files.pickled("captions") if is_pickle else files.json("captions")
    if not isinstance(content, dict):
        problem = f"expected captions of each clip, got {excerpt(content)}"
        rows.problem(files.paths["captions"].name, problem)
        return
    rows.each(files.rows("captions", enumerate(_captions(content), start=1)), take_caption)


def _captions(content: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Clip and caption; what should be a list of captions and is none counts as one."""
    for clip_id, captions in content.items():
        for caption in captions if isinstance(captions, list) else [captions]:
            yield str(clip_id), caption


OTHER_ENTRIES = "of clips in none of the splits"


def import_vatex(card: Card, files: OfficialFiles, rows: DatasetRows) -> None:
    """Clips by the lists, the English captions from whichever official file has the clip."""
    for split in files.splits:

        def take_name(row: Row, split: str = split) -> None:
            rows.clip(row, row.value.strip(), split=split)

        rows.each(files.lines(f"{split}_list"), take_name)

    def take(row: Row) -> None:
        clip_id = row.name("videoID")
        if clip_id not in rows.clips:
            row.leave_out(OTHER_ENTRIES)
        for caption in row.sentences("enCap"):
            rows.text(row, clip_id, caption, kind="caption")

    for word in ("training", "validation"):
        if files.has(word):
            rows.each(files.items(word), take)


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
