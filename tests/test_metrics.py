"""Retrieval metrics on hand-worked ranks, and their bounds."""

from __future__ import annotations

import numpy as np

from mlalign.evaluate.metrics import one_based, recall_at, reciprocal_rank


def test_hand_worked_ranks() -> None:
    ranks = np.array([0, 0, 1, 4, 9, 19])
    assert recall_at(ranks, 1).mean() == 100 * 2 / 6
    assert recall_at(ranks, 5).mean() == 100 * 4 / 6
    assert recall_at(ranks, 10).mean() == 100 * 5 / 6
    assert np.median(one_based(ranks)) == 3.5
    assert one_based(ranks).mean() == 39 / 6
    assert np.isclose(reciprocal_rank(ranks).mean(), (1 + 1 + 1 / 2 + 1 / 5 + 1 / 10 + 1 / 20) / 6)


def test_metrics_stay_within_their_bounds_and_recall_grows_with_k() -> None:
    ranks = np.random.default_rng(0).integers(0, 50, 200)
    recalls = [recall_at(ranks, k).mean() for k in (1, 5, 10, 50)]
    assert recalls == sorted(recalls) and recalls[-1] == 100 and recalls[0] >= 0
    assert 0 < reciprocal_rank(ranks).mean() <= 1
    assert 1 <= one_based(ranks).min() <= one_based(ranks).max() <= 50
    assert (100 * reciprocal_rank(ranks) >= recall_at(ranks, 1)).all()
