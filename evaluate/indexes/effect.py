"""What an approximate index costs: neighbours that it misses, and what that does to recall."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...extract.cache.ragged import Ragged
from ..config import EvaluationConfig, IndexConfig
from ..scores.vectors import TwoLevelVectors
from .clip_search import ClipSearch
from .index import CachedIndex, build_index, load_or_build_index, nearest

NEIGHBOURS = 10
"""The k of the recall of segments."""
SAME_SCORE = 1e-6
"""Float32 products of equal vectors differ by less."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexEffect:
    """An approximate index beside the exact one, on the same queries."""

    factory: str
    """FAISS factory string."""
    search: str
    """Its search parameters."""
    num_segments: int
    """In the index."""
    num_bytes: int
    """Of the file of the segment index."""
    build_seconds: float
    """Training it and adding the segments; 0 when it was read from the cache's folder."""
    segment_recall_at_10: float
    """Share of the exact ten nearest segments that it finds, in percent; of equally near ones any
    will do."""
    weight: float
    """Of the global score in the fused score of the clips."""
    exact: dict[str, float]
    """R@K of clips found through exact indexes, in percent."""
    approximate: dict[str, float]
    """R@K of clips found through the approximate indexes, in percent."""


def index_effect(
    texts: TwoLevelVectors,
    clips: TwoLevelVectors,
    correct: Ragged,
    *,
    weight: float,
    config: EvaluationConfig,
    cache: Path,
) -> IndexEffect:
    """Search clips for texts through exact indexes and through those of config.index.

    correct: each text's clips.   cache: keeps the indexes.
    A text is found within K when one of its clips is among the K best that the search returns.
    """
    exact, _ = _search(clips, IndexConfig(), config=config, cache=cache)
    approximate, segments = _search(clips, config.index, config=config, cache=cache)
    k = max(config.recall_ks)
    found = {
        search: search.search(texts, k=k, weight=weight).clips for search in (exact, approximate)
    }
    return IndexEffect(
        factory=config.index.factory,
        search=config.index.search,
        num_segments=len(clips.parts),
        num_bytes=segments.num_bytes,
        build_seconds=segments.build_seconds,
        segment_recall_at_10=segment_recall(clips.parts, texts.parts, segments),
        weight=weight,
        exact=_recalls(found[exact], correct, config.recall_ks),
        approximate=_recalls(found[approximate], correct, config.recall_ks),
    )


def segment_recall(segments: np.ndarray, queries: np.ndarray, kept: CachedIndex) -> float:
    """Percent of the exact ten nearest segments of the queries that the index finds.

    A found segment counts when it is as near as the tenth: duplicates stand in for each other.
    """
    exact_scores, _ = nearest(build_index(segments), queries, NEIGHBOURS)
    _, ids = nearest(kept.index, queries, NEIGHBOURS)
    true = np.einsum("qkw,qw->qk", segments[np.maximum(ids, 0)], queries)
    near_enough = (ids >= 0) & (true >= exact_scores[:, -1:] - SAME_SCORE)
    return 100 * float(near_enough.mean()) if near_enough.size else 0.0


def _search(
    clips: TwoLevelVectors, index: IndexConfig, *, config: EvaluationConfig, cache: Path
) -> tuple[ClipSearch, CachedIndex]:
    segments = load_or_build_index(clips.parts, index, cache=cache)
    wholes = load_or_build_index(clips.wholes, index, cache=cache)
    search = ClipSearch(
        clips,
        clip_index=wholes.index,
        segment_index=segments.index,
        segment_score=config.segment_score,
    )
    return search, segments


def _recalls(found_QK: np.ndarray, correct: Ragged, ks: tuple[int, ...]) -> dict[str, float]:
    """{"R@1": percent, ...}: queries with a right clip among their K best."""
    query = np.repeat(np.arange(len(correct)), correct.counts)
    hit = found_QK[query] == correct.values[:, None]
    first = np.where(hit.any(axis=1), hit.argmax(axis=1), found_QK.shape[1])
    best = np.full(len(correct), found_QK.shape[1])
    np.minimum.at(best, query, first)
    return {f"R@{k}": 100 * float((best < k).mean()) for k in ks}
