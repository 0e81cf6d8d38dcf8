"""mAP of the windows of queries, all of them or those of some length (QVHighlights)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from .average_precision import window_precisions

THRESHOLDS: Final = np.array([0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95])
RANGES: Final = {"full": (-np.inf, np.inf), "long": (30, 150), "middle": (10, 30), "short": (0, 10)}
"""Seconds (low, high] of the truth's windows that count; the whole of it for full."""
MAX_WINDOWS: Final = 10
SINGLE: Final = (0.5, 0.75)
"""Thresholds whose mAP is reported alone, too."""


def windows_in_range(windows: np.ndarray, name: str) -> np.ndarray:
    """Those of the windows (m, 2) whose length is in the range."""
    low, high = RANGES[name]
    lengths = windows[:, 1] - windows[:, 0]
    return np.asarray(windows[(lengths > low) & (lengths <= high)])


def window_precisions_of(
    predicted: Sequence[np.ndarray], windows: Sequence[np.ndarray]
) -> np.ndarray:
    """(Q, thresholds) average precision of each query.

    predicted: (n, 3) start, end and score, of which the first ten count.   windows: (m, 2), m > 0.
    """
    return np.array(
        [
            window_precisions(found[:MAX_WINDOWS], truth, THRESHOLDS)
            for found, truth in zip(predicted, windows, strict=True)
        ]
    ).reshape(len(predicted), len(THRESHOLDS))


def window_metrics(precisions: np.ndarray) -> dict[str, np.ndarray]:
    """mAP over all thresholds and mAP at some, (Q,) each in percent."""
    metrics = {"mAP": 100.0 * precisions.mean(axis=1)}
    for threshold in SINGLE:
        column = int(np.flatnonzero(THRESHOLDS == threshold)[0])
        metrics[f"mAP@{threshold:g}"] = 100.0 * precisions[:, column]
    return metrics
