"""The heads: where they start, what they keep, what they refuse."""

from __future__ import annotations

import pytest
import torch

from mlalign.align.head_config import HeadConfig, HeadName
from mlalign.align.model.heads import build_head
from mlalign.data_manifests.core.errors import SettingsError

NAMES: tuple[HeadName, ...] = ("identity", "linear", "mlp", "residual")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("name", ["identity", "residual"])
def test_the_identity_and_the_untrained_residual_change_no_bit(name: HeadName) -> None:
    features = torch.randn(50, 16) * torch.logspace(-3, 3, 50)[:, None]
    head = build_head(HeadConfig(name=name, dropout=0.5), dim=16)
    assert torch.equal(head(features), features)


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_width_is_the_width_of_the_output(name: HeadName) -> None:
    head = build_head(HeadConfig(name=name, width=5), dim=16)
    assert head(torch.randn(3, 16)).shape == (3, 5)


@pytest.mark.parametrize("name", ["identity", "residual"])
def test_heads_that_keep_the_width_refuse_another(name: HeadName) -> None:
    with pytest.raises(SettingsError, match="keeps the width of the features, 16, .* set to 5"):
        build_head(HeadConfig(name=name, width=5), dim=16)


@pytest.mark.parametrize("name", NAMES)
def test_the_direction_of_the_output_ignores_the_length_of_the_feature(name: HeadName) -> None:
    head = build_head(HeadConfig(name=name), dim=16)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    features = torch.randn(20, 16)
    short, long = (torch.nn.functional.normalize(head(s * features), dim=-1) for s in (1, 20))
    torch.testing.assert_close(short, long, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["linear", "mlp", "residual"])
def test_every_parameter_learns(name: HeadName) -> None:
    head = build_head(HeadConfig(name=name), dim=8)
    optimiser = torch.optim.SGD(head.parameters(), lr=0.1)
    before = [parameter.clone() for parameter in head.parameters()]
    for _ in range(2):  # the zero layer of residual lets gradients through from the second on
        optimiser.zero_grad()
        torch.autograd.backward(head(torch.randn(4, 8)).square().sum())
        optimiser.step()
    for old, new in zip(before, head.parameters(), strict=True):
        assert not torch.equal(old, new)


def test_dropout_acts_in_training_only() -> None:
    head = build_head(HeadConfig(name="mlp", dropout=0.5), dim=8)
    features = torch.randn(4, 8)
    assert not torch.equal(head(features), head(features))
    head.eval()
    assert torch.equal(head(features), head(features))
