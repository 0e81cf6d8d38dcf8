"""Clips for a text, out of very many: near segments and near clips are candidates, which are then
scored exactly. What a query costs does not grow with the number of clips, but as its indexes do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...extract.cache.ragged import offsets_of, ragged_rows
from ..config import SegmentScoreConfig
from ..scores.similarity import fuse, pool_segments
from ..scores.vectors import TwoLevelVectors
from .index import nearest

CANDIDATE_CLIPS = 100
"""Clips of each level that are scored exactly (TVR's XML re-ranks as many, arXiv 2001.09099)."""
QUERIES_AT_ONCE = 256
PAIRS_AT_ONCE = 8192
"""Pairs of a query and a clip or segment that are gathered at once, small enough for a cache."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipHits:
    """The best clips of Q queries, best first, equal ones by position."""

    clips: np.ndarray
    """(Q, k) int64; -1 where fewer were found."""
    scores: np.ndarray
    """(Q, k) float32: a * global + (1 - a) * segment; -inf where fewer were found."""
    segments: np.ndarray
    """(Q, k) int64, row of the clip's segment that is nearest to the query."""


class ClipSearch:
    """The clips of a corpus, with an index of their segments and one of the clips themselves."""

    def __init__(
        self,
        clips: TwoLevelVectors,
        *,
        clip_index: Any,
        segment_index: Any,
        segment_score: SegmentScoreConfig,
    ) -> None:
        """clip_index, segment_index: FAISS indexes of clips.wholes and of clips.parts."""
        self._clips = clips
        self._clip_index = clip_index
        self._segment_index = segment_index
        self._segment_score = segment_score
        self._owners = np.repeat(np.arange(len(clips)), clips.part_counts)

    def search(
        self,
        queries: TwoLevelVectors,
        *,
        k: int,
        weight: float,
        candidates: int = CANDIDATE_CLIPS,
    ) -> ClipHits:
        """The k best clips of Q texts under the fused score with this weight.

        candidates: clips of each level that are scored, at least k. With exact indexes the result
        is exact for the global score (weight 1) and for the segment score pooled by max (weight 0)
        of texts of one sentence; in between, a clip is missed only when it is among the
        `candidates` best of neither level, nor of any sentence.
        """
        wanted = min(max(k, candidates), len(self._clips))
        parts = [
            self._search_block(queries.slice(start, start + QUERIES_AT_ONCE), k, weight, wanted)
            for start in range(0, len(queries), QUERIES_AT_ONCE)
        ]
        if not parts:
            nothing = np.zeros((0, k), dtype=np.int64)
            return ClipHits(clips=nothing, scores=nothing.astype(np.float32), segments=nothing)
        return ClipHits(
            clips=np.concatenate([part.clips for part in parts]),
            scores=np.concatenate([part.scores for part in parts]),
            segments=np.concatenate([part.segments for part in parts]),
        )

    def _search_block(
        self, queries: TwoLevelVectors, k: int, weight: float, wanted: int
    ) -> ClipHits:
        pair_query, pair_clip = self._candidates(queries, weight, wanted)
        segment_scores, best_part = self._segment_scores(queries, pair_query, pair_clip)
        whole = _products(self._clips.wholes, pair_clip, queries.wholes, pair_query)
        scores = fuse(whole, segment_scores, weight=weight).astype(np.float32)

        order = np.lexsort((pair_clip, -scores, pair_query))
        place = np.arange(len(order)) - np.searchsorted(pair_query[order], pair_query[order])
        kept, column = order[place < k], place[place < k]
        hits = ClipHits(
            clips=np.full((len(queries), k), -1, dtype=np.int64),
            scores=np.full((len(queries), k), -np.inf, dtype=np.float32),
            segments=np.full((len(queries), k), -1, dtype=np.int64),
        )
        hits.clips[pair_query[kept], column] = pair_clip[kept]
        hits.scores[pair_query[kept], column] = scores[kept]
        hits.segments[pair_query[kept], column] = best_part[kept]
        return hits

    def _segment_scores(
        self, queries: TwoLevelVectors, pair_query: np.ndarray, pair_clip: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Of each pair of a query and a clip the segment score, float32, and the row of the segment
        that is nearest to one of the query's sentences."""
        if not len(pair_query):
            return np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.int64)
        clips = self._clips
        sentences, pair_of = ragged_rows(queries.offsets, pair_query)  # X sentences of the pairs
        clip_of = pair_clip[pair_of]
        offsets = offsets_of(clips.part_counts[clip_of])
        rows, of_sentence = ragged_rows(clips.offsets, clip_of)
        similarities = _products(clips.parts, rows, queries.parts, sentences[of_sentence])
        pooled = pool_segments(similarities[None], offsets, config=self._segment_score)[0]
        counts = queries.part_counts[pair_query]
        starts = offsets_of(counts)
        scores = np.add.reduceat(pooled, starts[:-1]) / counts.astype(np.float32)
        # The segments of a pair's sentences are neighbours: the first largest of them all.
        of_pairs = offsets_of(counts * clips.part_counts[pair_clip])
        return scores, rows[_first_largest(similarities, of_pairs)]

    def _candidates(
        self, queries: TwoLevelVectors, weight: float, wanted: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pairs of a query and a clip, each once, sorted by both: those that are worth a score."""
        pairs = []
        if weight > 0:
            _, near = nearest(self._clip_index, queries.wholes, wanted)
            pairs.append(_pairs(near))
        if weight < 1:
            sentence, clip = _pairs(self._clips_of_near_segments(queries.parts, wanted))
            owners = np.repeat(np.arange(len(queries)), queries.part_counts)
            pairs.append((owners[sentence], clip))
        # A clip number is below 2 ** 40, so that both fit in one sortable number.
        both = np.unique(np.concatenate([query << 40 | clip for query, clip in pairs]))
        return both >> 40, both & ((1 << 40) - 1)

    def _clips_of_near_segments(self, queries: np.ndarray, wanted: int) -> np.ndarray:
        """(Q, depth) int64: owners of the nearest segments, so many that each query has `wanted`
        clips, or all that the index finds; -1 where it found none."""
        num_segments = len(self._owners)
        # Segments of one clip are alike and come together: the first guess takes all of them.
        depth = min(num_segments, wanted * -(-num_segments // len(self._clips)))
        while True:
            _, near = nearest(self._segment_index, queries, depth)
            owners = np.where(near < 0, -1, self._owners[near])
            ordered = np.sort(owners, axis=1)
            distinct = 1 + (np.diff(ordered, axis=1) > 0).sum(axis=1) - (ordered[:, 0] < 0)
            exhausted = near.shape[1] < depth or (near < 0).any(axis=1)
            if depth == num_segments or ((distinct >= wanted) | exhausted).all():
                return owners
            depth = min(num_segments, 2 * depth)


def _products(
    items: np.ndarray, rows: np.ndarray, queries: np.ndarray, query_rows: np.ndarray
) -> np.ndarray:
    """(pairs,) float32, items[rows] with queries[query_rows]; the same for equal vectors."""
    products = np.empty(len(rows), dtype=np.float32)
    for start in range(0, len(rows), PAIRS_AT_ONCE):
        some = slice(start, start + PAIRS_AT_ONCE)
        np.einsum("pw,pw->p", items[rows[some]], queries[query_rows[some]], out=products[some])
    return products


def _pairs(near: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    query, column = np.nonzero(near >= 0)
    return query, near[query, column]


def _first_largest(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(groups,) position of the first largest value of each group."""
    largest = np.repeat(np.maximum.reduceat(values, offsets[:-1]), np.diff(offsets))
    positions = np.where(values >= largest, np.arange(len(values)), len(values))
    return np.minimum.reduceat(positions, offsets[:-1])
