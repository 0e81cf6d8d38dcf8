"""The settings of a loss that runs which train together may differ in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .config import RunConfig

# M = runs that train together


@dataclass(frozen=True, kw_only=True, slots=True)
class LossNumbers:
    """The settings of a loss that runs may differ in and still train together; of these, each is
    (M,) float."""

    weights: Mapping[str, float | Tensor]
    """Of the terms in the total, by name."""
    margin: float | Tensor
    """losses.margin"""
    weak_temperature: float | Tensor
    """losses.weak_temperature"""


def loss_numbers(config: RunConfig) -> LossNumbers:
    """Those of one run."""
    losses = config.losses
    return LossNumbers(
        weights={
            "global": losses.global_weight,
            "weak_segment": losses.weak_segment_weight,
            "segment": losses.segment_weight,
            "in_clip": losses.in_clip_weight,
            "token": losses.token_weight,
            **{str(task): weight for task, weight in config.tasks.weights.items()},
        },
        margin=losses.margin,
        weak_temperature=losses.weak_temperature,
    )


def stacked_numbers(configs: Sequence[RunConfig], device: torch.device) -> LossNumbers:
    """Those of several runs."""
    numbers = [loss_numbers(config) for config in configs]

    def stacked(values: Sequence[float | Tensor]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device)

    return LossNumbers(
        weights={name: stacked([n.weights[name] for n in numbers]) for name in numbers[0].weights},
        margin=stacked([n.margin for n in numbers]),
        weak_temperature=stacked([n.weak_temperature for n in numbers]),
    )
