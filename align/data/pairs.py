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

import numpy as np

from ...data_manifests.cards.spans import span_iou
from ...extract.cache.ragged import ragged_rows

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
    overlap_iou: float,
) -> SpanPairs:
    """Relate texts that have spans to the segments of their clips.

    text_spans: (T, 2) and segment_spans: (S, 2), seconds.   text_clips: (T,) index of the clip.
    segment_offsets: (N + 1,), the segments of each clip.

    A text's own segments are those with the largest IoU with its span, all of them when several
    share it. Under the rule "spans" that is the segment cut by this very span; under other rules
    the best match there is. A text that no segment touches has none. Segments whose IoU with the
    span exceeds `overlap_iou` are related without being positive.
    """
    segments, texts = ragged_rows(segment_offsets, text_clips)
    offsets = np.concatenate([[0], np.cumsum(np.diff(segment_offsets)[text_clips])])
    iou = span_iou(text_spans[texts], segment_spans[segments])
    largest = np.zeros(len(text_clips))
    np.maximum.at(largest, texts, iou)
    # The tolerance is for spans that were cut by rounded times; 1 is the IoU of equal spans.
    positive = (iou > 0) & (iou >= largest[texts] - 1e-6)
    return SpanPairs(
        text_offsets=offsets,
        segments=segments,
        positive=positive,
        related=positive | (iou > overlap_iou),
    )


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
