"""Retrieval metrics as per-query values of 0-based ranks; a metric is their mean or median.

Keeping the values of each query is what makes intervals and paired tests possible.
"""

from __future__ import annotations

import numpy as np


def recall_at(ranks: np.ndarray, k: int) -> np.ndarray:
    """R@K in percent is the mean of these: 100 where a right item is among the first K, else 0.

    ranks: any shape, int, 0 is first.   Returns float64 of that shape.
    """
    return np.where(ranks < k, 100.0, 0.0)


def reciprocal_rank(ranks: np.ndarray) -> np.ndarray:
    """MRR, from 0 to 1, is the mean of these: 1 / (rank + 1)."""
    return 1.0 / (ranks + 1.0)


def one_based(ranks: np.ndarray) -> np.ndarray:
    """Mean rank MnR and median rank MdR are the mean and the median of these: first is 1.

    The median of an even number of queries is the mean of the middle two (numpy's, not torch's).
    """
    return ranks + 1.0
