"""Exact ranks of the right items by counting: no sort."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, assert_never

import numpy as np

from .config import TiePolicy
from .index_lists import IndexLists

SCORE_RESOLUTION: Final = 1e-6
"""Scores nearer than this are one score, a tie. A float32 matrix product gives the very same pair
of unit vectors values up to 3e-7 apart (measured, width 64 and 512), by where in the matrix it
stands; without the tolerance a duplicated caption would win or lose by luck."""

CACHED_SCORES: Final = 2**18
"""Scores that are counted at once, 1 MiB: they are read from memory once for both thresholds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranks:
    """Ranks of Q queries."""

    ranks: np.ndarray
    """(Q,) int64, 0-based rank of the best right item; float64, halves among them, where ties rank
    at their mean."""
    tied: np.ndarray
    """(Q,) bool, whether a wrong item has the same score as the best right one."""
    places: np.ndarray | None = None
    """(R,) float64, 0-based places of all right items among all items, queries end to end and best
    first; None where every query has one, whose place is the rank."""


def ranks_of_hits(is_hit: np.ndarray) -> Ranks:
    """(Q,) bool of queries that are right or wrong as a whole: first, or behind it."""
    return Ranks(ranks=np.where(is_hit, 0, 1), tied=np.zeros(len(is_hit), dtype=bool))


def ranks_of_correct(
    scores_QI: np.ndarray,
    correct: IndexLists,
    *,
    ties: TiePolicy = "against",
    resolution: float = SCORE_RESOLUTION,
) -> Ranks:
    """How many wrong items score at least as high as the best right item of each query.

    scores_QI: (queries, items), higher is closer.   correct: each query's right items; where there
    are several, the rank is the best one's, and the others neither help nor harm it, but for those
    level with it under `mean`.
    ties: whether equal items rank before the right one, at their mean, or in the items' order.
    """
    rows = np.repeat(np.arange(len(correct)), correct.counts)
    starts = correct.offsets[:-1]
    correct_scores = scores_QI[rows, correct.indices]
    best_Q = np.maximum.reduceat(correct_scores, starts) if len(correct) else np.zeros(0)

    if len(correct) == 0:
        return Ranks(ranks=np.zeros(0, dtype=np.int64), tied=np.zeros(0, dtype=bool))
    resolution_32 = scores_QI.dtype.type(resolution)
    thresholds_2Q = np.stack([best_Q - resolution_32, best_Q + resolution_32])
    right_2Q = np.add.reduceat(
        (correct_scores >= thresholds_2Q[:, rows]).astype(np.int64), starts, axis=1
    )
    ranks, above = num_at_least(scores_QI, thresholds_2Q) - right_2Q
    several = int(correct.counts.max()) > 1
    return Ranks(
        ranks=_by_policy(
            scores_QI,
            correct,
            above,
            ranks,
            own_level_Q=right_2Q[0] - right_2Q[1],
            ties=ties,
            resolution=resolution_32,
        ),
        tied=above < ranks,
        places=_places(scores_QI, correct, ties=ties, resolution=resolution_32)
        if several
        else None,
    )


def ranks_of_groups(
    scores_QI: np.ndarray, correct: IndexLists, *, groups: IndexLists | None, ties: TiePolicy
) -> Ranks:
    """`ranks_of_correct` where the items of a group are one, by the best of their scores; `correct`
    then counts the groups. None: every item is its own."""
    if groups is not None:
        scores_QI = np.maximum.reduceat(scores_QI[:, groups.indices], groups.offsets[:-1], axis=1)
    return ranks_of_correct(scores_QI, correct, ties=ties)


def num_at_least(scores_QI: np.ndarray, thresholds_KQ: np.ndarray) -> np.ndarray:
    """(K, Q) int64: for each threshold of each query, how many of its items reach it.

    scores_QI: (queries, items), in either order in memory.   thresholds_KQ: (K, queries).
    """
    counts_KQ = np.zeros(thresholds_KQ.shape, dtype=np.int64)
    if scores_QI.strides[0] < scores_QI.strides[1]:
        _count_by_item(scores_QI.T, thresholds_KQ, counts_KQ)
    else:
        _count_by_query(scores_QI, thresholds_KQ, counts_KQ)
    return counts_KQ


def _count_by_query(
    scores_QI: np.ndarray, thresholds_KQ: np.ndarray, counts_KQ: np.ndarray
) -> None:
    num_queries, num_items = scores_QI.shape
    at_once = max(1, CACHED_SCORES // max(1, num_items))
    # Bits of whole words: counting bytes takes half as long again (27,763 x 670, one core).
    reached = np.zeros((min(at_once, num_queries), -(-num_items // 64) * 64), dtype=bool)
    for start in range(0, num_queries, at_once):
        rows = slice(start, min(start + at_once, num_queries))
        padded = reached[: rows.stop - start]
        for k, thresholds_Q in enumerate(thresholds_KQ):
            np.greater_equal(scores_QI[rows], thresholds_Q[rows, None], out=padded[:, :num_items])
            words = np.packbits(padded).view(np.uint64).reshape(len(padded), -1)
            counts_KQ[k, rows] = np.bitwise_count(words).sum(axis=1, dtype=np.int64)


def _count_by_item(scores_IQ: np.ndarray, thresholds_KQ: np.ndarray, counts_KQ: np.ndarray) -> None:
    """The same where the scores of an item lie side by side: bytes of several items are added."""
    num_items, num_queries = scores_IQ.shape
    at_once = min(np.iinfo(np.uint8).max, max(1, CACHED_SCORES // max(1, num_queries)))
    for start in range(0, num_items, at_once):
        for k, thresholds_Q in enumerate(thresholds_KQ):
            reached = scores_IQ[start : start + at_once] >= thresholds_Q
            counts_KQ[k] += np.add.reduce(reached.view(np.uint8), axis=0, dtype=np.uint8)


def _by_policy(
    scores_QI: np.ndarray,
    correct: IndexLists,
    above_Q: np.ndarray,
    at_least_Q: np.ndarray,
    *,
    own_level_Q: np.ndarray,
    ties: TiePolicy,
    resolution: np.floating[Any],
) -> np.ndarray:
    """(Q,) ranks, from how many wrong items are above the best right one, and above or level, and
    how many right ones are level, itself among them."""
    match ties:
        case "against":
            return at_least_Q
        case "mean":
            # The other right items that are level count as ties here, as in CE.
            return np.asarray((above_Q + at_least_Q + own_level_Q - 1) / 2.0)
        case "first":
            ranks: np.ndarray = above_Q.copy()
            for query in np.flatnonzero(above_Q < at_least_Q):
                right = correct.indices[slice(*correct.offsets[query : query + 2])]
                own = scores_QI[query, right]
                first = right[own >= own.max() - resolution].min()
                level = np.abs(scores_QI[query, :first] - own.max()) <= resolution
                ranks[query] += level.sum() - level[right[right < first]].sum()
            return ranks
        case _:
            assert_never(ties)


def _places(
    scores_QI: np.ndarray,
    correct: IndexLists,
    *,
    ties: TiePolicy,
    resolution: np.floating[Any],
) -> np.ndarray:
    """(R,) places of all right items. Equal wrong ones are before them, at their mean, or in the
    items' order."""
    places = []
    for query, row in enumerate(scores_QI):
        right = np.sort(correct.indices[slice(*correct.offsets[query : query + 2])])
        right = right[np.argsort(-row[right], kind="stable")]
        own, wrong = row[right], np.delete(row, right)
        at_least = _num_reaching(wrong, own - resolution)
        above = _num_reaching(wrong, own + resolution)
        match ties:
            case "against":
                wrong_before = at_least
            case "mean":
                wrong_before = (at_least + above) / 2.0
            case "first":
                wrong_before = above.copy()
                is_wrong = np.ones(len(row), dtype=bool)
                is_wrong[right] = False
                for k in np.flatnonzero(above < at_least):
                    earlier = row[: right[k]][is_wrong[: right[k]]]
                    wrong_before[k] += (np.abs(earlier - own[k]) <= resolution).sum()
                # Right items that are level but not equal may stand in another order.
                wrong_before.sort()
            case _:
                assert_never(ties)
        places.append(wrong_before + np.arange(len(right)))
    return np.concatenate(places).astype(np.float64)


def _num_reaching(scores: np.ndarray, thresholds_falling: np.ndarray) -> np.ndarray:
    """For each threshold, largest first, how many of the scores reach it."""
    rising = thresholds_falling[::-1]
    reached = np.bincount(np.searchsorted(rising, scores, side="right"), minlength=len(rising) + 1)
    return np.asarray(reached[:0:-1].cumsum())


def join_ranks(parts: Sequence[Ranks]) -> Ranks:
    """Those of blocks of queries, end to end."""
    several = any(part.places is not None for part in parts)
    places = [part.ranks if part.places is None else part.places for part in parts]
    return Ranks(
        ranks=np.concatenate([part.ranks for part in parts] or [np.zeros(0, dtype=np.int64)]),
        tied=np.concatenate([part.tied for part in parts] or [np.zeros(0, dtype=bool)]),
        places=np.concatenate(places).astype(np.float64) if several else None,
    )
