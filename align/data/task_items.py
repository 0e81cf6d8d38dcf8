"""What the tasks train on: questions and moments of a split, and those of the clips of a batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...data_manifests.cards.scoring_rules import Vocabulary
from ...extract.cache.ragged import Ragged, ragged_rows
from ...extract.cache.split_features import SplitFeatures
from ..loss_config import TaskConfig, TaskName
from .moment_items import MomentItems, TaskDataError, moment_items
from .question_segments import SegmentRanges, question_segments

# N = clips of the split, K = items (questions or moments), B = clips of a batch


def draw_of_each(
    by_clip: Ragged, clips: np.ndarray, *, max_per_clip: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Up to max_per_clip items of each clip, and for each its clip's position in `clips`.

    clips: (B,) int64.   Every item of a clip is as likely as its others.
    """
    rows, positions = ragged_rows(by_clip.offsets, clips)
    order = np.lexsort((rng.random(len(rows)), positions))
    counts = np.bincount(positions, minlength=len(clips))
    begins = np.repeat(np.cumsum(counts) - counts, counts)
    kept = order[np.arange(len(rows)) - begins < max_per_clip]
    return by_clip.values[rows[kept]], positions[kept]


@dataclass(frozen=True, kw_only=True, slots=True)
class ChoiceItems:
    """K labelled multiple-choice questions."""

    by_clip: Ragged
    """The questions of each clip."""
    question_features: Tensor
    """(K, D) float32."""
    option_features: Tensor
    """(O, D) float32, "question option" through the text tower, questions end to end."""
    option_offsets: np.ndarray
    """(K + 1,) int64."""
    answers: np.ndarray
    """(K,) int64, which of its options is right."""
    asked_of: SegmentRanges
    """The segments of its clip that each is asked of."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerItems:
    """K open-ended questions whose answers are in the vocabulary."""

    by_clip: Ragged
    """The questions of each clip."""
    question_features: Tensor
    """(K, D) float32."""
    classes: np.ndarray
    """(K,) int64, place of the answer in the vocabulary."""
    asked_of: SegmentRanges
    """The segments of its clip that each is asked of."""
    num_outside: int
    """Questions of the split whose answer is not in it; they are not trained on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskItems:
    """What a split has for the tasks that are trained; None for the others."""

    choice: ChoiceItems | None = None
    """Multiple choice."""
    answer: AnswerItems | None = None
    """Open-ended."""
    moment: MomentItems | None = None
    """Where texts start and end."""

    @property
    def by_clip(self) -> dict[TaskName, Ragged]:
        """The items of each task that is there."""
        of_task: dict[TaskName, ChoiceItems | AnswerItems | MomentItems | None] = {
            "choice": self.choice,
            "answer": self.answer,
            "moment": self.moment,
        }
        return {name: items.by_clip for name, items in of_task.items() if items is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnItems:
    """Items of one task in a batch."""

    items: np.ndarray
    """(K,) int64, rows of the task's items."""
    clips: np.ndarray
    """(K,) int64, position of the clip of each in the batch."""


def task_items(
    split: SplitFeatures, *, config: TaskConfig, answers: Sequence[str], device: torch.device
) -> TaskItems:
    """The items of the tasks that have a weight. answers: the vocabulary of open-ended questions.

    Raises TaskDataError when the split has none for one of them.
    """
    return TaskItems(
        choice=None if config.choice_weight == 0 else choice_items(split, config, device=device),
        answer=None
        if config.answer_weight == 0
        else answer_items(split, answers, config, device=device),
        moment=moment_items(split) if config.moment_weight > 0 else None,
    )


def draw_items(
    items: TaskItems, clips: np.ndarray, *, max_per_clip: int, rng: np.random.Generator
) -> dict[TaskName, DrawnItems]:
    """Up to max_per_clip items of each task from each of the clips, (B,) int64."""
    drawn = {}
    for name, by_clip in items.by_clip.items():
        rows, positions = draw_of_each(by_clip, clips, max_per_clip=max_per_clip, rng=rng)
        drawn[name] = DrawnItems(items=rows, clips=positions)
    return drawn


def choice_items(split: SplitFeatures, config: TaskConfig, *, device: torch.device) -> ChoiceItems:
    """Raises TaskDataError when the split has no multiple-choice questions with known answers."""
    questions = split.questions
    is_choice = np.array([kind == "multiple_choice" for kind in questions.kinds], dtype=bool)
    rows = np.flatnonzero(is_choice & (questions.answer_indices >= 0))
    if len(rows) == 0:
        raise TaskDataError(_none(split, "multiple-choice questions with known answers"))
    options, _ = ragged_rows(questions.option_offsets, rows)
    counts = np.diff(questions.option_offsets)[rows]
    return ChoiceItems(
        by_clip=Ragged.grouped(questions.clips[rows], num_groups=len(split.clip_ids)),
        question_features=torch.from_numpy(questions.question_features[rows]).to(device),
        option_features=torch.from_numpy(questions.option_features[options]).to(device),
        option_offsets=np.concatenate([[0], np.cumsum(counts)]),
        answers=questions.answer_indices[rows],
        asked_of=question_segments(split, rows, question_spans=config.question_spans),
    )


def known_answers(split: SplitFeatures) -> tuple[np.ndarray, list[str]]:
    """Rows of the split's open-ended questions with known answers, and those answers."""
    questions = split.questions
    rows = [
        row
        for row, (kind, answer) in enumerate(zip(questions.kinds, questions.answers, strict=True))
        if kind == "open_ended" and answer is not None
    ]
    return np.array(rows, dtype=np.int64), [questions.answers[row] or "" for row in rows]


def answer_items(
    split: SplitFeatures, vocabulary: Sequence[str], config: TaskConfig, *, device: torch.device
) -> AnswerItems:
    """Raises TaskDataError when no answer of the split is in the vocabulary."""
    rows, answers = known_answers(split)
    places = {answer: place for place, answer in enumerate(vocabulary)}
    classes = np.array([places.get(answer, -1) for answer in answers], dtype=np.int64)
    inside = classes >= 0
    if not inside.any():
        wanted = f"open-ended questions whose answers are among the {len(places)} of the vocabulary"
        if answers and not places:
            max_count = Counter(answers).most_common(1)[0][1]
            wanted = (
                f"answers as frequent as tasks.answers_min_count asks for (at most {max_count})"
            )
        raise TaskDataError(_none(split, wanted))
    kept = rows[inside]
    features = split.questions.question_features[kept]
    return AnswerItems(
        by_clip=Ragged.grouped(split.questions.clips[kept], num_groups=len(split.clip_ids)),
        question_features=torch.from_numpy(features).to(device),
        classes=classes[inside],
        asked_of=question_segments(split, kept, question_spans=config.question_spans),
        num_outside=int((~inside).sum()),
    )


def vocabulary(split: SplitFeatures, config: TaskConfig) -> list[str]:
    """The answers of a training split that a model may give, most frequent first.

    Raises TaskDataError when the split has fewer than are asked for.
    """
    _, answers = known_answers(split)
    num_different = len(set(answers))
    if 0 < num_different < (config.answers_most_frequent or 0):
        raise TaskDataError(
            f"tasks.answers_most_frequent is {config.answers_most_frequent}, but the open-ended "
            f"questions of the split {split.split!r} have {num_different} different answers: leave "
            f"it out to take them all"
        )
    rule = Vocabulary(
        most_frequent=config.answers_most_frequent, min_count=config.answers_min_count
    )
    return rule.of(answers)


def answer_features(split: SplitFeatures, vocabulary: Sequence[str]) -> np.ndarray:
    """(A, D) float32: the text features of answers that open-ended questions of the split have."""
    rows, answers = known_answers(split)
    first_row = dict(zip(reversed(answers), reversed(rows.tolist()), strict=True))
    places = [split.questions.option_offsets[first_row[answer]] for answer in vocabulary]
    features: np.ndarray = split.questions.option_features[places]
    return features


def _none(split: SplitFeatures, wanted: str) -> str:
    return f"the split {split.split!r} has no {wanted}"
