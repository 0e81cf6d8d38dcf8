"""The gradient of a step: each loss clipped by itself."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from mlalign.align.optimiser import set_gradients


def model_and_losses() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    model = nn.ModuleDict({name: nn.Linear(3, 3) for name in ("own", "shared", "unused")})
    batch = torch.randn(5, 3)
    shared = model["shared"](batch)
    return model, {
        "large": 1e4 * model["own"](shared).square().sum(),
        "small": shared.sum() * 1e-3,
    }


@pytest.mark.parametrize("max_norm", [1.0, 1e12])
def test_each_loss_is_clipped_by_itself(max_norm: float) -> None:
    model, losses = model_and_losses()
    expected = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    norms = {}
    for loss_name, loss in losses.items():
        names, parameters = zip(*model.named_parameters(), strict=True)
        own = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        norm = math.sqrt(sum(float(g.square().sum()) for g in own if g is not None))
        norms[loss_name] = norm
        for name, gradient in zip(names, own, strict=True):
            if gradient is not None:
                expected[name] += min(1, max_norm / norm) * gradient
    measured = set_gradients(model, losses, max_norm=max_norm)
    assert {name: norm.item() for name, norm in measured.items()} == pytest.approx(norms, rel=1e-4)
    for name, parameter in model.named_parameters():
        if "unused" in name:
            assert parameter.grad is None
        else:
            torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-6)


def test_small_gradients_are_those_of_the_sum_of_the_losses() -> None:
    model, losses = model_and_losses()
    torch.autograd.backward(sum(losses.values()), retain_graph=True)  # type: ignore[arg-type]
    plain = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    set_gradients(model, losses, max_norm=1e12)
    for name, parameter in model.named_parameters():
        if name in plain:
            torch.testing.assert_close(parameter.grad, plain[name])


def test_a_loss_that_reads_no_parameter_has_no_norm_and_leaves_the_others() -> None:
    model, losses = model_and_losses()
    set_gradients(model, losses, max_norm=1.0)
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model, losses = model_and_losses()
    losses = {"first": torch.tensor(1.0), **losses, "last": torch.tensor(2.0)}
    assert list(set_gradients(model, losses, max_norm=1.0)) == ["large", "small"]
    for name, gradient in expected.items():
        assert torch.equal(model.get_parameter(name).grad, gradient)  # type: ignore[arg-type]
