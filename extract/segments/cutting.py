"""From the frame features of clips to their segments and pooled features: one way for extraction
and for resegment, so that both give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ..cache.writer import Matrix
from .rules import Span, parse_rule


@dataclass(frozen=True, kw_only=True, slots=True)
class CutFacts:
    """All of a clip that a rule looks at."""

    clip_id: str
    duration_seconds: float
    text_spans: Sequence[Span]
    shot_seconds: Sequence[float]
    """When its second, third ... shot begins; empty also when shots were not looked for."""

    def spans(self, rule: str) -> list[Span]:
        """The clip's spans by a rule. Raises ValueError when they are too many."""
        try:
            return parse_rule(rule)(self.duration_seconds, self.text_spans, self.shot_seconds)
        except ValueError as error:
            raise ValueError(f"segments {rule!r}: {error}") from error


class SegmentRows:
    """Gathers the segments of clips, one after the other: features and index rows."""

    def __init__(self, *, width: int, dtype: str | np.dtype[Any]) -> None:
        """width: of a feature; dtype: of the stored ones."""
        self._features = [np.empty((0, width), dtype=dtype)]
        self.rows: list[dict[str, Any]] = []

    @property
    def features(self) -> np.ndarray:
        """(S, D), as stored."""
        return np.concatenate(self._features)

    def add(
        self,
        clip_id: str,
        rule: str,
        spans: Sequence[Span],
        *,
        frames: Matrix,
        sample_seconds: np.ndarray,
    ) -> None:
        """frames: (F, D) of the clip, in the stored type; sample_seconds: (F,) float64."""
        places = frame_rows(sample_seconds, spans)
        for index, (span, place) in enumerate(zip(spans, places, strict=True)):
            self.rows.append(
                {
                    "clip_id": clip_id,
                    "rule": rule,
                    "segment_index": index,
                    "start_seconds": span[0],
                    "end_seconds": span[1],
                    "num_frames": place.stop - place.start,
                    "row": len(self.rows),
                }
            )
        self._features.append(pool(frames, places))


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
