"""Exact ranks of the right items by counting: no sort."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, assert_never

import numpy as np

from ...data_manifests.cards.scoring_rules import TiePolicy
from ...extract.cache.ragged import Ragged

SCORE_RESOLUTION: Final = 1e-6
"""Scores that are no farther apart are one score, a tie. A float32 matrix product gives the same
pair of unit vectors values up to 3e-7 apart (measured, width 64 and 512), by where in the matrix it
stands; without the tolerance a duplicated caption would win or lose by luck."""

Threshold = tuple[np.ufunc, np.ndarray]
"""A comparison, and what the scores of each query are compared with."""
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
    first; None where every query has one, whose place is the rank, or where they are not wanted."""


def ranks_of_hits(is_hit: np.ndarray) -> Ranks:
    """(Q,) bool of queries that are right or wrong as a whole: first, or behind it."""
    return Ranks(ranks=np.where(is_hit, 0, 1), tied=np.zeros(len(is_hit), dtype=bool))


def ranks_of_correct(
    scores_QI: np.ndarray,
    correct: Ragged,
    *,
    ties: TiePolicy = "against",
    resolution: float = SCORE_RESOLUTION,
    with_places: bool = True,
) -> Ranks:
    """How many wrong items score at least as high as the best right item of each query.

    scores_QI: (queries, items), higher is closer.   correct: each query's right items; where there
    are several, the rank is the best one's, and the others neither help nor harm it, but for those
    level with it under `mean`.
    resolution: scores that are no farther apart are equal.
    ties: whether equal items rank before the right one, at their mean, or in the items' order.
    with_places: whether those of queries with several right items are wanted, which takes longer.
    """
    correct.refuse_empty()
    if len(correct) == 0:
        return Ranks(ranks=np.zeros(0, dtype=np.int64), tied=np.zeros(0, dtype=bool))
    rows = np.repeat(np.arange(len(correct)), correct.counts)
    starts = correct.offsets[:-1]
    correct_scores = scores_QI[rows, correct.values]
    best_Q = np.maximum.reduceat(correct_scores, starts)
    step = scores_QI.dtype.type(resolution)
    at_least_Q, above_Q = best_Q - step, best_Q + step
    is_right = np.stack([correct_scores >= at_least_Q[rows], correct_scores > above_Q[rows]])
    right_2Q = np.add.reduceat(is_right.astype(np.int64), starts, axis=1)
    ranks, above = num_reaching(scores_QI, at_least_Q, above_Q) - right_2Q
    needs_places = with_places and int(correct.counts.max()) > 1
    return Ranks(
        ranks=_by_policy(
            scores_QI,
            correct,
            above,
            ranks,
            own_level_Q=right_2Q[0] - right_2Q[1],
            ties=ties,
            resolution=step,
        ),
        tied=above < ranks,
        places=_places(scores_QI, correct, ties=ties, resolution=step) if needs_places else None,
    )


def ranks_of_groups(
    scores_QI: np.ndarray,
    correct: Ragged,
    *,
    groups: Ragged | None,
    ties: TiePolicy,
    resolution: float = SCORE_RESOLUTION,
    with_places: bool = True,
) -> Ranks:
    """`ranks_of_correct` where the items of a group are one, by the best of their scores; `correct`
    then counts the groups. None: every item is its own."""
    if groups is not None:
        groups.refuse_empty()
        scores_QI = np.maximum.reduceat(scores_QI[:, groups.values], groups.offsets[:-1], axis=1)
    return ranks_of_correct(
        scores_QI, correct, ties=ties, resolution=resolution, with_places=with_places
    )


def ranks_in_lists(scores_P: np.ndarray, is_right_P: np.ndarray, offsets: np.ndarray) -> Ranks:
    """`ranks_of_correct` where each query has items of its own, end to end; ties count against us.

    scores_P, is_right_P: (P,).   offsets: (Q + 1,): query q has items [offsets[q], offsets[q + 1]),
    a right one among them.
    """
    starts, counts = offsets[:-1], np.diff(offsets)
    best_Q = np.maximum.reduceat(np.where(is_right_P, scores_P, -np.inf), starts)
    step = scores_P.dtype.type(SCORE_RESOLUTION)
    at_least_P, above_P = np.repeat(best_Q - step, counts), np.repeat(best_Q + step, counts)
    wrong_2P = ~is_right_P & np.stack([scores_P >= at_least_P, scores_P > above_P])
    ranks, above = np.add.reduceat(wrong_2P.astype(np.int64), starts, axis=1)
    return Ranks(ranks=ranks, tied=above < ranks)


def num_reaching(scores_QI: np.ndarray, at_least_Q: np.ndarray, above_Q: np.ndarray) -> np.ndarray:
    """(2, Q) int64: how many items of each query reach one threshold, and exceed the other.

    scores_QI: (queries, items), in either order in memory.
    """
    counts_2Q = np.zeros((2, len(scores_QI)), dtype=np.int64)
    thresholds = ((np.greater_equal, at_least_Q), (np.greater, above_Q))
    if scores_QI.strides[0] < scores_QI.strides[1]:
        _count_by_item(scores_QI.T, thresholds, counts_2Q)
    else:
        _count_by_query(scores_QI, thresholds, counts_2Q)
    return counts_2Q


def _count_by_query(
    scores_QI: np.ndarray, thresholds: Sequence[Threshold], counts_2Q: np.ndarray
) -> None:
    num_queries, num_items = scores_QI.shape
    at_once = max(1, CACHED_SCORES // max(1, num_items))
    # Bits of whole words: counting bytes takes half as long again (27,763 x 670, one core).
    reached = np.zeros((min(at_once, num_queries), -(-num_items // 64) * 64), dtype=bool)
    for start in range(0, num_queries, at_once):
        rows = slice(start, min(start + at_once, num_queries))
        padded = reached[: rows.stop - start]
        for k, (compare, threshold_Q) in enumerate(thresholds):
            compare(scores_QI[rows], threshold_Q[rows, None], out=padded[:, :num_items])
            words = np.packbits(padded).view(np.uint64).reshape(len(padded), -1)
            counts_2Q[k, rows] = np.bitwise_count(words).sum(axis=1, dtype=np.int64)


def _count_by_item(
    scores_IQ: np.ndarray, thresholds: Sequence[Threshold], counts_2Q: np.ndarray
) -> None:
    """The same where the scores of an item lie side by side: bytes of several items are added."""
    num_items, num_queries = scores_IQ.shape
    at_once = min(np.iinfo(np.uint8).max, max(1, CACHED_SCORES // max(1, num_queries)))
    for start in range(0, num_items, at_once):
        for k, (compare, threshold_Q) in enumerate(thresholds):
            reached = compare(scores_IQ[start : start + at_once], threshold_Q)
            counts_2Q[k] += np.add.reduce(reached.view(np.uint8), axis=0, dtype=np.uint8)


def _by_policy(
    scores_QI: np.ndarray,
    correct: Ragged,
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
            for query in np.flatnonzero(above_Q < at_least_Q).tolist():
                right = correct[query]
                right_scores = scores_QI[query, right]
                first = right[right_scores >= right_scores.max() - resolution].min()
                level = np.abs(scores_QI[query, :first] - right_scores.max()) <= resolution
                ranks[query] += level.sum() - level[right[right < first]].sum()
            return ranks
        case _:
            assert_never(ties)


def _places(
    scores_QI: np.ndarray,
    correct: Ragged,
    *,
    ties: TiePolicy,
    resolution: np.floating[Any],
) -> np.ndarray:
    """(R,) places of all right items. Equal wrong ones are before them, at their mean, or in the
    items' order."""
    places = []
    for query, row in enumerate(scores_QI):
        right = np.sort(correct[query])
        right = right[np.argsort(-row[right], kind="stable")]
        right_scores, wrong = row[right], np.delete(row, right)
        at_least = _num_before(wrong, right_scores - resolution, side="right")
        above = _num_before(wrong, right_scores + resolution, side="left")
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
                    wrong_before[k] += (np.abs(earlier - right_scores[k]) <= resolution).sum()
                # Right items that are level but not equal may stand in another order.
                wrong_before.sort()
            case _:
                assert_never(ties)
        places.append(wrong_before + np.arange(len(right)))
    return np.concatenate(places).astype(np.float64)


def _num_before(
    scores: np.ndarray, thresholds_falling: np.ndarray, *, side: Literal["left", "right"]
) -> np.ndarray:
    """For each threshold, largest first, how many scores reach it (right) or exceed it (left)."""
    rising = thresholds_falling[::-1]
    reached = np.bincount(np.searchsorted(rising, scores, side=side), minlength=len(rising) + 1)
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
