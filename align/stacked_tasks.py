"""The losses of the tasks for runs that train together, as `tasks` has them for one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import assert_never

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .config import TaskConfig, TaskName
from .stacked_batches import SegmentPlaces
from .stacked_model import StackedModel
from .task_items import AnswerItems, ChoiceItems, DrawnItems, MomentItems
from .training_split import TrainingSplit, gathered

# M = runs, B = clips of each, L = segments of the longest, K = items of the run that has most,
# O = options of the item that has most, A = answers, W = shared width


def stacked_task_terms(
    model: StackedModel,
    split: TrainingSplit,
    drawn: Mapping[TaskName, DrawnItems],
    vectors: Mapping[str, Tensor],
    segment_counts: Tensor,
    *,
    config: TaskConfig,
) -> dict[str, Tensor]:
    """(M,), the unweighted loss of each task, by its name.

    drawn: items (M, K), where what pads a run's has -1 for its clip.   vectors: clips (M, B, W) and
    segments (M, S, W), of segment_counts (M, B).
    """
    places = SegmentPlaces.of(segment_counts, num_segments=vectors["segments"].shape[1])
    segments_MBLW = vectors["segments"][places.run, places.rows]
    terms: dict[str, Tensor] = {}
    for name, own in drawn.items():
        clips_MK = torch.from_numpy(own.clips).to(split.device)
        present_MK, owners_MK = clips_MK >= 0, clips_MK.clamp(min=0)
        run = places.run[:, :, 0]
        segments_MKLW, inside_MKL = segments_MBLW[run, owners_MK], places.present[run, owners_MK]

        def mean(logits: Tensor, classes: np.ndarray, present_MK: Tensor = present_MK) -> Tensor:
            return _mean_cross_entropy(logits, classes, present_MK)

        tasks = split.tasks
        match name:
            case "choice":
                assert tasks.choice is not None
                terms[name] = _choice_term(
                    model,
                    tasks.choice,
                    own.items,
                    vectors["clips"][run, owners_MK],
                    (segments_MKLW, inside_MKL),
                    mean,
                    global_weight=config.choice_global_weight,
                )
            case "answer":
                assert tasks.answer is not None
                terms[name] = _answer_term(
                    model, tasks.answer, own.items, (segments_MKLW, inside_MKL), mean
                )
            case "moment":
                assert tasks.moment is not None
                terms[name] = _moment_term(
                    model,
                    tasks.moment,
                    own.items,
                    (segments_MKLW, inside_MKL),
                    mean,
                    text_features=split.text_features,
                )
            case _:
                assert_never(name)
    return terms


Mean = Callable[[Tensor, np.ndarray], Tensor]
"""Of the cross-entropies of logits (M, K, classes) with classes (M, K), over a run's own items."""
Segments = tuple[Tensor, Tensor]
"""(M, K, L, W), those of the clip of each item, and (M, K, L) bool, what is no padding."""


def _choice_term(
    model: StackedModel,
    items: ChoiceItems,
    rows: np.ndarray,
    clips_MKW: Tensor,
    segments: Segments,
    mean: Mean,
    *,
    global_weight: float,
) -> Tensor:
    device = clips_MKW.device
    counts = np.diff(items.option_offsets)[rows]
    is_option = np.arange(counts.max(initial=1)) < counts[:, :, None]
    options = np.where(is_option, items.option_offsets[rows][:, :, None], 0)
    options += np.where(is_option, np.arange(is_option.shape[2]), 0)
    features = items.option_features[torch.from_numpy(options).to(device)].flatten(1, 2)
    shape = (*options.shape, -1)
    wholes_MKOW = model.encode_texts(features).view(shape)
    parts_MKOW = wholes_MKOW
    if model.separate_levels:
        parts_MKOW = model.encode_sentences(features).view(shape)
    global_MKO = torch.einsum("mkow,mkw->mko", wholes_MKOW, clips_MKW)
    cosines_MKOL = parts_MKOW @ segments[0].mT
    inside_MK1L = segments[1][:, :, None, :]
    segment_MKO = cosines_MKOL.masked_fill(~inside_MK1L, -torch.inf).amax(dim=3)
    logits_MKO = model.logits_of(global_weight * global_MKO + (1 - global_weight) * segment_MKO)
    is_padding = torch.from_numpy(~is_option).to(device)
    return mean(logits_MKO.masked_fill(is_padding, -torch.inf), items.answers[rows])


def _answer_term(
    model: StackedModel, items: AnswerItems, rows: np.ndarray, segments: Segments, mean: Mean
) -> Tensor:
    asked_MKW = model.encode_texts(
        items.question_features[torch.from_numpy(rows).to(segments[0].device)]
    )
    found_MKW = model.answer_head(asked_MKW, *segments)
    answers_MAW = model.encode_texts(model.answer_features)
    logits_MKA = model.logit_scale[:, None, None] * found_MKW @ answers_MAW.mT
    return mean(logits_MKA, items.classes[rows])


def _moment_term(
    model: StackedModel,
    items: MomentItems,
    rows: np.ndarray,
    segments: Segments,
    mean: Mean,
    *,
    text_features: Tensor,
) -> Tensor:
    texts = torch.from_numpy(items.texts[rows]).to(segments[0].device)
    said_MKW = model.encode_sentences(gathered(text_features, texts))
    cosines_MKL = torch.einsum("mkw,mklw->mkl", said_MKW, segments[0])
    starts, ends = model.moment_head(model.logit_scale[:, None, None] * cosines_MKL, segments[1])
    return (mean(starts, items.first[rows]) + mean(ends, items.last[rows])) / 2


def _mean_cross_entropy(logits: Tensor, classes: np.ndarray, present_MK: Tensor) -> Tensor:
    """(M,): 0, with gradients, of a run without items."""
    targets = torch.from_numpy(classes).to(logits.device)
    terms_MK = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    own_MK = terms_MK.view_as(present_MK).where(present_MK, 0)
    return own_MK.sum(dim=1) / present_MK.sum(dim=1).clamp(min=1)
