"""Which segments of its clip a question is asked of: all, or those of the question's span."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ...extract.cache.ragged import ragged_rows
from ...extract.cache.split_features import SplitFeatures
from ..loss_config import QuestionSpans
from .pairs import SHORTEST_SEGMENT

# K = questions

COVERED: Final = 0.5
"""Share of a segment that a span covers, above which the segment belongs to it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentRanges:
    """Neighbouring segments of the clip of each of K questions."""

    first: np.ndarray
    """(K,) int64, place of the first one in the clip."""
    counts: np.ndarray
    """(K,) int64, how many they are, at least one."""


def question_segments(
    split: SplitFeatures, rows: np.ndarray, *, question_spans: QuestionSpans
) -> SegmentRanges:
    """The segments that some questions are asked of. rows: (K,) int64, of the split's questions.

    use: from the first to the last segment of which the question's span covers more than half;
    where there is none, the segment that shares most seconds with it. ignore, a question without a
    span, and one whose span meets no segment: the whole clip.
    """
    clips = split.questions.clips[rows]
    counts = np.diff(split.segment_offsets)[clips]
    first, last = np.zeros(len(rows), dtype=np.int64), counts - 1
    spans = split.questions.spans[rows]
    if question_spans == "use" and not np.isnan(spans).all():
        segments, owners = ragged_rows(split.segment_offsets, clips)
        places = segments - split.segment_offsets[clips][owners]
        starts, ends = split.segment_spans[segments].T
        shared = np.minimum(ends, spans[owners, 1]) - np.maximum(starts, spans[owners, 0])
        shared = np.where(np.isnan(shared), 0.0, np.maximum(shared, 0.0))
        begins = np.cumsum(counts) - counts
        most = np.maximum.reduceat(shared, begins)[owners]
        is_inside = shared > COVERED * np.maximum(ends - starts, SHORTEST_SEGMENT)
        has_inside = np.logical_or.reduceat(is_inside, begins)[owners]
        is_best = (shared == most) & (most > 0)
        is_asked = np.where(has_inside, is_inside, is_best)
        is_asked |= ~np.logical_or.reduceat(is_asked, begins)[owners]
        first = np.minimum.reduceat(np.where(is_asked, places, len(segments)), begins)
        last = np.maximum.reduceat(np.where(is_asked, places, -1), begins)
    return SegmentRanges(first=first, counts=last - first + 1)
