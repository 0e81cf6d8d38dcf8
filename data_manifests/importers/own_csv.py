"""Datasets of your own: captions, moments or questions, a CSV with a header for each split."""

from __future__ import annotations

from collections import Counter

from ..annotations.dataset_rows import DatasetRows, usable_span
from ..annotations.official_files import OfficialFiles
from ..annotations.row_log import Row
from ..cards.card import Card


def import_captions_csv(card: Card, files: OfficialFiles, rows: DatasetRows) -> None:
    """Columns video and caption; others are not read. A video may have several rows.

    The card names one file for each split, under the split's name. With `queries: paragraph` the
    captions of a video are joined, in the order of the file.
    """
    for split in files.splits:

        def take(row: Row, split: str = split) -> None:
            clip_id, caption = row.name("video"), row.words("caption")
            rows.clip(row, clip_id, split=split)
            if card.queries == "paragraph":
                rows.sentence(row, clip_id, caption)
            else:
                rows.text(row, clip_id, caption, kind="caption")

        rows.each(files.records(split, ("video", "caption")), take)


def import_moments_csv(card: Card, files: OfficialFiles, rows: DatasetRows) -> None:
    """Columns video, start_seconds, end_seconds, sentence; others are not read.

    The card names a file for each split, under the split's name.
    """
    for split in files.splits:

        def take(row: Row, split: str = split) -> None:
            clip_id, text = row.name("video"), row.words("sentence")
            start, end = row.number("start_seconds"), row.number("end_seconds")
            rows.clip(row, clip_id, split=split)
            span = usable_span(row, start, end, duration_seconds=None)
            rows.text(row, clip_id, text, kind="query", span=span)

        columns = ("video", "start_seconds", "end_seconds", "sentence")
        rows.each(files.records(split, columns), take)


OPTION = "option"


def import_questions_csv(card: Card, files: OfficialFiles, rows: DatasetRows) -> None:
    """Columns video, question, answer; option0, option1 ... for multiple choice; type if wanted.

    With options the answer is the number of the right one, from 0; without, the answer itself. An
    empty answer is an unknown one. The card names a file for each split, under the split's name.
    """
    num_questions: Counter[str] = Counter()
    for split in files.splits:

        def take(row: Row, split: str = split) -> None:
            clip_id, question = row.name("video"), row.words("question")
            rows.clip(row, clip_id, split=split)
            columns = [name for name in row.value if name.startswith(OPTION)]
            options = [row.words(name) for name in columns if row.value[name].strip()]
            is_known = bool(row.get("answer").strip())
            rows.question(
                row,
                f"{clip_id}#{num_questions[clip_id]}",
                clip_id,
                question=question,
                options=options or None,
                answer_index=row.integer("answer") if options and is_known else None,
                answer=None if options or not is_known else row.words("answer"),
                type=row.value.get("type", "").strip() or None,
            )
            num_questions[clip_id] += 1

        rows.each(files.records(split, ("video", "question", "answer")), take)
