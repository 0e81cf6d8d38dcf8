"""Bootstrap intervals and paired comparisons."""

from __future__ import annotations

import numpy as np
import pytest

from mlalign.data_manifests.core.errors import UserError
from mlalign.evaluate.statistics import bootstrap as significance
from mlalign.evaluate.statistics.bootstrap import (
    Bootstrap,
    Sample,
    mean_intervals,
    median_interval,
    paired_differences,
)

BOOTSTRAP = Bootstrap(samples=1000, confidence=0.95, seed=0)


def sample(values: np.ndarray, clusters: np.ndarray | None = None) -> Sample:
    columns = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
    ids = [f"q{row}" for row in range(len(columns))]
    clusters = np.arange(len(columns)) if clusters is None else clusters
    return Sample(query_ids=ids, clusters=clusters, values=columns)


def test_an_interval_holds_its_estimate() -> None:
    rng = np.random.default_rng(0)
    values = np.stack([100.0 * (rng.random(80) < p) for p in (0.0, 0.02, 0.5, 1.0)], axis=1)
    for interval in mean_intervals(sample(values), BOOTSTRAP):
        assert interval.low <= interval.value <= interval.high
    median = median_interval(sample(rng.integers(1, 50, size=(80, 3))), BOOTSTRAP)
    assert median.low <= median.value <= median.high


def test_the_interval_of_a_mean_is_as_wide_as_theory_says() -> None:
    values = np.random.default_rng(1).normal(size=400)
    (interval,) = mean_intervals(sample(values), BOOTSTRAP)
    expected = 2 * 1.96 * values.std(ddof=1) / 20
    assert abs((interval.high - interval.low) / expected - 1) < 0.1


def test_queries_of_one_clip_are_drawn_together() -> None:
    """Ten copies of each query tell nothing new: with clusters the interval does not shrink."""
    values = np.random.default_rng(2).normal(size=60)
    copies, clusters = np.repeat(values, 10), np.repeat(np.arange(60), 10)
    (once,) = mean_intervals(sample(values), BOOTSTRAP)
    (clustered,) = mean_intervals(sample(copies, clusters), BOOTSTRAP)
    (naive,) = mean_intervals(sample(copies), BOOTSTRAP)
    assert np.allclose([once.low, once.high], [clustered.low, clustered.high])
    assert (naive.high - naive.low) < 0.5 * (once.high - once.low)


def test_resamples_agree_with_a_loop_over_draws() -> None:
    rng = np.random.default_rng(3)
    clusters, values = np.sort(rng.integers(0, 12, 30)), rng.integers(0, 9, size=(30, 2))
    names = np.unique(clusters)
    one = sample(values, clusters)
    bootstrap = Bootstrap(samples=25, confidence=0.9, seed=4)
    draws = np.random.default_rng(4).integers(0, len(names), size=(25, len(names)))
    means, medians = [], []
    for draw in draws:
        drawn = np.concatenate([np.flatnonzero(clusters == names[name]) for name in draw])
        means.append(values[drawn].mean(axis=0))
        medians.append(np.median(values[drawn], axis=0))
    assert np.allclose(significance.resampled_means(one, bootstrap), means)
    assert np.allclose(significance.resampled_medians(one, bootstrap), medians)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = sample(np.random.default_rng(5).normal(size=50))
    assert mean_intervals(values, BOOTSTRAP) == mean_intervals(values, BOOTSTRAP)


def test_many_draws_that_are_not_kept_in_memory_are_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = np.random.default_rng(5).integers(1, 40, size=(60, 2))
    clips = np.arange(60) // 2
    kept = [*mean_intervals(sample(values, clips), BOOTSTRAP)]
    kept += [median_interval(sample(values, clips), BOOTSTRAP)]
    monkeypatch.setattr(significance, "KEPT_DRAWS", 0)
    monkeypatch.setattr(significance, "DRAWS_AT_ONCE", 7 * 60)
    fresh = [*mean_intervals(sample(values, clips), BOOTSTRAP)]
    fresh += [median_interval(sample(values, clips), BOOTSTRAP)]
    assert fresh == kept


def test_a_row_differs_from_itself_by_nothing() -> None:
    values = sample(np.random.default_rng(6).normal(size=(50, 3)))
    for difference in paired_differences(values, values, BOOTSTRAP):
        assert (difference.value, difference.low, difference.high) == (0, 0, 0)
        assert difference.p_bootstrap == 1


def test_a_paired_comparison_sees_what_unpaired_intervals_hide() -> None:
    rng = np.random.default_rng(7)
    hard = rng.normal(scale=10, size=200)
    first, second = sample(hard + 1 + 0.1 * rng.normal(size=200)), sample(hard)
    (difference,) = paired_differences(first, second, BOOTSTRAP)
    assert 0.9 < difference.low < difference.value < difference.high < 1.1
    assert difference.p_bootstrap == 2 / 1001
    (interval,) = mean_intervals(first, BOOTSTRAP)
    assert interval.high - interval.low > 2
    (opposite,) = paired_differences(second, first, BOOTSTRAP)
    assert np.isclose(opposite.value, -difference.value)
    assert opposite.p_bootstrap == difference.p_bootstrap


def test_a_paired_comparison_draws_whole_clips_too() -> None:
    rng = np.random.default_rng(9)
    gains = rng.normal(size=60)
    copies, clusters = np.repeat(gains, 10), np.repeat(np.arange(60), 10)
    (once,) = paired_differences(sample(gains), sample(np.zeros(60)), BOOTSTRAP)
    (clustered,) = paired_differences(
        sample(copies, clusters), sample(np.zeros(600), clusters), BOOTSTRAP
    )
    assert np.allclose([once.low, once.high], [clustered.low, clustered.high])
    assert once.p_bootstrap == clustered.p_bootstrap


def test_rare_false_alarms_without_a_difference() -> None:
    rng = np.random.default_rng(8)
    first, second = 100.0 * (rng.random((2, 150, 200)) < 0.3)
    found = paired_differences(sample(first), sample(second), BOOTSTRAP)
    alarms = np.mean([difference.p_bootstrap < 0.05 for difference in found])
    assert 0.01 < alarms < 0.11


def test_other_queries_are_no_pair() -> None:
    first = sample(np.zeros(3))
    second = Sample(query_ids=["q0", "q1", "x"], clusters=np.arange(3), values=np.zeros((3, 1)))
    with pytest.raises(UserError, match="same queries .* 2 not in both"):
        paired_differences(first, second, BOOTSTRAP)


def test_the_same_queries_in_other_clips_are_no_pair() -> None:
    """As from a dataset of the same ids cut otherwise."""
    first, second = sample(np.zeros(3), np.array([0, 0, 1])), sample(np.zeros(3))
    with pytest.raises(UserError, match="in the same clip, got 2 of 3 in another"):
        paired_differences(first, second, BOOTSTRAP)
