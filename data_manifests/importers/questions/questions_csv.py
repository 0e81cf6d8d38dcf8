"""Questions of a dataset of your own: a CSV with a header for each split of the card."""

from __future__ import annotations

from collections import Counter

from ...annotations.dataset_rows import DatasetRows
from ...annotations.official_files import OfficialFiles
from ...annotations.row_log import Row
from ...cards.card import Card

OPTION = "option"


def import_questions_csv(card: Card, files: OfficialFiles, rows: DatasetRows) -> None:
    """Columns video, question, answer; option0, option1 ... for multiple choice; type if wanted.

    With options the answer is the number of the right one, from 0; without, the answer itself. An
    empty answer is an unknown one. The card names a file for each split, under the split's name.
    """
    asked: Counter[str] = Counter()
    for split in files.splits:

        def take(row: Row, split: str = split) -> None:
            clip_id, question = row.name("video"), row.words("question")
            rows.clip(row, clip_id, split=split)
            columns = [name for name in row.value if name.startswith(OPTION)]
            options = [row.words(name) for name in columns if row.value[name].strip()]
            is_known = bool(row.get("answer").strip())
            rows.question(
                row,
                f"{clip_id}#{asked[clip_id]}",
                clip_id,
                question=question,
                options=options or None,
                answer_index=row.integer("answer") if options and is_known else None,
                answer=None if options or not is_known else row.words("answer"),
                type=row.value.get("type", "").strip() or None,
            )
            asked[clip_id] += 1

        rows.each(files.records(split, ("video", "question", "answer")), take)
