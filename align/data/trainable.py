"""What of the settings a split can train: levels and tasks without data are left out."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import assert_never

import numpy as np
import torch

from ...extract.cache.store import SplitFeatures
from ...extract.cache.text_sentences import sentences_of_texts
from ..config import RunConfig
from ..loss_config import TASK_NAMES, TaskConfig, TaskName
from .split import TrainingDataError, segment_text_pairs
from .task_items import TaskDataError, answer_items, choice_items, moment_items, vocabulary


@dataclass(frozen=True, kw_only=True, slots=True)
class Trainable:
    """The settings of a run on its data."""

    config: RunConfig
    """No null is left in the weights and in levels.path; what has no data has weight 0."""
    left_out: tuple[str, ...]
    """Why, for each level and task that has a weight in the given settings and no data."""

    def line(self) -> str | None:
        """What is left out, in one line; None where nothing is."""
        return f"not trained: {'; '.join(self.left_out)}" if self.left_out else None


def trainable(config: RunConfig, split: SplitFeatures) -> Trainable:
    """The settings with the weights of what the training split has no pairs or items for at 0.

    Raises TrainingDataError when nothing is left to train.
    """
    losses, is_segment = config.losses, split.text_is_segment
    left_out: list[str] = []
    weights: dict[str, float] = {}
    with_text = len(np.unique(split.text_clips[~is_segment]))
    if with_text < 2:
        why = f"{with_text} clips have a text without a span, and it needs two"
        for name in ("global_weight", "weak_segment_weight", "token_weight"):
            if getattr(losses, name):
                left_out.append(f"losses.{name} ({why})")
            weights[name] = 0.0
    with_span = np.flatnonzero(is_segment)
    has_pairs = bool(len(with_span)) and segment_text_pairs(split, with_span).positive.any()
    if not has_pairs:
        for name in ("segment_weight", "in_clip_weight"):
            if getattr(losses, name) > 0:
                left_out.append(f"losses.{name} (no text has a span with a segment)")
            weights[name] = 0.0
    has_sentences = with_text >= 2 and _most_have_sentences(split)
    if losses.weak_segment_weight is None:
        weights["weak_segment_weight"] = float(has_sentences and not has_pairs)
    tasks: dict[str, float] = {}
    for task in TASK_NAMES:
        if config.tasks.weights.get(task):
            reason = _reason_without_items(split, task, config.tasks)
            if reason is not None:
                left_out.append(f"tasks.{task}_weight ({reason})")
                tasks[f"{task}_weight"] = 0.0
    losses = dataclasses.replace(losses, **weights)  # type: ignore[arg-type]
    task_config = dataclasses.replace(config.tasks, **tasks)  # type: ignore[arg-type]
    if not (losses.global_weight > 0 or losses.has_segment_term or task_config.weights):
        raise TrainingDataError(_nothing(split, left_out))
    path = config.levels.path
    if path is None:
        on_sentences = bool(losses.weak_segment_weight) and has_sentences
        path = losses.trains_on_spans or on_sentences
    levels = dataclasses.replace(config.levels, path=path)
    resolved = dataclasses.replace(config, losses=losses, tasks=task_config, levels=levels)
    return Trainable(config=resolved, left_out=tuple(left_out))


def _reason_without_items(split: SplitFeatures, task: TaskName, config: TaskConfig) -> str | None:
    """Why the task cannot be trained on the split; None where it can."""
    try:
        match task:
            case "choice":
                choice_items(split, device=torch.device("cpu"))
            case "answer":
                answer_items(split, vocabulary(split, config), device=torch.device("cpu"))
            case "moment":
                if split.segment_rule == "spans":
                    return "segments are the spans of the texts, so their bounds say the answer"
                moment_items(split)
            case _:
                assert_never(task)
    except TaskDataError as error:
        return str(error)
    return None


def _most_have_sentences(split: SplitFeatures) -> bool:
    """Whether most of the global texts have several sentences."""
    counts = sentences_of_texts(split).counts[~split.text_is_segment]
    return bool(np.mean(counts > 1) > 0.5)


def _nothing(split: SplitFeatures, left_out: list[str]) -> str:
    kinds = split.questions.kinds
    return (
        f"the split {split.split!r} has nothing that these settings train: it has "
        f"{len(split.clip_ids)} clips, {int((~split.text_is_segment).sum())} texts without and "
        f"{int(split.text_is_segment.sum())} with a span, {kinds.count('multiple_choice')} "
        f"multiple-choice and {kinds.count('open_ended')} open-ended questions. Left out: "
        f"{'; '.join(left_out) or 'nothing'}. Captions on two clips train losses.global_weight, "
        f"texts with spans losses.segment_weight, questions with answers tasks.choice_weight or "
        f"tasks.answer_weight; another split is chosen with data.train_split"
    )
