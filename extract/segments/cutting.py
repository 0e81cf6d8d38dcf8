"""From the frame features of clips to their segments: one way for extraction and for resegment, so
that both give the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..cache.rows import Matrix
from .pooling import frame_rows, pool
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
