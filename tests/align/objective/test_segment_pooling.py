"""Pooling the segments of a clip, against loops over ragged clips."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from mlalign.align.loss_config import WeakPooling
from mlalign.align.objective.objective import pool_segments
from mlalign.evaluate.config import SegmentScoreConfig
from mlalign.evaluate.scores.similarity import pool_segments as pool_for_scores

POOLINGS: tuple[WeakPooling, ...] = ("max", "softmax")


def random_case(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(1, 7, (5,), generator=generator)
    return 2 * torch.rand(int(counts.sum()), 4, generator=generator).double() - 1, counts


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_equals_a_loop_over_clips_and_texts(pooling: WeakPooling, seed: int) -> None:
    cosines, counts = random_case(seed)
    measured = pool_segments(cosines, counts_N=counts, pooling=pooling, temperature=0.1)
    first = 0
    for clip, count in enumerate(counts.tolist()):
        for text in range(cosines.shape[1]):
            own = cosines[first : first + count, text].numpy()
            shares = np.exp(own / 0.1)
            expected = own.max() if pooling == "max" else (shares * own).sum() / shares.sum()
            assert measured[clip, text].item() == pytest.approx(expected, rel=1e-12)
        first += count


@pytest.mark.parametrize("pooling", POOLINGS)
def test_training_pools_as_the_scores_do(pooling: WeakPooling) -> None:
    cosines, counts = random_case(0)
    trained = pool_segments(cosines, counts_N=counts, pooling=pooling, temperature=0.07)
    offsets = np.concatenate([[0], np.cumsum(counts.numpy())])
    config = SegmentScoreConfig(pooling=pooling)
    scored = pool_for_scores(cosines.T.numpy(), offsets, config=config)
    np.testing.assert_allclose(trained.T.numpy(), scored, rtol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_gradients_equal_finite_differences(pooling: WeakPooling) -> None:
    cosines, counts = random_case(1)
    torch.autograd.gradcheck(
        lambda table: pool_segments(table, counts_N=counts, pooling=pooling, temperature=0.3),
        (cosines.requires_grad_(),),
    )


def test_a_cold_softmax_is_the_best_segment_and_a_hot_one_the_mean() -> None:
    cosines, counts = random_case(2)
    best = pool_segments(cosines, counts_N=counts, pooling="max", temperature=1)
    cold, hot = (
        pool_segments(cosines, counts_N=counts, pooling="softmax", temperature=temperature)
        for temperature in (1e-4, 1e6)
    )
    torch.testing.assert_close(cold, best)
    mean = torch.segment_reduce(cosines, "mean", lengths=counts, axis=0)
    torch.testing.assert_close(hot, mean, atol=1e-5, rtol=1e-5)
