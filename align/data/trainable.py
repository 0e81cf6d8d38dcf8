"""What of the settings a split can train: levels and tasks without data are left out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, assert_never

import numpy as np
import torch

from ...extract.cache.split_features import SplitFeatures, sentences_of_texts
from ..config import RunConfig
from ..loss_config import TASK_NAMES, TaskConfig, TaskName
from .moment_items import TaskDataError, moment_items
from .split import TrainingDataError, segment_text_pairs
from .task_items import answer_items, choice_items, vocabulary

LEVEL_TERMS: Final = ("global", "segment", "in_clip", "weak_segment", "token")
TASK_TITLES: Final[Mapping[TaskName, str]] = {
    "choice": "multiple choice",
    "answer": "open-ended answers",
    "moment": "moments",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Trainable:
    """The settings of a run on its data."""

    config: RunConfig
    """No null is left in the weights and in levels.path; what has no data has weight 0."""
    decided: tuple[str, ...]
    """The settings that the data decided, as NAME=VALUE."""
    left_out: tuple[str, ...]
    """What has a weight in the given settings and no data, and why."""

    def line(self) -> str | None:
        """What is left out, in one line; None where nothing is."""
        return f"not trained: {', '.join(self.left_out)}" if self.left_out else None


def trainable(config: RunConfig, split: SplitFeatures) -> Trainable:
    """The settings with the weights of what the training split has no pairs or items for at 0.

    Raises TrainingDataError when nothing is left to train.
    """
    losses, is_segment = config.losses, split.text_is_segment
    left_out: list[str] = []
    decided: dict[str, float | bool] = {}

    def leave_out(what: str, why: str, *names: str) -> None:
        if any(_weight(config, name) for name in names):
            left_out.append(f"{what} ({why})")
        decided.update({name: 0.0 for name in names if _weight(config, name) != 0})

    num_clips = len(np.unique(split.text_clips[~is_segment]))
    has_texts = num_clips >= 2
    if not has_texts:
        why = f"{num_clips} clips have a text without a span"
        leave_out("the global level", why, "losses.global_weight")
        leave_out("segments without spans", why, "losses.weak_segment_weight")
        leave_out("the token level", why, "losses.token_weight")
    with_span = np.flatnonzero(is_segment)
    has_pairs = len(with_span) > 0 and bool(segment_text_pairs(split, with_span).positive.any())
    if not has_pairs:
        weights = ("losses.segment_weight", "losses.in_clip_weight")
        leave_out("the segment level by spans", "no text has a span with a segment", *weights)
    has_sentences = has_texts and _most_have_sentences(split)
    if losses.weak_segment_weight is None and has_texts:
        decided["losses.weak_segment_weight"] = float(has_sentences and not has_pairs)
    for task in config.tasks.weights:
        if (reason := _reason_without_items(split, task, config.tasks)) is not None:
            leave_out(TASK_TITLES[task], reason, f"tasks.{task}_weight")
    if config.levels.path is None:
        is_weak = decided.get("losses.weak_segment_weight", losses.weak_segment_weight)
        by_spans = has_pairs and losses.trains_on_spans
        decided["levels.path"] = by_spans or (bool(is_weak) and has_sentences)
    changes = tuple(f"{name}={json.dumps(value)}" for name, value in decided.items())
    if not _trains_something(config, decided):
        raise TrainingDataError(_nothing(split, left_out))
    return Trainable(config=_with(config, decided), decided=changes, left_out=tuple(left_out))


def _weight(config: RunConfig, name: str) -> float | None:
    group, field = name.split(".")
    weight: float | None = getattr(getattr(config, group), field)
    return weight


def _with(config: RunConfig, decided: Mapping[str, float | bool]) -> RunConfig:
    groups: dict[str, dict[str, Any]] = {}
    for name, value in decided.items():
        group, field = name.split(".")
        groups.setdefault(group, {})[field] = value
    changed = {
        group: dataclasses.replace(getattr(config, group), **fields)
        for group, fields in groups.items()
    }
    try:
        return dataclasses.replace(config, **changed)
    except ValueError as error:  # of a metric that nothing is left to train for
        raise TrainingDataError(str(error)) from error


def _trains_something(config: RunConfig, decided: Mapping[str, float | bool]) -> bool:
    names = [f"losses.{name}_weight" for name in LEVEL_TERMS]
    names += [f"tasks.{task}_weight" for task in TASK_NAMES]
    return any(decided.get(name, _weight(config, name)) for name in names)


def _reason_without_items(split: SplitFeatures, task: TaskName, config: TaskConfig) -> str | None:
    """Why the task cannot be trained on the split; None where it can."""
    try:
        match task:
            case "choice":
                choice_items(split, config, device=torch.device("cpu"))
            case "answer":
                answer_items(split, vocabulary(split, config), config, device=torch.device("cpu"))
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
        f"{', '.join(left_out) or 'nothing'}. Captions on two clips train losses.global_weight, "
        f"texts with spans losses.segment_weight, questions with answers tasks.choice_weight or "
        f"tasks.answer_weight; another split is chosen with data.train_split"
    )
