"""Intervals over both sources of chance: which queries were asked, and the seed of the training.

Each resample draws clips with all their queries, as in `bootstrap`, and of S seeds S - 1 with
replacement: the mean of so many varies by the variance over the seeds divided by S, as the mean of
S trainings does, where S drawn ones would vary by the (S - 1)-th part less (Rao and Wu 1988).
With two or three seeds such an interval is still a rough one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from .bootstrap import (
    Bootstrap,
    Interval,
    Sample,
    interval_of,
    medians_of,
    paired_sample,
    resampled_means,
    resampled_medians,
)

SEEDS_OF_FIRST: Final = 1
SEEDS_OF_SECOND: Final = 2
"""Streams of their own for the seeds, apart from that of the clips and from each other's."""


def mean_intervals_with_seeds(by_seed: Sequence[Sample], bootstrap: Bootstrap) -> list[Interval]:
    """The mean over queries and seeds of each of the M columns. by_seed: the same queries."""
    replicates = _over_seeds(_means(by_seed, bootstrap), bootstrap, stream=SEEDS_OF_FIRST)
    values = np.mean([sample.values.mean(axis=0) for sample in by_seed], axis=0)
    return _intervals(values, replicates, bootstrap)


def median_interval_with_seeds(
    by_seed: Sample, bootstrap: Bootstrap, *, lower: bool = False
) -> Interval:
    """The median over queries, averaged over the columns, which are the seeds."""
    medians_BS = resampled_medians(by_seed, bootstrap, lower=lower)
    replicates = _over_seeds(medians_BS[:, :, None], bootstrap, stream=SEEDS_OF_FIRST)
    value = float(medians_of(by_seed.values, lower=lower).mean())
    return interval_of(value, replicates[:, 0], bootstrap)


def statistic_interval_with_seeds(
    samples: Sequence[Sample],
    statistic: Callable[[Sequence[np.ndarray]], np.ndarray],
    bootstrap: Bootstrap,
) -> Interval:
    """A function of the means of several samples, averaged over the seeds; see the one without."""
    replicates_BS = statistic([resampled_means(sample, bootstrap) for sample in samples])
    replicates = _over_seeds(replicates_BS[:, :, None], bootstrap, stream=SEEDS_OF_FIRST)
    value = statistic([sample.values.mean(axis=0)[None] for sample in samples]).mean()
    return interval_of(float(value), replicates[:, 0], bootstrap)


def difference_intervals_with_seeds(
    first: Sequence[Sample], second: Sequence[Sample], bootstrap: Bootstrap
) -> list[Interval]:
    """The mean of first - second: the same clips for both, seeds drawn for each by itself.

    Raises UserError when the queries are not the same.
    """
    paired_sample(first[0], second[0])
    parts = ((first, SEEDS_OF_FIRST), (second, SEEDS_OF_SECOND))
    of_first, of_second = (
        _over_seeds(_means(by_seed, bootstrap), bootstrap, stream=stream)
        for by_seed, stream in parts
    )
    value_of_first, value_of_second = (
        np.mean([sample.values.mean(axis=0) for sample in by_seed], axis=0) for by_seed, _ in parts
    )
    return _intervals(value_of_first - value_of_second, of_first - of_second, bootstrap)


def _means(by_seed: Sequence[Sample], bootstrap: Bootstrap) -> np.ndarray:
    """(samples, S, M): of each resample of the clips the mean of each seed."""
    side_by_side = Sample(
        query_ids=by_seed[0].query_ids,
        clusters=by_seed[0].clusters,
        values=np.concatenate([sample.values for sample in by_seed], axis=1),
    )
    means = resampled_means(side_by_side, bootstrap)
    return means.reshape(len(means), len(by_seed), -1)


def _over_seeds(replicates_BSM: np.ndarray, bootstrap: Bootstrap, *, stream: int) -> np.ndarray:
    """(samples, M): each resample's mean over the seeds that it draws; one seed is no choice."""
    num_samples, num_seeds, _ = replicates_BSM.shape
    if num_seeds == 1:
        return replicates_BSM[:, 0]
    rng = np.random.default_rng([bootstrap.seed, stream])
    drawn = rng.integers(0, num_seeds, size=(num_samples, num_seeds - 1))
    return np.asarray(np.take_along_axis(replicates_BSM, drawn[:, :, None], axis=1).mean(axis=1))


def _intervals(values: np.ndarray, replicates: np.ndarray, bootstrap: Bootstrap) -> list[Interval]:
    return [
        interval_of(float(value), column, bootstrap)
        for value, column in zip(values, replicates.T, strict=True)
    ]
