"""Intervals over queries and seeds: as wide as both together, no wider than one for one seed."""

from __future__ import annotations

import numpy as np
import pytest

from mlalign.data_manifests.core.errors import UserError
from mlalign.evaluate.statistics import seed_variance
from mlalign.evaluate.statistics.bootstrap import (
    Bootstrap,
    Interval,
    Sample,
    mean_intervals,
    median_interval,
    paired_differences,
)
from mlalign.evaluate.statistics.seed_variance import (
    difference_intervals_with_seeds,
    mean_intervals_with_seeds,
    median_interval_with_seeds,
)

BOOTSTRAP = Bootstrap(samples=4000, confidence=0.95, seed=0)


def sample(values: np.ndarray) -> Sample:
    columns = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
    ids = [f"q{row}" for row in range(len(columns))]
    return Sample(query_ids=ids, clusters=np.arange(len(columns)), values=columns)


def width(interval: Interval) -> float:
    return interval.high - interval.low


def test_one_seed_leaves_the_interval_over_queries() -> None:
    rng = np.random.default_rng(0)
    first, second = sample(rng.normal(size=(90, 2))), sample(rng.normal(size=(90, 2)))
    assert mean_intervals_with_seeds([first], BOOTSTRAP) == mean_intervals(first, BOOTSTRAP)
    one = sample(rng.integers(1, 30, 90))
    assert median_interval_with_seeds(one, BOOTSTRAP) == median_interval(one, BOOTSTRAP)
    wider = difference_intervals_with_seeds([first], [second], BOOTSTRAP)
    for both, queries in zip(wider, paired_differences(first, second, BOOTSTRAP), strict=True):
        expected = [queries.value, queries.low, queries.high]
        assert np.allclose([both.value, both.low, both.high], expected)


def test_seeds_that_agree_add_nothing_and_seeds_that_differ_do() -> None:
    values = np.random.default_rng(1).normal(size=200)
    (queries,) = mean_intervals(sample(values), BOOTSTRAP)
    (same,) = mean_intervals_with_seeds([sample(values)] * 3, BOOTSTRAP)
    assert np.allclose([same.low, same.high], [queries.low, queries.high])
    apart = [sample(values + shift) for shift in (-0.3, 0.0, 0.3)]
    (wider,) = mean_intervals_with_seeds(apart, BOOTSTRAP)
    assert np.isclose(wider.value, queries.value)
    assert width(wider) > 1.5 * width(queries)


@pytest.mark.parametrize("num_seeds", [2, 3, 8])
def test_the_seeds_add_the_variance_of_their_mean(num_seeds: int) -> None:
    """Deviation ** 2 / seeds, of n - 1: not the (n - 1)-th part less that n draws would give."""
    of_seeds = np.random.default_rng(2).normal(size=num_seeds)
    same_queries = np.broadcast_to(of_seeds[:, None], (20_000, num_seeds, 1))
    drawn = seed_variance._over_seeds(same_queries, BOOTSTRAP, stream=1)
    assert abs(drawn.var() / (of_seeds.var(ddof=1) / num_seeds) - 1) < 0.05
    assert abs(drawn.mean() - of_seeds.mean()) < 0.02


def test_a_difference_draws_the_seeds_of_both_rows() -> None:
    values = np.random.default_rng(3).normal(size=100)
    noisy = [sample(values + shift) for shift in (-0.5, 0.5)]
    steady = [sample(values)] * 2
    ((first,), (second,), (both,), (none,)) = (
        difference_intervals_with_seeds(one, other, BOOTSTRAP)
        for one, other in ((noisy, steady), (steady, noisy), (noisy, noisy), (steady, steady))
    )
    assert np.isclose(width(first), 1) and np.isclose(width(second), 1)
    assert np.isclose(width(both), 2), "seeds of two rows are drawn each by itself"
    assert abs(none.low) < 1e-12 and abs(none.high) < 1e-12


def test_other_queries_are_no_pair() -> None:
    second = Sample(query_ids=["x", "q1"], clusters=np.arange(2), values=np.zeros((2, 1)))
    with pytest.raises(UserError, match="same queries"):
        difference_intervals_with_seeds([sample(np.zeros(2))], [second], BOOTSTRAP)
