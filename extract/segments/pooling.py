"""From frame features to segment and clip features: the mean of the normalised frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from ..cache.rows import Matrix
from .rules import Span

BLOCK_FRAMES: Final = 4096
"""Frames of a clip that are in memory at once. Part of what a mean is, to the last bit: blocks are
summed in order."""


def normalise(features: np.ndarray) -> np.ndarray:
    """(n, D) float32 with rows of length 1; a row of zeros stays zero."""
    values = np.asarray(features, dtype=np.float32)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    unit: np.ndarray = values / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit


def pool(frames: Matrix, places: Sequence[slice]) -> np.ndarray:
    """(S, D), of the type of the frames: for each place the mean of its normalised frames.

    frames: (F, D). places: S slices of rows, none of them empty. The means are not normalised
    again. The mean of normalised frame features is CLIP4Clip's parameter-free "meanP" (arXiv
    2104.08860). Reads every frame once, block by block.
    """
    num_frames, width = frames.shape
    means = np.empty((len(places), width), dtype=frames.dtype)
    by_start = sorted(range(len(places)), key=lambda number: places[number].start, reverse=True)
    # Summed in float64: of 100,000 frames in float32, a thousandth was lost.
    sums: dict[int, np.ndarray] = {}
    for first in range(0, num_frames, BLOCK_FRAMES):
        last = min(first + BLOCK_FRAMES, num_frames)
        unit = normalise(frames.read(first, last))
        while by_start and places[by_start[-1]].start < last:
            sums[by_start.pop()] = np.zeros(width)
        for number in list(sums):
            place = places[number]
            inside = unit[max(place.start - first, 0) : place.stop - first]
            sums[number] += inside.sum(axis=0, dtype=np.float64)
            if place.stop <= last:
                mean = sums.pop(number) / (place.stop - place.start)
                means[number] = mean.astype(np.float32)
    assert not sums and not by_start, "a place that is no part of the frames"
    return means


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
