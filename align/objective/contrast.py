"""The terms of a level, by the name of the loss, out of the similarities of its pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar, get_args

import torch
from torch import Tensor

from ..data.batches import LevelBatch
from ..loss_config import LossConfig, LossName
from ..model.level_heads import LogitScale
from ..own_parts import LOSSES, PartError
from .losses import hinge, in_clip_logistic, info_nce, sigmoid

# V = clips or segments in the batch, T = texts in the batch, P = pairs inside the clips


class Loss(Protocol):
    """A loss of your own over a table of V clips or segments and T texts; returns a scalar.

    logits_VT: (V, T) float32, logit scale times cosine.   positive_VT, negative_VT: (V, T) bool;
    pairs in neither have no part.   negative_weight_VT: (V, T) float32 >= 0, None is 1 for all.
    losses: the settings, for a margin or temperature.   epoch: from 1.
    """

    def __call__(
        self,
        logits_VT: Tensor,
        *,
        positive_VT: Tensor,
        negative_VT: Tensor,
        negative_weight_VT: Tensor | None,
        losses: LossConfig,
        epoch: int,
    ) -> Tensor: ...


OwnLoss = TypeVar("OwnLoss", bound=Loss)


def register_loss(name: str) -> Callable[[OwnLoss], OwnLoss]:
    """Decorate a loss of your own (see Loss), so that `losses.name=NAME` chooses it.

    Runs with it need the import of its module before they are trained; the setting
    `module:attribute` does without. Raises ValueError for a name that is taken or built in.
    """
    return LOSSES.register(name)


def check_loss(losses: LossConfig) -> None:
    """Raise PartError where the loss cannot be found."""
    if losses.name not in get_args(LossName):
        LOSSES.find(losses.name)


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
            own: Loss = LOSSES.find(losses.name)
            loss = own(
                similarities_VT,
                positive_VT=positive,
                negative_VT=negative,
                negative_weight_VT=weight,
                losses=losses,
                epoch=epoch,
            )
            if not isinstance(loss, Tensor) or loss.shape != ():
                shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
                raise PartError(f"loss {losses.name!r}: expected a scalar tensor, got {shape}")
            return loss


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
    scale: LogitScale, similarities_VT: Tensor, level: LevelBatch, losses: LossConfig
) -> Tensor:
    """The term that tells a text's segments from the others of its clip."""
    # The similarities of the other losses include the scale.
    factor = scale.value if losses.name == "hinge" else 1
    return in_clip_logistic(
        factor * similarities_VT[level.in_clip],
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
