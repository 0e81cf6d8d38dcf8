"""The terms of a level, by the name of the loss, out of the similarities of its pairs."""

from __future__ import annotations

from typing import assert_never

import torch
from torch import Tensor

from ..data.batches import LevelBatch
from ..loss_config import LossConfig
from ..model.model import AlignmentModel
from .losses import hinge, in_clip_logistic, info_nce, sigmoid

# V = clips or segments in the batch, T = texts in the batch, P = pairs inside the clips


def contrast(
    similarities_VT: Tensor,
    level: LevelBatch,
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
            start = losses.hardest_from_epoch
            return hinge(
                similarities_VT,
                positive_VT=positive,
                negative_VT=negative,
                margin=losses.margin,
                hardest=start is not None and epoch >= start,
                negative_weight_VT=weight,
            )
        case _:
            assert_never(losses.name)


def segment_term(
    similarities_VT: Tensor, level: LevelBatch, *, losses: LossConfig, epoch: int
) -> Tensor:
    """The term of the annotated segments; a scalar."""
    in_clip, cross_clip = losses.in_clip_negative_weight, losses.cross_clip_negative_weight
    weights_VT = None
    if (in_clip, cross_clip) != (1, 1):
        weights_VT = _negative_weights(similarities_VT, level, in_clip, cross_clip)
    return contrast(
        similarities_VT, level, losses=losses, epoch=epoch, negative_weight_VT=weights_VT
    )


@torch.no_grad()
def segment_parts(
    similarities_VT: Tensor,
    level: LevelBatch,
    *,
    segment: Tensor,
    losses: LossConfig,
    epoch: int,
) -> dict[str, Tensor]:
    """The two parts of `segment`, the term of these similarities, without gradient.

    "segment_in_clip" is the same loss where negatives from other clips have weight 0;
    "segment_cross_clip" is the rest.
    """
    weights_VT = _negative_weights(similarities_VT, level, losses.in_clip_negative_weight, 0)
    in_clip = contrast(
        similarities_VT, level, losses=losses, epoch=epoch, negative_weight_VT=weights_VT
    )
    return {"segment_in_clip": in_clip, "segment_cross_clip": segment - in_clip}


def in_clip_term(
    model: AlignmentModel, similarities_VT: Tensor, level: LevelBatch, losses: LossConfig
) -> Tensor:
    """The term that tells a text's segments from the others of its clip."""
    # The similarities of the other losses include the scale.
    scale = model.logit_scale if losses.name == "hinge" else 1
    return in_clip_logistic(
        scale * similarities_VT[level.in_clip],
        columns_P=level.in_clip_columns,
        positive_P=level.positive[level.in_clip],
        negative_P=level.negative[level.in_clip],
        num_texts=len(level.texts),
    )


def _negative_weights(
    similarities_VT: Tensor, level: LevelBatch, in_clip: float, cross_clip: float
) -> Tensor:
    weights_VT = torch.full_like(similarities_VT, cross_clip)
    weights_VT[level.in_clip] = in_clip
    return weights_VT
