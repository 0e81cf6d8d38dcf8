"""p-values of a paired difference: sign flips of whole clips, McNemar's, and Holm's correction.

Were there no difference between two rows, a clip's difference could as well have had the other
sign. The sign-flip (permutation) test therefore counts how often flipped signs give a sum at least
as far from zero (Fisher 1935); it needs no assumption about how the values are spread. Queries of
one clip keep their signs together. Where each clip has one query and the values are right or
wrong, the test over all flips is the exact McNemar test (1947).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from .bootstrap import DRAWS_AT_ONCE, ZERO, Sample, cluster_sums

FLIPS: Final = 9_999
"""Random flips behind a p-value, which is then at least 1 / 10,000."""
ENUMERATED_CLIPS: Final = 13
"""Up to so many clips with a difference, all 2 ** clips flips are counted instead."""


@dataclass(frozen=True, kw_only=True, slots=True)
class McNemar:
    """The queries of which two rows get one right and the other wrong."""

    gained: int
    """Right in the first row alone."""
    lost: int
    """Right in the second row alone."""
    p_value: float
    """Two-sided, exact binomial; takes queries for independent, also those of one clip."""


def sign_flip_p_values(paired: Sample, *, seed: int) -> np.ndarray:
    """(M,) two-sided p-values of the mean of each column of a `paired_sample`.

    Random flips count the observed signs as one more, so that no p-value is zero.
    """
    sums_CM = cluster_sums(paired)[0]
    sums_CM = sums_CM[np.abs(sums_CM).max(axis=1) > ZERO]  # the others are the same either way
    if len(sums_CM) == 0:
        return np.ones(paired.values.shape[1])
    total_M = sums_CM.sum(axis=0)
    extreme_M = np.abs(total_M) - ZERO * np.abs(sums_CM).sum(axis=0)
    enumerated = len(sums_CM) <= ENUMERATED_CLIPS
    flips = _all_flips(len(sums_CM)) if enumerated else _random_flips(len(sums_CM), seed=seed)
    num_as_extreme = np.zeros(len(total_M), dtype=np.int64)
    num_flips = 0
    for flipped_FC in flips:
        sums_FM = total_M - 2.0 * (flipped_FC.astype(np.float64) @ sums_CM)
        num_as_extreme += (np.abs(sums_FM) >= extreme_M).sum(axis=0)
        num_flips += len(flipped_FC)
    if enumerated:
        return num_as_extreme / num_flips
    return (1 + num_as_extreme) / (1 + num_flips)


def mcnemar(first: np.ndarray, second: np.ndarray) -> McNemar | None:
    """The test of two rows' (Q,) values; None unless each is right (100) or wrong (0).

    Means over seeds are neither, so rows of several seeds have no such test.
    """
    if not all(np.isin(values, (0.0, 100.0)).all() for values in (first, second)):
        return None
    gained, lost = int((first > second).sum()), int((first < second).sum())
    return McNemar(gained=gained, lost=lost, p_value=binomial_p_value(gained, lost))


def binomial_p_value(gained: int, lost: int) -> float:
    """Twice the smaller tail of Binomial(gained + lost, 1/2), at most 1, in whole numbers."""
    num, fewer = gained + lost, min(gained, lost)
    term, tail = 1, 1
    for k in range(fewer):
        term = term * (num - k) // (k + 1)  # binomial coefficient of num and k + 1
        tail += term
    return float(min(1.0, 2 * tail / 2**num))


def holm(p_values: np.ndarray) -> np.ndarray:
    """(n,) p-values of a family of n tests, corrected for their number (Holm 1979).

    Rejecting those below alpha keeps the chance of any false alarm below alpha, whatever the tests
    have to do with each other.
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(factors * p_values[order]))
    return corrected


def _all_flips(num_clips: int) -> Iterator[np.ndarray]:
    """Once (2 ** clips, clips) bool: every way to flip signs."""
    numbers = np.arange(2**num_clips)[:, None]
    yield (numbers >> np.arange(num_clips)) % 2 == 1


def _random_flips(num_clips: int, *, seed: int) -> Iterator[np.ndarray]:
    """FLIPS rows of `clips` random bits, a bounded number at once."""
    rng = np.random.default_rng(seed)
    num_bytes = -(-num_clips // 8)
    at_once = max(1, DRAWS_AT_ONCE // num_clips)
    for start in range(0, FLIPS, at_once):
        num = min(at_once, FLIPS - start)
        bits = rng.integers(0, 256, size=(num, num_bytes), dtype=np.uint8)
        yield np.unpackbits(bits, axis=1, count=num_clips)
