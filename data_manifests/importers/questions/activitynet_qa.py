"""ActivityNet-QA: open-ended questions in one file, their answers in another."""

from __future__ import annotations

from typing import Final

from ...annotations.dataset_rows import DatasetRows
from ...annotations.official_files import OfficialFiles
from ...annotations.row_log import Row
from ...cards.card import Card

TYPES: Final = (
    "motion",
    "spatial relation",
    "temporal relation",
    "yes/no",
    "color",
    "object",
    "location",
    "number",
    "other",
)


def import_activitynet_qa(card: Card, files: OfficialFiles, rows: DatasetRows) -> None:
    """Questions and answers are joined by their id, whatever their order."""
    for split in files.splits:
        answers: dict[str, tuple[str, str]] = {}

        def take_answer(row: Row, answers: dict[str, tuple[str, str]] = answers) -> None:
            question_id, kind = row.name("question_id"), row.integer("type")
            if question_id in answers:
                row.refuse(f"the question {question_id!r} has two answers")
            if not 0 <= kind < len(TYPES):
                row.refuse(f"expected a type from 0 to {len(TYPES) - 1}, got {kind}", key="type")
            answers[question_id] = row.words("answer"), TYPES[kind]
            row.written()

        def take(
            row: Row, split: str = split, answers: dict[str, tuple[str, str]] = answers
        ) -> None:
            question_id, clip_id = row.name("question_id"), row.name("video_name")
            question = row.words("question")
            if question_id not in answers:
                row.refuse(f"the question {question_id!r} has no answer in the other file")
            answer, kind = answers.pop(question_id)
            rows.clip(row, clip_id, split=split)
            rows.question(row, question_id, clip_id, question=question, answer=answer, type=kind)

        rows.each(files.items(f"{split}_answers"), take_answer)
        rows.each(files.items(split), take)
        if answers:
            file = files.paths[f"{split}_answers"].name
            first = next(iter(answers))
            rows.problem(file, f"answers of {len(answers)} unknown questions, such as {first!r}")
