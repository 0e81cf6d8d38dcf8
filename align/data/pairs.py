"""Which pairs attract, which repel, and which are left alone: pure functions of indices and spans.

A pair is one clip or segment (a row) with one text (a column).

    positive   the text describes the row
    negative   the row is not related to the words of the text
    masked     neither: related, but not the pair to learn from; it has no part in the loss
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ...data_manifests.cards.spans import span_iou
from ...extract.cache.ragged import Ragged, ragged_rows

POSITIVE_COVERAGE: Final = 0.5
"""Share of a segment that a text's span must cover for the segment to be the text's own."""
RELATED_COVERAGE: Final = 0.1
"""Share of a segment above which it is no negative of the text."""
TIME_TOLERANCE: Final = 1e-6
"""Of shares and seconds."""
SHORTEST_SEGMENT: Final = 1e-9
"""Seconds; a divisor for segments without length."""

# V = rows (clips or segments), T = texts, N = clips, S = segments, P = pairs inside the clips


@dataclass(frozen=True, kw_only=True, slots=True)
class PairMasks:
    """The pairs of a batch at one level; what is in neither mask is masked."""

    positive: np.ndarray
    """(V, T) bool."""
    negative: np.ndarray
    """(V, T) bool, nowhere positive."""

    def __post_init__(self) -> None:
        assert self.positive.shape == self.negative.shape
        assert not (self.positive & self.negative).any()


@dataclass(frozen=True, kw_only=True, slots=True)
class SpanPairs:
    """Every text that has a span, with every segment of its own clip: texts end to end."""

    text_offsets: np.ndarray
    """(T + 1,) int64: text t has pairs [offsets[t], offsets[t + 1])."""
    segments: np.ndarray
    """(P,) int64, index of the segment in the split."""
    positive: np.ndarray
    """(P,) bool, whether the segment is the text's own."""
    related: np.ndarray
    """(P,) bool, whether it is, or overlaps it too much to be a negative."""


def normalised_words(text: str) -> str:
    """The text without case, punctuation and runs of blanks: "A  Dog." -> "a dog"."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    spaced = "".join(c if c.isalnum() or unicodedata.combining(c) else " " for c in folded)
    return " ".join(spaced.split()) or folded.strip()


def word_ids(texts: Sequence[str]) -> np.ndarray:
    """(T,) int64, equal for two texts exactly when their normalised words are equal."""
    ids: dict[str, int] = {}
    return np.array([ids.setdefault(normalised_words(t), len(ids)) for t in texts], dtype=np.int64)


def span_pairs(
    *,
    text_spans: np.ndarray,
    text_clips: np.ndarray,
    segment_spans: np.ndarray,
    segment_offsets: np.ndarray,
) -> SpanPairs:
    """Relate texts that have spans to the segments of their clips.

    text_spans: (T, 2) and segment_spans: (S, 2), seconds.   text_clips: (T,) index of the clip.
    segment_offsets: (N + 1,), the segments of each clip.

    Whether a segment lies in a span is measured by the share of the segment that the span covers:
    IoU is small for a short segment of a long span. A text's own segments are those that its span
    covers by half or more, and those with the largest IoU with it, all of them when several share
    it. Segments that it covers by more than a tenth are related without being positive. A text
    that no segment touches has none.
    """
    segments, texts = ragged_rows(segment_offsets, text_clips)
    offsets = np.concatenate([[0], np.cumsum(np.diff(segment_offsets)[text_clips])])
    spans, pieces = text_spans[texts], segment_spans[segments]
    iou = span_iou(spans, pieces)
    largest = np.zeros(len(text_clips))
    np.maximum.at(largest, texts, iou)
    shared = np.minimum(spans[:, 1], pieces[:, 1]) - np.maximum(spans[:, 0], pieces[:, 0])
    covered = np.maximum(shared, 0) / np.maximum(pieces[:, 1] - pieces[:, 0], SHORTEST_SEGMENT)
    # The tolerance is for spans that were cut by rounded times; 1 is the IoU of equal spans.
    best = (iou > 0) & (iou >= largest[texts] - TIME_TOLERANCE)
    positive = best | (covered >= POSITIVE_COVERAGE - TIME_TOLERANCE)
    return SpanPairs(
        text_offsets=offsets,
        segments=segments,
        positive=positive,
        related=positive | (covered > RELATED_COVERAGE + TIME_TOLERANCE),
    )


def overlapping_clips(videos: np.ndarray, starts: np.ndarray, durations: np.ndarray) -> Ragged:
    """For each of N clips the other clips of its video that overlap it in time.

    videos: (N,) equal for clips of one video.   starts, durations: (N,) seconds.
    """
    order = np.lexsort((starts, videos))
    ends = starts + durations
    pairs: list[tuple[int, int]] = []
    running: list[int] = []
    for clip in order.tolist():
        running = [
            other
            for other in running
            if videos[other] == videos[clip] and ends[other] > starts[clip] + TIME_TOLERANCE
        ]
        pairs += [pair for other in running for pair in ((clip, other), (other, clip))]
        running.append(clip)
    clips = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    grouped = Ragged.grouped(clips[:, 0], num_groups=len(videos))
    return Ragged(values=clips[grouped.values, 1], offsets=grouped.offsets)


def pair_masks(
    *,
    num_rows: int,
    column_words: np.ndarray,
    positive: tuple[np.ndarray, np.ndarray],
    related: tuple[np.ndarray, np.ndarray],
) -> PairMasks:
    """Masks of a batch from what is known about its rows.

    column_words: (T,) word id of each text.   positive: rows and columns of the positive pairs.
    related: rows and word ids; the words known to hold for a row, those of its positives among
    them. Texts with equal words are the same text, so a row related to one is related to all,
    in whichever clip they occur.
    """
    words, column_word = np.unique(column_words, return_inverse=True)
    rows, about = related
    present = np.isin(about, words)
    related_to = np.zeros((num_rows, len(words)), dtype=bool)
    related_to[rows[present], np.searchsorted(words, about[present])] = True
    is_positive = np.zeros((num_rows, len(column_words)), dtype=bool)
    is_positive[positive] = True
    return PairMasks(positive=is_positive, negative=~related_to[:, column_word])
