"""ActivityNet Captions (sentences with their moments) and ActivityNet-QA (open-ended questions)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from ..annotations.dataset_rows import DatasetRows, span_inside, usable_span
from ..annotations.official_files import OfficialFiles
from ..annotations.row_log import Row
from ..cards.card import Card

NO_MOMENT = "sentences whose moment has no length stay in the paragraph alone"


def import_activitynet_captions(card: Card, files: OfficialFiles, rows: DatasetRows) -> None:
    """A row of the file is a sentence. With `queries: paragraph` those of a video are joined.

    val_2 annotates videos of val_1 again: there a clip is called VIDEO@val_2, so that each clip has
    one split. A video of which no moment has a length is a clip without queries, since the official
    numbers of videos count it.
    """
    is_paragraph = card.queries == "paragraph"
    for split in files.splits:

        def take(row: Row, split: str = split) -> None:
            name, entry, place, moment, sentence = row.value
            row.value = entry
            if moment is None or sentence is None:
                row.refuse(f"{name!r}: expected as many timestamps as sentences")
            video, duration = row.as_name(name, "video"), row.number("duration")
            text, (start, end) = row.sentence(sentence, "sentences"), row.pair(moment, "timestamps")
            clip_id = f"{video}@{split}" if split == "val_2" else video
            text_id = f"{clip_id}#{place}"
            rows.clip(row, clip_id, split=split, video_names=(video,), duration_seconds=duration)
            if not is_paragraph:
                span = usable_span(row, start, end, duration_seconds=duration)
                rows.text(row, clip_id, text, kind="query", text_id=text_id, span=span)
                return
            rows.sentence(row, clip_id, text)
            span_in_clip = span_inside(row, start, end, duration_seconds=duration)
            if span_in_clip is None:
                row.mend(NO_MOMENT, (start, end))
            else:
                rows.text(row, clip_id, text, kind="caption", text_id=text_id, span=span_in_clip)

        sentences = _sentences(files.entries(split))
        rows.each(files.rows(split, enumerate(sentences, start=1)), take)


def _sentences(entries: list[tuple[str, Any]]) -> Iterator[tuple[str, Any, int, Any, Any]]:
    """Video, its entry, and each moment with its number and sentence; None for what one lacks."""
    for name, entry in entries:
        columns = [
            entry.get(key) if isinstance(entry, dict) else None
            for key in ("timestamps", "sentences")
        ]
        lists = [column if isinstance(column, list) else [] for column in columns]
        for place in range(max(1, *map(len, lists))):
            moment, sentence = (items[place] if place < len(items) else None for items in lists)
            yield name, entry, place, moment, sentence


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
