"""Numbers made of several recalls: their geometric mean, and their sum over both directions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import numpy as np

from ..scores.metrics import geometric_mean
from .bootstrap import Bootstrap, Interval, Sample, statistic_interval
from .seed_variance import statistic_interval_with_seeds

AGGREGATED: Final = ("R@1", "R@5", "R@10")
"""The recalls that papers make one number of."""
GEOMETRIC_MEAN: Final = "geometric mean"
RSUM: Final = "Rsum"
DIRECTIONS: Final = ("text_to_clip", "clip_to_text")


def aggregates(means: Mapping[str, np.ndarray], task: str) -> dict[str, np.ndarray]:
    """The numbers of a task, (n, seeds) each: Rsum only where both directions are there.

    means: by task, (n, 3 * seeds) means of R@1, R@5 and R@10 of n resamples, seed by seed.
    """
    by_seed = {
        name: values.reshape(len(values), -1, len(AGGREGATED)) for name, values in means.items()
    }
    numbers = {GEOMETRIC_MEAN: geometric_mean(by_seed[task])}
    if RSUM in _names(means, task):
        both = np.concatenate([by_seed[name] for name in DIRECTIONS], axis=2)
        numbers[RSUM] = both.sum(axis=2)
    return numbers


def aggregate_intervals(
    recalls: Mapping[str, Sample], task: str, bootstrap: Bootstrap, *, with_seeds: bool = False
) -> dict[str, Interval]:
    """The same, averaged over the seeds, with intervals; both directions draw the same clips.

    recalls: by task, every query's R@1, R@5 and R@10, (Q, 3 * seeds).
    with_seeds: whether the intervals are over queries and seeds.
    """

    def number(metric: str) -> Interval:
        def statistic(means: Sequence[np.ndarray]) -> np.ndarray:
            return aggregates(dict(zip(recalls, means, strict=True)), task)[metric]

        interval = statistic_interval_with_seeds if with_seeds else statistic_interval
        return interval(list(recalls.values()), statistic, bootstrap)

    return {metric: number(metric) for metric in _names(recalls, task)}


def _names(tasks: Collection[str], task: str) -> list[str]:
    has_both = task in DIRECTIONS and set(DIRECTIONS) <= set(tasks)
    return [GEOMETRIC_MEAN, RSUM] if has_both else [GEOMETRIC_MEAN]
