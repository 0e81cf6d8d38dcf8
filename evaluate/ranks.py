"""Exact ranks of the right items, in blocks: no sort, and never the whole score matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from .config import Direction, SegmentScoreConfig
from .index_lists import IndexLists
from .scoring import TwoLevelVectors, fuse, level_scores

SCORE_RESOLUTION: Final = 1e-6
"""Scores nearer than this are one score, a tie. A float32 matrix product gives the very same pair
of unit vectors values up to 3e-7 apart (measured, width 64 and 512), by where in the matrix it
stands; without the tolerance a duplicated caption would win or lose by luck."""

BLOCK_BYTES: Final = 64 * 2**20
"""Bound of one block of similarities; the rest of the working memory is a few times that."""


Normalise = Callable[[np.ndarray], np.ndarray]
"""A block of scores (queries, items), with all items of its queries, to those that rank instead."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranks:
    """Ranks of Q queries."""

    ranks: np.ndarray
    """(Q,) int64, 0-based rank of the best right item; ties count against us."""
    tied: np.ndarray
    """(Q,) bool, whether a wrong item has the same score as the best right one."""


def ranks_of_correct(
    scores_QI: np.ndarray, correct: IndexLists, *, resolution: float = SCORE_RESOLUTION
) -> Ranks:
    """How many wrong items score at least as high as the best right item of each query.

    scores_QI: (queries, items), higher is closer.   correct: each query's right items; where there
    are several, the best one counts and the others neither help nor harm.
    """
    rows = np.repeat(np.arange(len(correct)), correct.counts)
    starts = correct.offsets[:-1]
    correct_scores = scores_QI[rows, correct.indices]
    best_Q = np.maximum.reduceat(correct_scores, starts) if len(correct) else np.zeros(0)

    def wrong_items(threshold_Q: np.ndarray) -> np.ndarray:
        # Bits: counting bytes along an axis takes half as long again (27,763 x 670, one core).
        at_least = np.packbits(scores_QI >= threshold_Q[:, None], axis=1)
        every = np.bitwise_count(at_least).sum(axis=1, dtype=np.int64)
        right: np.ndarray = np.add.reduceat(
            (correct_scores >= threshold_Q[rows]).astype(np.int64), starts
        )
        return np.asarray(every - right)

    if len(correct) == 0:
        return Ranks(ranks=np.zeros(0, dtype=np.int64), tied=np.zeros(0, dtype=bool))
    resolution_32 = scores_QI.dtype.type(resolution)
    ranks = wrong_items(best_Q - resolution_32)
    return Ranks(ranks=ranks, tied=wrong_items(best_Q + resolution_32) < ranks)


def retrieval_ranks(
    texts: TwoLevelVectors,
    clips: TwoLevelVectors,
    correct: IndexLists,
    *,
    direction: Direction,
    weights: Sequence[float],
    segment_score: SegmentScoreConfig,
    normalise: Sequence[Normalise] | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> list[Ranks]:
    """Ranks under a * global + (1 - a) * segment for each weight a; 1 is global, 0 is segment.

    correct: for text_to_clip each text's clips, for clip_to_text each clip's texts.
    normalise: for each weight what to do to its scores before they are compared.
    """
    found: list[list[Ranks]] = [[] for _ in weights]
    for start, stop, by_weight in score_blocks(
        texts,
        clips,
        direction=direction,
        weights=weights,
        segment_score=segment_score,
        block_bytes=block_bytes,
    ):
        for k, scores_QI in enumerate(by_weight):
            ranked = scores_QI if normalise is None else normalise[k](scores_QI)
            found[k].append(ranks_of_correct(ranked, correct.slice(start, stop)))
    return [_join(parts) for parts in found]


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


def _join(parts: Sequence[Ranks]) -> Ranks:
    return Ranks(
        ranks=np.concatenate([part.ranks for part in parts] or [np.zeros(0, dtype=np.int64)]),
        tied=np.concatenate([part.tied for part in parts] or [np.zeros(0, dtype=bool)]),
    )
