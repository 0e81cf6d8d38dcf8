"""What a query found, for people to look at: its best items with scores and, of clips, the moment.

FAISS proposes candidates, whole items by their own vectors and items by their parts; the candidates
are then scored exactly, as for the ranks. With a flat index the lists of the global score, and of
the segment score of a text of one sentence pooled by max, are exact; the others leave out an item
only when neither its whole nor any part of it was near.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .config import Direction, EvaluationConfig, IndexConfig
from .index import build_index, nearest, ready_to_search
from .scoring import TwoLevelVectors, fuse, level_scores, own_clip_similarities

QUERIES_AT_ONCE = 64
SCORE_DECIMALS = 6
"""Float32 products are right to about 3e-7: rounded, duplicates tie and their position decides."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """The best items of Q queries, best first, equal ones by position."""

    items: np.ndarray
    """(Q, k) int64, positions among the task's items; -1 where there are fewer."""
    scores: np.ndarray
    """(Q, k) float32."""
    spans: np.ndarray | None
    """(Q, k, 2) float64 seconds of the clip's segment nearest to any sentence; None for texts."""


def show_neighbours(
    texts: TwoLevelVectors,
    clips: TwoLevelVectors,
    *,
    direction: Direction,
    weights: Sequence[float],
    spans: np.ndarray,
    config: EvaluationConfig,
) -> list[Shown | None]:
    """The best items under a * global + (1 - a) * segment for each weight a; None if k is 0.

    spans: (S, 2) seconds of the clips' parts.
    """
    queries, items = (texts, clips) if direction == "text_to_clip" else (clips, texts)
    k = min(config.shown_neighbours, len(items))
    if k == 0:
        return [None for _ in weights]
    propose = CandidateSearch(items, k=k, config=config.index)
    found: list[list[Shown]] = [[] for _ in weights]
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        block = queries.slice(start, min(start + QUERIES_AT_ONCE, len(queries)))
        candidate_QI = propose(block)
        chosen = np.flatnonzero(candidate_QI.any(axis=0))
        if direction == "text_to_clip":
            levels = level_scores(block, items.take(chosen), config=config.segment_score)
        else:
            by_text = level_scores(items.take(chosen), block, config=config.segment_score)
            levels = by_text[0].T, by_text[1].T
        for shown, weight in zip(found, weights, strict=True):
            scores = fuse(*levels, weight=weight).round(SCORE_DECIMALS)
            best, order = _top(np.where(candidate_QI[:, chosen], scores, -np.inf), k)
            rows = np.where(np.isfinite(best), chosen[order], -1)
            moments = _moments(block, clips, rows, spans) if direction == "text_to_clip" else None
            shown.append(Shown(items=rows, scores=best, spans=moments))
    return [_join(parts) for parts in found]


class CandidateSearch:
    """Proposes items for queries: those near by their whole, and those with a part near a part."""

    def __init__(self, items: TwoLevelVectors, *, k: int, config: IndexConfig) -> None:
        self._num_items = len(items)
        self._k = k
        self._wholes = ready_to_search(build_index(items.wholes, config), config)
        self._parts = ready_to_search(build_index(items.parts, config), config)
        self._owners = np.append(np.repeat(np.arange(len(items)), items.part_counts), len(items))
        self._depth = k * int(items.part_counts.max())
        """So many parts belong to at least k items."""

    def __call__(self, queries: TwoLevelVectors) -> np.ndarray:
        """(Q, items) bool."""
        candidate_QI = np.zeros((len(queries), self._num_items + 1), dtype=bool)
        _, near = nearest(self._wholes, queries.wholes, self._k)
        candidate_QI[np.arange(len(queries))[:, None], near] = True
        _, near_parts = nearest(self._parts, queries.parts, self._depth)
        query_of_part = np.repeat(np.arange(len(queries)), queries.part_counts)
        candidate_QI[query_of_part[:, None], self._owners[near_parts]] = True
        return candidate_QI[:, :-1]  # the last column took the -1 of approximate indexes


def _top(scores_QI: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best scores of each row and their columns, equal ones by column; padded with -inf."""
    missing = max(0, k - scores_QI.shape[1])
    padded = np.pad(scores_QI, ((0, 0), (0, missing)), constant_values=-np.inf)
    order = np.argsort(-padded, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(padded, order, axis=1).astype(np.float32)
    return best, np.minimum(order, scores_QI.shape[1] - 1)


def _moments(
    texts: TwoLevelVectors, clips: TwoLevelVectors, rows: np.ndarray, spans: np.ndarray
) -> np.ndarray:
    """(Q, k, 2) seconds: of clip rows[q, j] the segment nearest to any sentence of text q."""
    k = rows.shape[1]
    clip_of_pair = np.repeat(np.maximum(rows, 0), texts.part_counts, axis=0).ravel()
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
    chosen = segments.reshape(-1, k)[sentence, np.arange(k)]
    return np.where((rows >= 0)[:, :, None], spans[chosen], np.nan)


def _first_best(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """(groups,) position in `values` of the first largest of each group."""
    counts = np.diff(np.append(starts, len(values)))
    is_best = values >= np.repeat(np.maximum.reduceat(values, starts), counts)
    positions = np.where(is_best, np.arange(len(values)), len(values))
    return np.minimum.reduceat(positions, starts)


def _join(parts: Sequence[Shown]) -> Shown:
    spans = [part.spans for part in parts if part.spans is not None]
    return Shown(
        items=np.concatenate([part.items for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
        spans=np.concatenate(spans) if spans else None,
    )
