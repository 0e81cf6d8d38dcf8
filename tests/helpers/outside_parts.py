"""A head and a loss from outside of the package, as a user writes them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlalign.align import HeadConfig, LossConfig


class TwoLayers(nn.Module):
    """(n, dim) -> (n, width), with dropout, so that a resumed run must draw the same numbers."""

    def __init__(self, config: HeadConfig, *, dim: int) -> None:
        super().__init__()
        width = dim if config.width is None else config.width
        self.layers = nn.Sequential(
            nn.Linear(dim, width), nn.Dropout(config.dropout), nn.GELU(), nn.Linear(width, width)
        )

    def forward(self, features: Tensor) -> Tensor:
        mapped: Tensor = self.layers(F.normalize(features, dim=-1))
        return mapped


def wrong_width(config: HeadConfig, *, dim: int) -> nn.Module:
    return nn.Linear(dim, dim + 1)


def needs_more(config: HeadConfig, *, dim: int, more: int) -> nn.Module:
    return nn.Linear(dim, more)


def softplus_loss(
    logits_VT: Tensor,
    *,
    positive_VT: Tensor,
    negative_VT: Tensor,
    negative_weight_VT: Tensor | None,
    losses: LossConfig,
    epoch: int,
) -> Tensor:
    weight_VT = torch.ones_like(logits_VT) if negative_weight_VT is None else negative_weight_VT
    negative = (weight_VT * F.softplus(logits_VT))[negative_VT].mean()
    return negative + F.softplus(losses.margin - logits_VT)[positive_VT].mean()


def no_scalar(logits_VT: Tensor, **rest: object) -> Tensor:
    return logits_VT
