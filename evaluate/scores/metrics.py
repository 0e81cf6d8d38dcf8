"""Retrieval metrics as per-query values of 0-based ranks; a metric is their mean or median.

Keeping the values of each query is what makes intervals and paired tests possible.
"""

from __future__ import annotations

import numpy as np


def recall_at(ranks: np.ndarray, k: int) -> np.ndarray:
    """R@K in percent is the mean of these: 100 where a right item is among the first K, else 0.

    ranks: any shape, 0 is first; halves where ties rank at their mean, of which 0.5 is not first,
    while 4.5 is among the first five (CE).   Returns float64 of that shape.
    """
    return np.where(ranks <= 0 if k == 1 else ranks < k, 100.0, 0.0)


def reciprocal_rank(ranks: np.ndarray) -> np.ndarray:
    """MRR, from 0 to 1, is the mean of these: 1 / (rank + 1)."""
    return 1.0 / (ranks + 1.0)


def one_based(ranks: np.ndarray) -> np.ndarray:
    """Mean rank MnR and median rank MdR are the mean and the median of these: first is 1.

    The median of an even number of queries is the mean of the middle two (numpy's, not torch's).
    """
    return ranks + 1.0


def discounted_gain(ranks: np.ndarray, k: int = 10) -> np.ndarray:
    """nDCG@K, from 0 to 1, for one right item each: 1 / log2(rank + 2) among the first K, else 0.

    The ideal gain of one right item is 1 (Jarvelin and Kekalainen 2002).
    """
    return np.where(ranks < k, 1.0 / np.log2(ranks + 2.0), 0.0)


def discounted_gains(places: np.ndarray, offsets: np.ndarray, k: int = 10) -> np.ndarray:
    """(Q,) nDCG@K of queries with several right items: their gains over those of the first places.

    places: 0-based, of all right items, queries end to end.   offsets: (Q + 1,), of the queries.
    """
    gains = np.add.reduceat(discounted_gain(places, k), offsets[:-1])
    ideal = np.cumsum(discounted_gain(np.arange(k), k))
    return np.asarray(gains / ideal[np.minimum(np.diff(offsets), k) - 1])


def average_precisions(places: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(Q,) whose mean is mAP, from 0 to 1: the mean over right items of the precision at each.

    places: 0-based, of all right items, queries end to end and best first.   offsets: (Q + 1,).
    """
    counts = np.diff(offsets)
    num_hits = np.arange(len(places)) - np.repeat(offsets[:-1], counts) + 1
    return np.asarray(np.add.reduceat(num_hits / (places + 1.0), offsets[:-1]) / counts)


def median_rank(ranks: np.ndarray, *, lower: bool) -> float:
    """MdR from 1: numpy's mean of the middle two, or torch's lower one (CLIP4Clip)."""
    if lower:
        return float(np.sort(ranks)[(len(ranks) - 1) // 2]) + 1.0
    return float(np.median(ranks)) + 1.0


def geometric_mean(values: np.ndarray) -> np.ndarray:
    """Of R@1, R@5 and R@10 along the last axis, as CE reports it; 0 where one of them is 0."""
    return np.asarray(np.prod(values, axis=-1) ** (1.0 / values.shape[-1]))
