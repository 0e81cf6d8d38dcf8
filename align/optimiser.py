"""The optimiser and its schedule."""

from __future__ import annotations

import math

import torch
from torch import nn

from .config import OptimiserConfig


def build_optimiser(model: nn.Module, settings: OptimiserConfig) -> torch.optim.AdamW:
    """AdamW that decays matrices only: not biases, norms and the logit scale."""
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    kept = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate)


def learning_rate_factor(step: int, *, warmup_steps: float, num_steps: int) -> float:
    """Linear warm-up to 1, then half a cosine towards 0; `step` counts from 1 to `num_steps`."""
    if step <= warmup_steps:
        return step / warmup_steps
    # One step more in the length, so that the last step still moves.
    done = (step - warmup_steps) / (num_steps + 1 - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * done))
