"""Scores and ranks of texts with clips a block of queries at a time: never the whole matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ..data_manifests.scoring_rules import Direction, TiePolicy
from ..extract.ragged import Ragged
from .config import SegmentScoreConfig
from .ranks import Ranks, join_ranks, ranks_of_groups
from .scoring import TwoLevelVectors, fuse, level_scores

BLOCK_BYTES: Final = 64 * 2**20
"""Bound of one block of similarities; the rest of the working memory is a few times that."""


Normalise = Callable[[np.ndarray], np.ndarray]
"""A block of scores (queries, items), with all items of its queries, to those that rank instead."""


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
    found: list[list[Ranks]] = [[] for _ in weights]
    for start, stop, by_weight in score_blocks(
        texts,
        clips,
        direction=direction,
        weights=weights,
        segment_score=segment_score,
        block_bytes=block_bytes,
    ):
        own = correct.slice(start, stop)
        for k, scores_QI in enumerate(by_weight):
            watch(ScoreBlock(weight=k, start=start, scores=scores_QI))
            ranked = scores_QI if normalise is None else normalise[k](scores_QI)
            found[k].append(ranks_of_groups(ranked, own, groups=groups, ties=ties))
    return [join_ranks(parts) for parts in found]


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
