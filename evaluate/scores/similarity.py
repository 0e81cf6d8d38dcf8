"""Global, segment and fused scores of texts with clips (docs/method.md), and ranks in blocks.

Legend of the suffixes: T texts, N clips, R sentences of the texts, S segments of the clips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, assert_never

import numpy as np

from ...data_manifests.cards.scoring_rules import Direction, TiePolicy
from ...extract.cache.ragged import Ragged, offsets_of, ragged_rows
from ..config import SegmentScoreConfig
from .ranks import Ranks, join_ranks, ranks_of_groups
from .vectors import TwoLevelVectors

BLOCK_BYTES: Final = 64 * 2**20
"""Bound of one block of similarities; the rest of the working memory is a few times that."""
PAIRED_TEXTS: Final = 512
"""Texts whose pairs with their own segments are gathered at once; bounds memory."""

Normalise = Callable[[np.ndarray], np.ndarray]
"""A block of scores (queries, items), with all items of its queries, to those that rank instead."""


def level_scores(
    texts: TwoLevelVectors, clips: TwoLevelVectors, *, config: SegmentScoreConfig
) -> tuple[np.ndarray, np.ndarray]:
    """The global and the segment score of every text with every clip, (T, N) float32 each.

    global: cosine of the wholes. segment: for each sentence the pooled similarity with the clip's
    segments, then the mean over sentences (late interaction; docs/method.md, Scores).
    """
    global_TN = texts.wholes @ clips.wholes.T
    pooled_RN = pool_segments(texts.parts @ clips.parts.T, clips.offsets, config=config)
    if len(texts.parts) == len(texts):
        return global_TN, pooled_RN
    sums_TN = np.add.reduceat(pooled_RN, texts.offsets[:-1], axis=0)
    return global_TN, sums_TN / texts.part_counts[:, None].astype(np.float32)


def fuse(global_scores: np.ndarray, segment_scores: np.ndarray, *, weight: float) -> np.ndarray:
    """weight * global + (1 - weight) * segment; 1 and 0 give the very arrays."""
    if weight == 1.0:
        return global_scores
    if weight == 0.0:
        return segment_scores
    a = np.float32(weight)
    fused: np.ndarray = a * global_scores + (np.float32(1) - a) * segment_scores
    return fused


def pool_segments(
    similarities_RS: np.ndarray, offsets: np.ndarray, *, config: SegmentScoreConfig
) -> np.ndarray:
    """(R, N): the similarities with each clip's segments made one. offsets: (N + 1,).

    Training pools by the same formulas in torch (align/objective/objective.py); a test compares
    them.
    """
    starts, counts = offsets[:-1], np.diff(offsets)
    if len(starts) == 0:
        return np.zeros((len(similarities_RS), 0), dtype=similarities_RS.dtype)
    match config.pooling:
        case "max":
            return np.maximum.reduceat(similarities_RS, starts, axis=1)
        case "top_mean":
            return _mean_of_top(similarities_RS, starts, counts, top_k=config.top_k)
        case "softmax":
            best_RN = np.maximum.reduceat(similarities_RS, starts, axis=1)
            shifted = similarities_RS - np.repeat(best_RN, counts, axis=1)
            weights = np.exp(shifted / np.float32(config.temperature))
            total_RN = np.add.reduceat(weights * similarities_RS, starts, axis=1)
            pooled: np.ndarray = total_RN / np.add.reduceat(weights, starts, axis=1)
            return pooled
        case _:
            assert_never(config.pooling)


def own_clip_similarities(
    texts: np.ndarray, clips: np.ndarray, *, segments: np.ndarray, segment_offsets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Each text with the segments of its own clip only: (P,) float32 end to end, (n + 1,) offsets.

    texts: (n, W).   clips: (n,) int64.   segments, segment_offsets: as in SplitFeatures.
    """
    counts = np.diff(segment_offsets)[clips]
    offsets = offsets_of(counts)
    similarities = np.empty(int(offsets[-1]), dtype=np.float32)
    for first in range(0, len(texts), PAIRED_TEXTS):
        last = min(first + PAIRED_TEXTS, len(texts))
        pairs = slice(int(offsets[first]), int(offsets[last]))
        rows, of_text = ragged_rows(segment_offsets, clips[first:last])
        left, right = texts[first:last][of_text], segments[rows]
        similarities[pairs] = np.einsum("pw,pw->p", left, right)
    return similarities, offsets


def _mean_of_top(
    similarities_RS: np.ndarray, starts: np.ndarray, counts: np.ndarray, *, top_k: int
) -> np.ndarray:
    means_RN = np.empty((len(similarities_RS), len(starts)), dtype=similarities_RS.dtype)
    for count in np.unique(counts):  # clips with equally many segments make one dense array
        clips = np.flatnonzero(counts == count)
        dense = similarities_RS[:, starts[clips][:, None] + np.arange(count)]
        cut = int(count - min(top_k, count))
        means_RN[:, clips] = np.partition(dense, cut, axis=2)[:, :, cut:].mean(axis=2)
    return means_RN


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreBlock:
    """Q queries one after the other with all of their items, by one weight of the global score."""

    weight: int
    """Which of the weights."""
    start: int
    """Position of the first query."""
    scores: np.ndarray
    """(Q, items) float32, as they are: not normalised, items of a group each by itself."""


def retrieval_ranks(
    texts: TwoLevelVectors,
    clips: TwoLevelVectors,
    correct: Ragged,
    *,
    direction: Direction,
    weights: Sequence[float],
    segment_score: SegmentScoreConfig,
    normalise: Sequence[Normalise] | None = None,
    groups: Ragged | None = None,
    ties: TiePolicy = "against",
    watch: Callable[[ScoreBlock], None] = lambda block: None,
    block_bytes: int = BLOCK_BYTES,
) -> list[Ranks]:
    """Ranks under a * global + (1 - a) * segment for each weight a; 1 is global, 0 is segment.

    correct: for text_to_clip each text's clips, for clip_to_text each clip's texts.
    normalise: for each weight what to do to its scores before they are compared.
    groups: items that are one, by the best of their scores; `correct` then counts the groups.
    watch: is shown all scores, block by block.
    """
    ranks_by_weight: list[list[Ranks]] = [[] for _ in weights]
    for start, stop, by_weight in score_blocks(
        texts,
        clips,
        direction=direction,
        weights=weights,
        segment_score=segment_score,
        block_bytes=block_bytes,
    ):
        block_correct = correct.slice(start, stop)
        for k, scores_QI in enumerate(by_weight):
            watch(ScoreBlock(weight=k, start=start, scores=scores_QI))
            ranked = scores_QI if normalise is None else normalise[k](scores_QI)
            ranks_by_weight[k].append(
                ranks_of_groups(ranked, block_correct, groups=groups, ties=ties)
            )
    return [join_ranks(parts) for parts in ranks_by_weight]


def score_blocks(
    texts: TwoLevelVectors,
    clips: TwoLevelVectors,
    *,
    direction: Direction,
    weights: Sequence[float],
    segment_score: SegmentScoreConfig,
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[tuple[int, int, Iterator[np.ndarray]]]:
    """Ranges of queries, start to stop, with their (queries, items) scores for each weight.

    Each block holds all items of its queries: a right item's score and its rivals' come from one
    product.
    """
    queries, items = (texts, clips) if direction == "text_to_clip" else (clips, texts)
    for start, stop in blocks(queries, items, block_bytes=block_bytes):
        if direction == "text_to_clip":
            levels = level_scores(texts.slice(start, stop), clips, config=segment_score)
        else:
            by_text = level_scores(texts, clips.slice(start, stop), config=segment_score)
            levels = by_text[0].T, by_text[1].T
        yield start, stop, (fuse(*levels, weight=weight) for weight in weights)


def blocks(
    queries: TwoLevelVectors, items: TwoLevelVectors, *, block_bytes: int
) -> Iterator[tuple[int, int]]:
    """Ranges of queries whose similarities with all parts of all items fit in `block_bytes`."""
    if len(queries) == 0:
        return
    bytes_per_query = 4 * int(queries.part_counts.max()) * max(1, len(items.parts))
    step = max(1, block_bytes // bytes_per_query)
    for start in range(0, len(queries), step):
        yield start, min(start + step, len(queries))
