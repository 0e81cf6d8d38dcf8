"""How sure the numbers are: bootstrap intervals, and paired comparisons of two rows.

Queries that share a clip are no independent evidence, so whole clips are drawn, with all their
queries (cluster bootstrap; Efron and Tibshirani 1993). Intervals are percentiles of the resamples.
Where a row has several seeds, a query's value is its mean over the seeds: the interval then speaks
about the choice of queries alone; `seed_variance` has the intervals that draw the seeds as well.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ...data_manifests.core.errors import UserError

DRAWS_AT_ONCE: Final = 2**21
"""Random draws held in memory at once."""
KEPT_DRAWS: Final = 2**23
"""Where all resamples together draw no more (2,000 of 4,194 clips), their counts are kept, 64 MiB:
every metric of every row is resampled by the same ones."""
ZERO: Final = 1e-9
"""A smaller difference is none: sums of thirds do not cancel to the last bit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bootstrap:
    """How to resample. The same seed draws the same clips, whatever is measured on them."""

    samples: int
    confidence: float
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """M values of each of Q queries."""

    query_ids: Sequence[str]
    """Q."""
    clusters: np.ndarray
    """(Q,) int64; queries with the same number are drawn together."""
    values: np.ndarray
    """(Q, M) float64."""

    def __post_init__(self) -> None:
        if not len(self.query_ids) == len(self.clusters) == len(self.values) > 0:
            raise ValueError(
                f"expected as many ids, clusters and values, at least one, got "
                f"{len(self.query_ids)}, {len(self.clusters)} and {len(self.values)}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A number and the bounds that hold `confidence` of its resamples; low <= value <= high."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Mean of first - second over the same queries, its interval and two-sided p-value."""

    value: float
    low: float
    high: float
    p_bootstrap: float
    """Twice the share of resamples on the other side of zero."""


def mean_intervals(sample: Sample, bootstrap: Bootstrap) -> list[Interval]:
    """The mean over queries of each of the M columns."""
    values = sample.values.mean(axis=0)
    return [
        interval_of(float(value), replicates, bootstrap)
        for value, replicates in zip(values, resampled_means(sample, bootstrap).T, strict=True)
    ]


def median_interval(sample: Sample, bootstrap: Bootstrap, *, lower: bool = False) -> Interval:
    """The median over queries, averaged over the M columns (the seeds of a row).

    lower: of an even number the lower one of the middle two, not their mean.
    """
    value = float(medians_of(sample.values, lower=lower).mean())
    replicates = resampled_medians(sample, bootstrap, lower=lower).mean(axis=1)
    return interval_of(value, replicates, bootstrap)


def medians_of(values: np.ndarray, *, lower: bool) -> np.ndarray:
    """The medians of the columns (Q, M): numpy's mean of the middle two, or torch's lower one."""
    if lower:
        return np.asarray(np.sort(values, axis=0)[(len(values) - 1) // 2])
    return np.asarray(np.median(values, axis=0))


def paired_differences(first: Sample, second: Sample, bootstrap: Bootstrap) -> list[Difference]:
    """The mean over queries of first - second for each of the M columns.

    The p-value is twice the share of resamples on the other side of zero (counting the observed
    one, so never below 2 / (samples + 1)). Raises UserError when the queries are not the same.
    """
    paired = paired_sample(first, second)
    differences = []
    for column, replicates in enumerate(resampled_means(paired, bootstrap).T):
        around = interval_of(float(paired.values[:, column].mean()), replicates, bootstrap)
        other_side = min((replicates <= ZERO).sum(), (replicates >= -ZERO).sum())
        p_value = min(1.0, 2.0 * (1 + int(other_side)) / (len(replicates) + 1))
        differences.append(
            Difference(value=around.value, low=around.low, high=around.high, p_bootstrap=p_value)
        )
    return differences


def paired_sample(first: Sample, second: Sample) -> Sample:
    """first - second, query by query; UserError when queries or the clips they share differ."""
    if list(first.query_ids) != list(second.query_ids):
        unlike = len(set(first.query_ids) ^ set(second.query_ids))
        raise UserError(
            f"a paired comparison needs the same queries in the same order, got "
            f"{len(first.query_ids)} and {len(second.query_ids)} with {unlike} not in both: "
            f"evaluate both on the same split of the same cache"
        )
    if not np.array_equal(first.clusters, second.clusters):
        raise UserError(
            f"a paired comparison needs each query in the same clip, got "
            f"{int((first.clusters != second.clusters).sum())} of {len(first.clusters)} "
            f"in another: evaluate both on the same split of the same dataset"
        )
    return Sample(
        query_ids=first.query_ids, clusters=first.clusters, values=first.values - second.values
    )


def cluster_sums(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """(clusters, M) sums of the values, (clusters,) float64 numbers of queries."""
    cluster_of, num_clusters = _clusters(sample)
    sums = np.zeros((num_clusters, sample.values.shape[1]))
    np.add.at(sums, cluster_of, sample.values)
    return sums, np.bincount(cluster_of, minlength=num_clusters).astype(np.float64)


def resampled_means(sample: Sample, bootstrap: Bootstrap) -> np.ndarray:
    """(samples, M): of each resample the sum over the drawn clips divided by their queries."""
    sums, sizes = cluster_sums(sample)

    def means(counts: np.ndarray) -> np.ndarray:
        return np.asarray((counts @ sums) / (counts @ sizes)[:, None])

    return _replicates(means, len(sums), len(sums), bootstrap)


def resampled_medians(sample: Sample, bootstrap: Bootstrap, *, lower: bool = False) -> np.ndarray:
    """(samples, M): weighted medians, from the running count of draws along the sorted values."""
    cluster_of, num_clusters = _clusters(sample)
    orders = np.argsort(sample.values, axis=0, kind="stable")

    def medians(counts: np.ndarray) -> np.ndarray:
        columns = []
        for order, values in zip(orders.T, sample.values.T, strict=True):
            running = np.cumsum(counts[:, cluster_of[order]], axis=1)
            total = running[:, -1:]
            first = (running > (total - 1) // 2).argmax(axis=1)
            second = first if lower else (running > total // 2).argmax(axis=1)
            columns.append((values[order[first]] + values[order[second]]) / 2)
        return np.stack(columns, axis=1)

    return _replicates(medians, num_clusters, len(cluster_of), bootstrap)


def _clusters(sample: Sample) -> tuple[np.ndarray, int]:
    names, cluster_of = np.unique(sample.clusters, return_inverse=True)
    return cluster_of, len(names)


def _replicates(
    statistic: Callable[[np.ndarray], np.ndarray],
    num_clusters: int,
    width: int,
    bootstrap: Bootstrap,
) -> np.ndarray:
    """(samples, M): the statistic of each resample, given how often it drew each cluster."""
    counts = _draw_counts(num_clusters, bootstrap, at_once=max(1, DRAWS_AT_ONCE // width))
    return np.concatenate([statistic(block) for block in counts])


def _draw_counts(num_clusters: int, bootstrap: Bootstrap, *, at_once: int) -> Iterator[np.ndarray]:
    """(up to at_once, clusters) float64: how often each cluster comes in draws with replacement."""
    if bootstrap.samples * num_clusters > KEPT_DRAWS:
        yield from _fresh_counts(num_clusters, bootstrap, at_once=at_once)
        return
    kept = _kept_counts(num_clusters, bootstrap)
    for start in range(0, len(kept), at_once):
        yield kept[start : start + at_once]


@functools.lru_cache(maxsize=1)
def _kept_counts(num_clusters: int, bootstrap: Bootstrap) -> np.ndarray:
    at_once = max(1, DRAWS_AT_ONCE // num_clusters)
    return np.concatenate(list(_fresh_counts(num_clusters, bootstrap, at_once=at_once)))


def _fresh_counts(num_clusters: int, bootstrap: Bootstrap, *, at_once: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(bootstrap.seed)
    for start in range(0, bootstrap.samples, at_once):
        num = min(at_once, bootstrap.samples - start)
        draws = rng.integers(0, num_clusters, size=(num, num_clusters))
        draws += np.arange(num)[:, None] * num_clusters
        counts = np.bincount(draws.ravel(), minlength=num * num_clusters)
        yield counts.reshape(num, num_clusters).astype(np.float64)


def statistic_interval(
    samples: Sequence[Sample],
    statistic: Callable[[Sequence[np.ndarray]], np.ndarray],
    bootstrap: Bootstrap,
) -> Interval:
    """A function of the means of several samples, resampled together where they share clusters.

    statistic: of the means of each sample, (n, M) for n resamples, to (n, S), of which the mean
    over the S seeds is taken.
    """
    value = float(statistic([sample.values.mean(axis=0)[None] for sample in samples]).mean())
    replicates = statistic([resampled_means(sample, bootstrap) for sample in samples])
    return interval_of(value, replicates.mean(axis=1), bootstrap)


def interval_of(value: float, replicates: np.ndarray, bootstrap: Bootstrap) -> Interval:
    """The percentiles of the resamples, stretched to hold the value itself."""
    tail = (1 - bootstrap.confidence) / 2
    low, high = np.quantile(replicates, [tail, 1 - tail])
    return Interval(value=value, low=min(float(low), value), high=max(float(high), value))
