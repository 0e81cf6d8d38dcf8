"""The losses: their properties, brute-force loops over pairs in float64, golden numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from mlalign.align.objective.losses import (
    hinge,
    in_clip_logistic,
    info_nce,
    sigmoid,
)


def sparse_in_clip(logits_VT: Tensor, *, positive_VT: Tensor, negative_VT: Tensor) -> Tensor:
    """in_clip_logistic of a table all of whose pairs are inside clips."""
    rows, columns = torch.ones_like(positive_VT).nonzero(as_tuple=True)
    return in_clip_logistic(
        logits_VT[rows, columns],
        columns_P=columns,
        positive_P=positive_VT[rows, columns],
        negative_P=negative_VT[rows, columns],
        num_texts=logits_VT.shape[1],
    )


all_negatives = partial(hinge, margin=0.2, hardest=False)
hardest_negative = partial(hinge, margin=0.2, hardest=True)
WEIGHTED = (info_nce, sigmoid, all_negatives, hardest_negative)
EVERY = (*WEIGHTED, sparse_in_clip)
Loss = Callable[..., Tensor]


def random_case(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, positives and negatives of a random shape; some rows have no or several positives."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.randint(1, 12, (2,), generator=generator).tolist()
    logits = 10 * torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    kind = torch.rand(rows, columns, generator=generator)
    return logits, kind < 0.2, kind > 0.35


def both_ways(*tables: Tensor) -> list[list[list[list[float]]]]:
    """The tables as lists, then the same of their transposes."""
    return [[t.tolist() for t in tables], [t.T.tolist() for t in tables]]


def loop_info_nce(logits: Tensor, positive: Tensor, negative: Tensor, weight: Tensor) -> float:
    directions = []
    for table, is_positive, is_negative, weights in both_ways(logits, positive, negative, weight):
        terms = []
        for i, row in enumerate(table):
            p = n = 0.0
            for j, logit in enumerate(row):
                p += math.exp(logit) if is_positive[i][j] else 0
                n += weights[i][j] * math.exp(logit) if is_negative[i][j] else 0
            if any(is_positive[i]):
                terms.append(-math.log(p / (p + n)))
        directions.append(sum(terms) / max(1, len(terms)))
    return sum(directions) / 2


def loop_sigmoid(logits: Tensor, positive: Tensor, negative: Tensor, weight: Tensor) -> float:
    total = 0.0
    for i in range(logits.shape[0]):
        for j in range(logits.shape[1]):
            logit = logits[i, j].item()
            if positive[i, j]:
                total += math.log1p(math.exp(-logit))
            if negative[i, j]:
                total += weight[i, j].item() * math.log1p(math.exp(logit))
    return total / max(1, int(positive.sum()))


def loop_hinge(
    logits: Tensor, positive: Tensor, negative: Tensor, weight: Tensor, *, hardest: bool
) -> float:
    directions = []
    for table, is_positive, is_negative, weights in both_ways(logits, positive, negative, weight):
        terms = []
        for i, row in enumerate(table):
            for j, own in enumerate(row):
                if is_positive[i][j]:
                    short = [
                        weights[i][k] * max(0.0, 0.2 - own + other)
                        for k, other in enumerate(row)
                        if is_negative[i][k]
                    ]
                    worst = max(short, default=0.0)
                    terms.append(worst if hardest else sum(short) / max(1, len(short)))
        directions.append(sum(terms) / max(1, len(terms)))
    return sum(directions) / 2


def loop_in_clip(logits: Tensor, positive: Tensor, negative: Tensor, _: Tensor) -> float:
    terms = []
    for column in range(logits.shape[1]):
        yes, no = [], []
        for row in range(logits.shape[0]):
            logit = logits[row, column].item()
            if positive[row, column]:
                yes.append(math.log1p(math.exp(-logit)))
            if negative[row, column]:
                no.append(math.log1p(math.exp(logit)))
        if yes and no:
            terms.append((sum(yes) / len(yes) + sum(no) / len(no)) / 2)
    return sum(terms) / max(1, len(terms))


LOOPS: list[tuple[Loss, Callable[..., float]]] = [
    (info_nce, loop_info_nce),
    (sigmoid, loop_sigmoid),
    (all_negatives, partial(loop_hinge, hardest=False)),
    (hardest_negative, partial(loop_hinge, hardest=True)),
    (sparse_in_clip, loop_in_clip),
]


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize(("loss", "loop"), LOOPS)
def test_each_loss_equals_a_loop_over_pairs(
    loss: Loss, loop: Callable[..., float], seed: int
) -> None:
    logits, positive, negative = random_case(seed)
    measured = loss(logits, positive_VT=positive, negative_VT=negative)
    expected = loop(logits, positive, negative, torch.ones_like(logits))
    assert measured.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("loss", "loop"), [pair for pair in LOOPS if pair[0] in WEIGHTED])
def test_weighted_negatives_equal_a_loop_over_pairs(
    loss: Loss, loop: Callable[..., float], seed: int
) -> None:
    logits, positive, negative = random_case(seed)
    weight = torch.rand(logits.shape, dtype=torch.float64)
    weight[weight < 0.3] = 0
    measured = loss(logits, positive_VT=positive, negative_VT=negative, negative_weight_VT=weight)
    expected = loop(logits, positive, negative, weight)
    assert measured.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("loss", WEIGHTED)
def test_weights_of_one_change_no_bit_and_weights_of_none_mask(loss: Loss) -> None:
    logits, positive, negative = random_case(5)
    masks = {"positive_VT": positive, "negative_VT": negative}
    ones = loss(logits, **masks, negative_weight_VT=torch.ones_like(logits))
    assert torch.equal(ones, loss(logits, **masks))
    zeros = loss(logits, **masks, negative_weight_VT=torch.zeros_like(logits))
    unrepelled = loss(logits, positive_VT=positive, negative_VT=torch.zeros_like(negative))
    torch.testing.assert_close(zeros, unrepelled)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("loss", EVERY)
def test_gradients_equal_finite_differences(loss: Loss, seed: int) -> None:
    logits, positive, negative = random_case(seed)
    logits = (logits / 5).requires_grad_()
    torch.autograd.gradcheck(
        lambda x: loss(x, positive_VT=positive, negative_VT=negative), (logits,)
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


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("loss", EVERY)
def test_the_order_of_the_batch_does_not_matter(loss: Loss, seed: int) -> None:
    logits, positive, negative = random_case(seed)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(logits.shape[0], generator=generator)
    columns = torch.randperm(logits.shape[1], generator=generator)
    shuffled = [table[rows][:, columns] for table in (logits, positive, negative)]
    torch.testing.assert_close(
        loss(shuffled[0], positive_VT=shuffled[1], negative_VT=shuffled[2]),
        loss(logits, positive_VT=positive, negative_VT=negative),
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("loss", EVERY)
def test_masked_padding_does_not_matter(loss: Loss, seed: int) -> None:
    logits, positive, negative = random_case(seed)
    padded = [
        torch.nn.functional.pad(table, (0, 3, 0, 2), value=fill)
        for table, fill in ((logits, 50.0), (positive, False), (negative, False))
    ]
    torch.testing.assert_close(
        loss(padded[0], positive_VT=padded[1], negative_VT=padded[2]),
        loss(logits, positive_VT=positive, negative_VT=negative),
    )


def gradient(loss: Loss, logits: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    leaf = logits.clone().requires_grad_()
    torch.autograd.backward(loss(leaf, positive_VT=positive, negative_VT=negative))
    assert leaf.grad is not None
    return leaf.grad


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("loss", EVERY)
def test_positives_are_never_pushed_and_masked_pairs_never_moved(loss: Loss, seed: int) -> None:
    logits, positive, negative = random_case(seed)
    moved = gradient(loss, logits, positive, negative)
    assert (moved[positive] <= 0).all()
    assert (moved[negative] >= 0).all()
    assert (moved[~positive & ~negative] == 0).all()


@pytest.mark.parametrize("loss", EVERY)
def test_rows_without_positives_or_without_negatives_are_finite(loss: Loss) -> None:
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    none = torch.zeros(3, 4, dtype=torch.bool)
    one = none.clone()
    one[1, 2] = True
    for positive, negative in (
        (none, ~none),
        (none, none),
        (~none, none),
        (one, none),
        (one, ~one),
    ):
        value = loss(logits, positive_VT=positive, negative_VT=negative)
        assert torch.isfinite(value)
        assert torch.isfinite(gradient(loss, logits, positive, negative)).all()


@pytest.mark.parametrize("loss", [loss for loss in EVERY if loss is not sigmoid])
def test_rows_without_a_positive_contribute_nothing(loss: Loss) -> None:
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    none = torch.zeros(3, 4, dtype=torch.bool)
    assert loss(logits, positive_VT=none, negative_VT=~none).item() == 0
    assert (gradient(loss, logits, none, ~none) == 0).all()


@pytest.mark.parametrize("scale", [1e3, 1e30])
@pytest.mark.parametrize("loss", EVERY)
def test_extreme_logits_stay_finite(loss: Loss, scale: float) -> None:
    own = torch.eye(3, dtype=torch.bool)
    for sign in (-scale, scale):
        logits = sign * (2 * own.float() - 1)
        assert torch.isfinite(loss(logits, positive_VT=own, negative_VT=~own))
        assert torch.isfinite(gradient(loss, logits, own, ~own)).all()


@pytest.mark.parametrize("loss", EVERY)
def test_an_empty_level_is_zero(loss: Loss) -> None:
    empty = torch.zeros(4, 0)
    masks = empty.bool()
    assert loss(empty, positive_VT=masks, negative_VT=masks).item() == 0


def test_golden_numbers() -> None:
    own = torch.eye(2, dtype=torch.bool)
    logits = torch.tensor([[2.0, 1.0], [0.0, 3.0]])
    rows = math.log1p(math.exp(1 - 2)) + math.log1p(math.exp(0 - 3))
    columns = math.log1p(math.exp(0 - 2)) + math.log1p(math.exp(1 - 3))
    measured = info_nce(logits, positive_VT=own, negative_VT=~own).item()
    assert measured == pytest.approx((rows + columns) / 4)
    assert measured == pytest.approx(0.15392627)


def test_golden_numbers_of_the_others() -> None:
    own = torch.eye(2, dtype=torch.bool)
    masks = {"positive_VT": own, "negative_VT": ~own}
    cosines = torch.tensor([[0.5, 0.4], [0.1, 0.2]])
    rows, columns = (0.1 + 0.1) / 2, (0.0 + 0.4) / 2
    assert all_negatives(cosines, **masks).item() == pytest.approx((rows + columns) / 2)
    assert hardest_negative(cosines, **masks).item() == pytest.approx(0.15)
    logits = torch.tensor([[0.0, -math.inf], [-math.inf, 0.0]]).clamp(min=-1e4)
    assert sigmoid(logits, **masks).item() == pytest.approx(math.log(2))
    assert sparse_in_clip(logits, **masks).item() == pytest.approx(math.log(2) / 2)
