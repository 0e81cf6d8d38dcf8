"""InfoNCE: its properties, a brute-force loop in float64, golden numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mlalign.align.losses import info_nce, info_nce_of_few


def random_case(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, positives and negatives of a random shape; some rows have no or several positives."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.randint(1, 12, (2,), generator=generator).tolist()
    logits = 10 * torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    kind = torch.rand(rows, columns, generator=generator)
    return logits, kind < 0.2, kind > 0.35


def loop_info_nce(logits: Tensor, positive: Tensor, negative: Tensor) -> float:
    """The definition, pair by pair."""
    directions = []
    for table, is_positive, is_negative in (
        (logits.tolist(), positive.tolist(), negative.tolist()),
        (logits.T.tolist(), positive.T.tolist(), negative.T.tolist()),
    ):
        terms = []
        for row, row_positive, row_negative in zip(table, is_positive, is_negative, strict=True):
            p = math.fsum(math.exp(x) for x, yes in zip(row, row_positive, strict=True) if yes)
            n = math.fsum(math.exp(x) for x, yes in zip(row, row_negative, strict=True) if yes)
            if p > 0:
                terms.append(-math.log(p / (p + n)))
        directions.append(sum(terms) / max(1, len(terms)))
    return sum(directions) / 2


@pytest.mark.parametrize("seed", range(50))
def test_info_nce_equals_a_loop_over_pairs(seed: int) -> None:
    logits, positive, negative = random_case(seed)
    expected = loop_info_nce(logits, positive, negative)
    for loss in (info_nce, info_nce_of_few):
        measured = loss(logits, positive_VT=positive, negative_VT=negative)
        assert measured.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("seed", range(10))
def test_gradients_equal_finite_differences(seed: int) -> None:
    logits, positive, negative = random_case(seed)
    logits = (logits / 5).requires_grad_()
    for loss in (info_nce, info_nce_of_few):
        torch.autograd.gradcheck(
            lambda x, loss=loss: loss(x, positive_VT=positive, negative_VT=negative), (logits,)
        )


def test_with_one_positive_each_it_is_open_clips_loss() -> None:
    from open_clip.loss import ClipLoss

    generator = torch.Generator().manual_seed(0)
    video, text = torch.nn.functional.normalize(
        torch.randn(2, 16, 8, generator=generator), dim=-1
    ).unbind()
    own = torch.eye(16, dtype=torch.bool)
    measured = info_nce(14.3 * video @ text.T, positive_VT=own, negative_VT=~own)
    torch.testing.assert_close(measured, ClipLoss()(video, text, torch.tensor(14.3)))


@pytest.mark.parametrize("seed", range(10))
def test_the_order_of_the_batch_does_not_matter(seed: int) -> None:
    logits, positive, negative = random_case(seed)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(logits.shape[0], generator=generator)
    columns = torch.randperm(logits.shape[1], generator=generator)
    shuffled = [table[rows][:, columns] for table in (logits, positive, negative)]
    torch.testing.assert_close(
        info_nce(shuffled[0], positive_VT=shuffled[1], negative_VT=shuffled[2]),
        info_nce(logits, positive_VT=positive, negative_VT=negative),
    )


@pytest.mark.parametrize("seed", range(10))
def test_masked_padding_does_not_matter(seed: int) -> None:
    logits, positive, negative = random_case(seed)
    padded = [
        torch.nn.functional.pad(table, (0, 3, 0, 2), value=fill)
        for table, fill in ((logits, 50.0), (positive, False), (negative, False))
    ]
    torch.testing.assert_close(
        info_nce(padded[0], positive_VT=padded[1], negative_VT=padded[2]),
        info_nce(logits, positive_VT=positive, negative_VT=negative),
    )


def gradient(logits: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    leaf = logits.clone().requires_grad_()
    info_nce(leaf, positive_VT=positive, negative_VT=negative).backward()  # type: ignore[no-untyped-call]
    assert leaf.grad is not None
    return leaf.grad


@pytest.mark.parametrize("seed", range(20))
def test_positives_are_never_pushed_and_masked_pairs_never_moved(seed: int) -> None:
    logits, positive, negative = random_case(seed)
    moved = gradient(logits, positive, negative)
    assert (moved[positive] <= 0).all()
    assert (moved[negative] >= 0).all()
    assert (moved[~positive & ~negative] == 0).all()


def test_rows_without_a_positive_contribute_nothing() -> None:
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    none = torch.zeros(3, 4, dtype=torch.bool)
    assert info_nce(logits, positive_VT=none, negative_VT=~none).item() == 0
    assert (gradient(logits, none, ~none) == 0).all()
    assert (gradient(logits, none, none) == 0).all()


@pytest.mark.parametrize("scale", [1e3, 1e30])
def test_extreme_logits_stay_finite(scale: float) -> None:
    own = torch.eye(3, dtype=torch.bool)
    for sign in (-scale, scale):
        logits = sign * (2 * own.float() - 1)
        assert torch.isfinite(info_nce(logits, positive_VT=own, negative_VT=~own))
        assert torch.isfinite(gradient(logits, own, ~own)).all()


def test_an_empty_level_is_zero() -> None:
    empty = torch.zeros(4, 0)
    masks = empty.bool()
    assert info_nce(empty, positive_VT=masks, negative_VT=masks).item() == 0


def test_golden_numbers() -> None:
    own = torch.eye(2, dtype=torch.bool)
    logits = torch.tensor([[2.0, 1.0], [0.0, 3.0]])
    rows = math.log1p(math.exp(1 - 2)) + math.log1p(math.exp(0 - 3))
    columns = math.log1p(math.exp(0 - 2)) + math.log1p(math.exp(1 - 3))
    measured = info_nce(logits, positive_VT=own, negative_VT=~own).item()
    assert measured == pytest.approx((rows + columns) / 4)
    assert measured == pytest.approx(0.15392627)
