"""The gradient of a step: of each level and task clipped by itself, then added up."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .distributed import average_gradients


def set_gradients(
    model: nn.Module, losses: Mapping[str, Tensor], *, max_norm: float
) -> dict[str, Tensor]:
    """Set the parameters' gradients; returns the norm of each loss's gradient before clipping.

    losses: weighted loss of each level and task, scalars of one graph.   max_norm: to which the
    gradient of each is scaled down. Gradients of several processes are averaged before that. A
    parameter that no loss reads keeps no gradient.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    sums: list[Tensor | None] = [None] * len(parameters)
    norms: dict[str, Tensor] = {}
    names = list(losses)
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
