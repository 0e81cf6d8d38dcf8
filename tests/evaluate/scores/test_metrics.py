"""Retrieval metrics: bounds and order, their definitions as loops, and hand-worked ranks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mlalign.evaluate.scores.metrics import (
    discounted_gain,
    geometric_mean,
    median_rank,
    one_based,
    recall_at,
    reciprocal_rank,
)

RANKS = np.random.default_rng(0).integers(0, 50, 200)


def test_metrics_stay_within_their_bounds_and_recall_grows_with_k() -> None:
    recalls = [recall_at(RANKS, k).mean() for k in (1, 5, 10, 50)]
    assert recalls == sorted(recalls) and recalls[-1] == 100 and recalls[0] >= 0
    assert 0 < reciprocal_rank(RANKS).mean() <= 1
    assert 1 <= one_based(RANKS).min() <= one_based(RANKS).max() <= 50
    assert (100 * reciprocal_rank(RANKS) >= recall_at(RANKS, 1)).all()
    assert (0 <= discounted_gain(RANKS)).all() and (discounted_gain(RANKS) <= 1).all()


def test_a_better_rank_is_never_worth_less() -> None:
    better = np.maximum(0, RANKS - 1)
    for worth in (reciprocal_rank, discounted_gain, lambda ranks: recall_at(ranks, 5)):
        assert (worth(better) >= worth(RANKS)).all()
    for lower in (True, False):
        assert median_rank(better, lower=lower) <= median_rank(RANKS, lower=lower)


def test_the_kernels_agree_with_their_definitions_query_by_query() -> None:
    for rank in range(25):
        items = [int(place == rank) for place in range(30)]  # one right item, in ranked order
        hits = [sum(items[:k]) for k in (1, 5, 10)]
        assert [recall_at(np.array(rank), k) / 100 for k in (1, 5, 10)] == hits
        first = next(place for place, right in enumerate(items, start=1) if right)
        assert one_based(np.array(rank)) == first
        assert reciprocal_rank(np.array(rank)) == 1 / first
        gains = [right / math.log2(place + 1) for place, right in enumerate(items[:10], start=1)]
        ideal = 1 / math.log2(2)
        assert discounted_gain(np.array(rank)) == pytest.approx(sum(gains) / ideal)


@pytest.mark.parametrize("num", [1, 2, 7, 10])
def test_both_medians_are_those_of_the_libraries_that_papers_use(num: int) -> None:
    ranks = RANKS[:num]
    assert median_rank(ranks, lower=False) == np.median(ranks + 1)
    assert median_rank(ranks, lower=True) == torch.median(torch.from_numpy(ranks)).item() + 1


def test_the_geometric_mean_lies_below_the_mean_and_is_0_with_a_0() -> None:
    recalls = np.array([12.5, 40.0, 61.0])
    assert geometric_mean(recalls) == pytest.approx(math.exp(np.log(recalls).mean()))
    assert recalls.min() < geometric_mean(recalls) < recalls.mean()
    assert geometric_mean(np.array([0.0, 40.0, 61.0])) == 0


def test_hand_worked_ranks() -> None:
    ranks = np.array([0, 0, 1, 4, 9, 19])
    assert recall_at(ranks, 1).mean() == 100 * 2 / 6
    assert recall_at(ranks, 5).mean() == 100 * 4 / 6
    assert recall_at(ranks, 10).mean() == 100 * 5 / 6
    assert np.median(one_based(ranks)) == 3.5
    assert one_based(ranks).mean() == 39 / 6
    assert np.isclose(reciprocal_rank(ranks).mean(), (1 + 1 + 1 / 2 + 1 / 5 + 1 / 10 + 1 / 20) / 6)
