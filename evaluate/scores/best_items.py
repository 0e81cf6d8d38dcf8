"""The best items of each query, for people to look at, and of clips the moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from .similarity import own_clip_similarities
from .vectors import TwoLevelVectors

SCORE_DECIMALS: Final = 6
"""Float32 products are right to about 3e-7: rounded, duplicates tie and their position decides."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BestItems:
    """The k best items of Q queries, best first, equal ones by position."""

    items: np.ndarray
    """(Q, k) int64, positions among the task's items."""
    scores: np.ndarray
    """(Q, k) float32."""
    spans: np.ndarray | None
    """(Q, k, 2) float64 seconds of the clip's segment nearest to any sentence; None for texts."""


def best_texts(scores_QI: np.ndarray, *, k: int) -> BestItems:
    """The best texts of clips. scores_QI: (clips, texts)."""
    items, scores = _best(scores_QI, k)
    return BestItems(items=items, scores=scores, spans=None)


def best_clips(
    scores_QI: np.ndarray,
    texts: TwoLevelVectors,
    clips: TwoLevelVectors,
    *,
    spans: np.ndarray,
    k: int,
) -> BestItems:
    """The best clips of texts, with their moments.

    scores_QI: (texts, clips).   spans: (S, 2) seconds of the clips' parts.
    """
    items, scores = _best(scores_QI, k)
    return BestItems(items=items, scores=scores, spans=_moments(texts, clips, items, spans))


def join_best_items(parts: Sequence[BestItems]) -> BestItems | None:
    """Those of blocks of queries, end to end; None without any."""
    if not parts:
        return None
    spans = [part.spans for part in parts if part.spans is not None]
    return BestItems(
        items=np.concatenate([part.items for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
        spans=np.concatenate(spans) if spans else None,
    )


def _best(scores_QI: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(Q, k) columns of the best scores of each row, and the scores; fewer where there are."""
    num_queries, num_items = scores_QI.shape
    k = min(k, num_items)
    kth_best_Q1 = np.partition(scores_QI, num_items - k, axis=1)[:, num_items - k, None]
    # What rounds to the k-th score is no farther from it than a step.
    step = scores_QI.dtype.type(10.0**-SCORE_DECIMALS)
    rows, items = np.nonzero(scores_QI >= kth_best_Q1 - step)
    scores = scores_QI[rows, items].round(SCORE_DECIMALS)
    order = np.lexsort((items, -scores, rows))
    firsts = np.searchsorted(rows, np.arange(num_queries))
    best = order[firsts[:, None] + np.arange(k)]
    return items[best], scores[best]


def _moments(
    texts: TwoLevelVectors, clips: TwoLevelVectors, rows: np.ndarray, spans: np.ndarray
) -> np.ndarray:
    """(Q, k, 2) seconds: of clip rows[q, j] the segment nearest to any sentence of text q."""
    k = rows.shape[1]
    clip_of_pair = np.repeat(rows, texts.part_counts, axis=0).ravel()
    similarities, offsets = own_clip_similarities(
        np.repeat(texts.parts, k, axis=0),
        clip_of_pair,
        segments=clips.parts,
        segment_offsets=clips.offsets,
    )
    best = _first_best(similarities, offsets[:-1])  # of each (sentence, clip), sentences first
    segments = clips.offsets[clip_of_pair] + best - offsets[:-1]
    by_clip_k = similarities[best].reshape(-1, k).T.ravel()
    starts = np.arange(k)[:, None] * len(texts.parts) + texts.offsets[:-1]
    sentence = _first_best(by_clip_k, starts.ravel()).reshape(k, len(texts)).T % len(texts.parts)
    return np.asarray(spans[segments.reshape(-1, k)[sentence, np.arange(k)]])


def _first_best(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """(groups,) position in `values` of the first largest of each group."""
    counts = np.diff(np.append(starts, len(values)))
    is_best = values >= np.repeat(np.maximum.reduceat(values, starts), counts)
    positions = np.where(is_best, np.arange(len(values)), len(values))
    return np.minimum.reduceat(positions, starts)
