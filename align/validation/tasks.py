"""The tasks' numbers on a validation split: accuracies, and recall of moments."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from ...data_manifests.cards.spans import span_iou
from ...extract.cache.ragged import Ragged, ragged_rows
from ...extract.cache.split_features import SplitFeatures
from ..data.split import gather_rows, move_if_it_fits
from ..data.task_items import (
    DrawnItems,
    TaskDataError,
    TaskItems,
    answer_items,
    choice_items,
    moment_items,
)
from ..loss_config import TaskConfig, TaskName
from ..model.model import AlignmentModel
from ..objective.tasks import EncodedClips, answer_logits, choice_logits, moment_logs, padded_clips

CLIPS_AT_ONCE = 256
MOMENT_IOU = 0.5
"""Overlap that makes a moment found."""


TASK_METRICS: Final[Mapping[TaskName, str]] = {
    "choice": "choice_accuracy",
    "answer": "answer_accuracy",
    "moment": "moment_recall_at_1",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskValidation:
    """What a validation split has for the tasks that are trained."""

    items: TaskItems
    """None for tasks that are not trained, or that the split has nothing for."""
    clip_features: Tensor
    """(N, D) float32."""
    segment_features: Tensor
    """(S, D) float32."""
    text_features: Tensor
    """(T, D) float32."""
    segment_offsets: np.ndarray
    """(N + 1,) int64."""
    segment_spans: np.ndarray
    """(S, 2) float64 seconds."""
    text_spans: np.ndarray
    """(T, 2) float64 seconds."""


def load_task_validation(
    split: SplitFeatures, *, config: TaskConfig, answers: Sequence[str], device: torch.device
) -> TaskValidation | None:
    """The split for the tasks that have a weight and that it has items of; None without any.

    answers: the vocabulary of open-ended questions.
    """
    loaders: dict[TaskName, Callable[[], Any]] = {
        "choice": lambda: choice_items(split, device=device),
        "answer": lambda: answer_items(split, answers, device=device),
        "moment": lambda: moment_items(split),
    }
    items = {}
    for task in config.weights:
        with contextlib.suppress(TaskDataError):
            items[task] = loaders[task]()
    if not items:
        return None
    clip_features, segment_features, text_features = move_if_it_fits(
        split.clip_features, split.segment_features, split.text_features, device=device
    )
    return TaskValidation(
        items=TaskItems(**items),
        clip_features=clip_features,
        segment_features=segment_features,
        text_features=text_features,
        segment_offsets=split.segment_offsets,
        segment_spans=split.segment_spans,
        text_spans=split.text_spans,
    )


@torch.no_grad()
def task_metrics(
    model: AlignmentModel, data: TaskValidation, *, config: TaskConfig
) -> dict[str, float]:
    """choice_accuracy, answer_accuracy and moment_recall_at_1 of the tasks there are, in [0, 1].

    A tie with the right option counts as a miss; an answer outside the vocabulary is wrong; a
    moment is found when the likeliest span of segments overlaps it by half of their union.
    """
    items = data.items
    hits: dict[TaskName, list[np.ndarray]] = {task: [] for task in items.by_clip}
    num_clips = len(data.clip_features) if hits else 0
    was_training = model.training
    model.eval()
    for first in range(0, num_clips, CLIPS_AT_ONCE):
        clips = np.arange(first, min(first + CLIPS_AT_ONCE, num_clips))
        encoded = _encode(model, data, clips)
        for task, by_clip in items.by_clip.items():
            drawn = _all_of(by_clip, clips)
            if task == "choice":
                hits[task].append(_choices(model, encoded, items, drawn, config))
            elif task == "answer":
                hits[task].append(_answers(model, encoded, items, drawn))
            else:
                hits[task].append(_moments(model, encoded, data, drawn, clips))
    model.train(was_training)
    metrics = {}
    for task, blocks in hits.items():
        is_hit = np.concatenate(blocks)
        outside = items.answer.num_outside if task == "answer" and items.answer else 0
        metrics[TASK_METRICS[task]] = float(is_hit.sum()) / (len(is_hit) + outside)
    return metrics


def likeliest_spans(log_start_KL: Tensor, log_end_KL: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(K,) int64 each: first and last segment, not before it, of the highest product."""
    best_end_KL, end_KL = log_end_KL.flip(1).cummax(dim=1)
    best_end_KL = best_end_KL.flip(1)
    end_KL = log_end_KL.shape[1] - 1 - end_KL.flip(1)
    first_K = (log_start_KL + best_end_KL).argmax(dim=1)
    last_K = end_KL.gather(1, first_K[:, None])[:, 0]
    return first_K.cpu().numpy(), last_K.cpu().numpy()


def _encode(model: AlignmentModel, data: TaskValidation, clips: np.ndarray) -> EncodedClips:
    rows, _ = ragged_rows(data.segment_offsets, clips)
    device = model.device
    counts, clip_rows, segment_rows = (
        torch.from_numpy(array).to(device)
        for array in (np.diff(data.segment_offsets)[clips], clips, rows)
    )
    vectors = model.encode_videos(
        gather_rows(data.clip_features, clip_rows),
        gather_rows(data.segment_features, segment_rows),
        counts,
    )
    return padded_clips(*vectors, counts)


def _all_of(by_clip: Ragged, clips: np.ndarray) -> DrawnItems:
    rows, positions = ragged_rows(by_clip.offsets, clips)
    return DrawnItems(items=by_clip.values[rows], clips=positions)


def _choices(
    model: AlignmentModel,
    encoded: EncodedClips,
    items: TaskItems,
    drawn: DrawnItems,
    config: TaskConfig,
) -> np.ndarray:
    assert items.choice is not None
    weight = config.choice_global_weight
    logits = choice_logits(model, encoded, items.choice, drawn, global_weight=weight)
    answers = torch.from_numpy(items.choice.answers[drawn.items]).to(logits.device)
    right = logits.gather(1, answers[:, None])
    is_hit: np.ndarray = ((logits >= right).sum(dim=1) == 1).cpu().numpy()
    return is_hit


def _answers(
    model: AlignmentModel, encoded: EncodedClips, items: TaskItems, drawn: DrawnItems
) -> np.ndarray:
    assert items.answer is not None
    given = answer_logits(model, encoded, items.answer, drawn).argmax(dim=1).cpu().numpy()
    is_hit: np.ndarray = given == items.answer.classes[drawn.items]
    return is_hit


def _moments(
    model: AlignmentModel,
    encoded: EncodedClips,
    data: TaskValidation,
    drawn: DrawnItems,
    clips: np.ndarray,
) -> np.ndarray:
    assert data.items.moment is not None
    logs = moment_logs(model, encoded, data.items.moment, drawn, text_features=data.text_features)
    first, last = likeliest_spans(*logs)
    begins = data.segment_offsets[clips[drawn.clips]]
    starts = data.segment_spans[begins + first, 0]
    ends = data.segment_spans[begins + last, 1]
    truth = data.text_spans[data.items.moment.texts[drawn.items]]
    is_hit: np.ndarray = span_iou(np.stack([starts, ends], axis=1), truth) >= MOMENT_IOU
    return is_hit
