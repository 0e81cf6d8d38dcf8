"""From frame features to segment and clip features: the mean of the normalised frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .segments import Span


def normalise(features: np.ndarray) -> np.ndarray:
    """(n, D) float32 with rows of length 1; a row of zeros stays zero."""
    values = np.asarray(features, dtype=np.float32)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    unit: np.ndarray = values / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit


def pool(frames: np.ndarray, rows: slice) -> np.ndarray:
    """(D,) float32: the mean of the normalised frames[rows]; the mean is not normalised again.

    The mean of normalised frame features is CLIP4Clip's parameter-free "meanP" (arXiv 2104.08860).
    """
    return mean_of(normalise(frames[rows]))


def mean_of(unit: np.ndarray) -> np.ndarray:
    """(D,) float32: the mean of normalised features (n, D)."""
    # Summed in float64: of 100,000 frames in float32, a thousandth was lost.
    mean: np.ndarray = unit.mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean


def frame_rows(sample_seconds: np.ndarray, spans: Sequence[Span]) -> list[slice]:
    """The frames of each span: those sampled in [start, end), else the one shown at the span's
    middle.

    sample_seconds: (F,) float64, increasing, F >= 1.
    """
    rows = []
    for start, end in spans:
        first, last = np.searchsorted(sample_seconds, [start, end], side="left")
        if first == last:
            shown = np.searchsorted(sample_seconds, (start + end) / 2, side="right") - 1
            first = int(np.clip(shown, 0, len(sample_seconds) - 1))
            last = first + 1
        rows.append(slice(int(first), int(last)))
    return rows
