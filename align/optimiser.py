"""The optimiser, its schedule, and the gradient of a step: each level and task clipped alone."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .config import OptimiserConfig
from .distributed import average_gradients


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


def set_gradients(
    model: nn.Module, losses: Mapping[str, Tensor], *, max_norm: float
) -> dict[str, Tensor]:
    """Set the parameters' gradients; returns the norm of each loss's gradient before clipping.

    losses: weighted loss of each level and task, scalars of one graph; one that reads no parameter
    (as of two identity heads beside a task) has no norm.   max_norm: to which the gradient of each
    is scaled down. Gradients of several processes are averaged before that. A
    parameter that no loss reads keeps no gradient.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    sums: list[Tensor | None] = [None] * len(parameters)
    norms: dict[str, Tensor] = {}
    names = [name for name in losses if losses[name].requires_grad]
    for name in names:
        gradients: list[Tensor | None] = list(
            torch.autograd.grad(
                losses[name], parameters, retain_graph=name != names[-1], allow_unused=True
            )
        )
        there = [gradient for gradient in gradients if gradient is not None]
        average_gradients(there)
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in there]))
        norms[name] = norm
        factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
        for place, gradient in enumerate(gradients):
            if gradient is None:
                continue
            gradient.mul_(factor)
            own = sums[place]
            sums[place] = gradient if own is None else own.add_(gradient)
    for parameter, total in zip(parameters, sums, strict=True):
        parameter.grad = total
    return norms
