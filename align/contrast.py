"""The terms of a level, by the name of the loss, out of the similarities of its pairs."""

from __future__ import annotations

from typing import assert_never

import torch
from torch import Tensor

from .batches import LevelBatch
from .config import LossConfig
from .loss_numbers import LossNumbers
from .losses import (
    hinge,
    hinge_of_few,
    in_clip_logistic,
    info_nce,
    info_nce_of_few,
    rows_and_columns,
    sigmoid,
    sigmoid_of_few,
)
from .model import Encoder

# V = clips or segments in the batch, T = texts in the batch, P = pairs inside the clips
# M = runs that train together: all terms are (M,) then, and tables (M, V, T)


def contrast(
    similarities_VT: Tensor,
    level: LevelBatch,
    numbers: LossNumbers,
    *,
    losses: LossConfig,
    epoch: int,
    negative_weight_VT: Tensor | None = None,
) -> Tensor:
    """The loss of that name over a level; a scalar."""
    positive, negative, weight = level.positive, level.negative, negative_weight_VT
    match losses.name:
        case "info_nce":
            return info_nce(
                similarities_VT,
                positive_VT=positive,
                negative_VT=negative,
                negative_weight_VT=weight,
            )
        case "sigmoid":
            return sigmoid(
                similarities_VT,
                positive_VT=positive,
                negative_VT=negative,
                negative_weight_VT=weight,
            )
        case "hinge":
            return hinge(
                similarities_VT,
                positive_VT=positive,
                negative_VT=negative,
                margin=numbers.margin,
                hardest=_is_hardest(losses, epoch),
                negative_weight_VT=weight,
            )
        case _:
            assert_never(losses.name)


def _is_hardest(losses: LossConfig, epoch: int) -> bool:
    return losses.hardest_from_epoch is not None and epoch >= losses.hardest_from_epoch


def segment_terms(
    similarities_VT: Tensor,
    level: LevelBatch,
    numbers: LossNumbers,
    *,
    losses: LossConfig,
    epoch: int,
) -> dict[str, Tensor]:
    """The term of the annotated segments and, without gradient, its two parts."""
    in_clip, cross_clip = losses.in_clip_negative_weight, losses.cross_clip_negative_weight
    weights_VT = None
    if (in_clip, cross_clip) != (1, 1):
        weights_VT = _negative_weights(similarities_VT, level, in_clip, cross_clip)
    total = contrast(
        similarities_VT, level, numbers, losses=losses, epoch=epoch, negative_weight_VT=weights_VT
    )
    part = _in_clip_part(similarities_VT.detach(), level, numbers, losses=losses, epoch=epoch)
    return {"segment": total, "segment_in_clip": part, "segment_cross_clip": total.detach() - part}


def _in_clip_part(
    similarities_VT: Tensor,
    level: LevelBatch,
    numbers: LossNumbers,
    *,
    losses: LossConfig,
    epoch: int,
) -> Tensor:
    """What the term is with the negatives of its own clip alone, from these P pairs."""
    rows_P, columns_P = rows_and_columns(level.in_clip, similarities_VT)
    weight = losses.in_clip_negative_weight
    similarities_P = similarities_VT[level.in_clip]
    positive_P, negative_P = level.positive[level.in_clip], level.negative[level.in_clip]
    match losses.name:
        case "info_nce":
            return info_nce_of_few(
                similarities_P,
                rows_P=rows_P,
                columns_P=columns_P,
                positive_P=positive_P,
                negative_P=negative_P,
                shape=tuple(similarities_VT.shape),
                negative_weight=weight,
            )
        case "sigmoid":
            return sigmoid_of_few(
                similarities_P,
                rows_P=rows_P,
                positive_P=positive_P,
                negative_P=negative_P,
                shape=tuple(similarities_VT.shape),
                negative_weight=weight,
            )
        case "hinge":
            return hinge_of_few(
                similarities_P,
                rows_P=rows_P,
                columns_P=columns_P,
                positive_P=positive_P,
                negative_P=negative_P,
                counts=(level.negative.sum(dim=-1), level.negative.sum(dim=-2)),
                margin=numbers.margin,
                hardest=_is_hardest(losses, epoch),
                negative_weight=weight,
            )
        case _:
            assert_never(losses.name)


def in_clip_term(
    model: Encoder, similarities_VT: Tensor, level: LevelBatch, losses: LossConfig
) -> Tensor:
    """The term that tells a text's segments from the others of its clip."""
    _, columns_P = rows_and_columns(level.in_clip, similarities_VT)
    scale: float | Tensor = 1
    if losses.name == "hinge":  # the others have it in their similarities
        runs_P = level.in_clip_runs
        scale = model.logit_scale if runs_P is None else model.logit_scale[runs_P]
    return in_clip_logistic(
        scale * similarities_VT[level.in_clip],
        columns_P=columns_P,
        positive_P=level.positive[level.in_clip],
        negative_P=level.negative[level.in_clip],
        texts=tuple(level.texts.shape),
    )


def _negative_weights(
    similarities_VT: Tensor, level: LevelBatch, in_clip: float, cross_clip: float
) -> Tensor:
    weights_VT = torch.full_like(similarities_VT, cross_clip)
    weights_VT[level.in_clip] = in_clip
    return weights_VT
