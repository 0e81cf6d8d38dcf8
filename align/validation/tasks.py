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
from ...extract.cache.ragged import Ragged, offsets_of, ragged_rows
from ...extract.cache.split_features import SplitFeatures
from ..data.moment_items import TaskDataError, moment_items
from ..data.split import gather_rows, move_if_it_fits
from ..data.task_items import DrawnItems, TaskItems, answer_items, choice_items
from ..loss_config import TaskConfig, TaskName
from ..model.model import AlignmentModel
from ..model.moment_head import bounded_spans
from ..objective.tasks import (
    PaddedSegments,
    answer_logits,
    choice_logits,
    moment_scores,
    padded_segments,
)

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
        "choice": lambda: choice_items(split, config, device=device),
        "answer": lambda: answer_items(split, answers, config, device=device),
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
def task_metrics(model: AlignmentModel, data: TaskValidation) -> dict[str, float]:
    """choice_accuracy, answer_accuracy and moment_recall_at_1 of the tasks there are, in [0, 1].

    A tie with the right option counts as a miss; an answer outside the vocabulary is wrong; a
    moment is found when the likeliest span overlaps it, or another moment of its query, by half of
    their union.
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
                hits[task].append(_choices(model, encoded, items, drawn))
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


def likeliest_spans(scores_KLL: Tensor) -> tuple[Tensor, Tensor]:
    """(K,) int64 each: first and last segment of the span with the highest score."""
    length = scores_KLL.shape[2]
    best_K = scores_KLL.flatten(1).argmax(dim=1)
    return best_K // length, best_K % length


def _encode(model: AlignmentModel, data: TaskValidation, clips: np.ndarray) -> PaddedSegments:
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
    return padded_segments(vectors[1], counts)


def _all_of(by_clip: Ragged, clips: np.ndarray) -> DrawnItems:
    rows, positions = ragged_rows(by_clip.offsets, clips)
    return DrawnItems(items=by_clip.values[rows], clips=positions)


def _choices(
    model: AlignmentModel, segments: PaddedSegments, items: TaskItems, drawn: DrawnItems
) -> np.ndarray:
    assert items.choice is not None
    logits = choice_logits(model, segments, items.choice, drawn)
    answers = torch.from_numpy(items.choice.answers[drawn.items]).to(logits.device)
    right = logits.gather(1, answers[:, None])
    is_hit: np.ndarray = ((logits >= right).sum(dim=1) == 1).cpu().numpy()
    return is_hit


def _answers(
    model: AlignmentModel, segments: PaddedSegments, items: TaskItems, drawn: DrawnItems
) -> np.ndarray:
    assert items.answer is not None
    given = answer_logits(model, segments, items.answer, drawn).argmax(dim=1).cpu().numpy()
    is_hit: np.ndarray = given == items.answer.classes[drawn.items]
    return is_hit


def _moments(
    model: AlignmentModel,
    segments: PaddedSegments,
    data: TaskValidation,
    drawn: DrawnItems,
    clips: np.ndarray,
) -> np.ndarray:
    items = data.items.moment
    assert items is not None
    scored = moment_scores(model, segments, items, drawn, text_features=data.text_features)
    first_K, last_K = likeliest_spans(scored[0])
    offsets_KL2 = scored[1].cpu()
    spans = np.empty((len(drawn.items), 2))
    for item, (first, last) in enumerate(zip(first_K.cpu(), last_K.cpu(), strict=True)):
        own = slice(*data.segment_offsets[clips[drawn.clips[item]] :][:2])
        seconds = torch.from_numpy(data.segment_spans[own])
        offsets = offsets_KL2[item, : len(seconds)].double()
        spans[item] = bounded_spans(seconds, first[None], last[None], offsets)[0].numpy()
    moments, owners = ragged_rows(items.texts.offsets, drawn.items)
    ious = span_iou(spans[owners], data.text_spans[items.texts.values[moments]])
    nearest = np.maximum.reduceat(ious, offsets_of(items.texts.counts[drawn.items])[:-1])
    is_hit: np.ndarray = nearest >= MOMENT_IOU
    return is_hit
