"""Ranks from a whole matrix of texts and videos, under each peer's rule for ties and captions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

import numpy as np

from .config import CaptionRule, TiePolicy


@dataclass(frozen=True, kw_only=True, slots=True)
class MatrixRanks:
    """Ranks of Q queries; a query has one, however many items tie with it (trap 1)."""

    ranks: np.ndarray
    """(Q,) float64, 0-based; halves are possible with the policy `mean`."""
    num_tied: int
    """Queries of which a wrong item scores as the right one does."""


def item_ranks(
    scores_QI: np.ndarray, truth_Q: np.ndarray, *, ties: TiePolicy, resolution: float = 0.0
) -> MatrixRanks:
    """Rank of each query's right item.

    scores_QI: (queries, items), higher is closer.   truth_Q: (queries,) item index.
    ties: against us, the mean of the tied ranks (CE, frozen-in-time), or the items' order, as a
    stable descending sort leaves them (X-Pool, LAVIS).
    resolution: scores that are no farther apart are equal.
    """
    own_Q1 = np.take_along_axis(scores_QI, truth_Q[:, None], axis=1)
    step = np.asarray(resolution, dtype=own_Q1.dtype)
    above_QI = scores_QI > own_Q1 + step
    above_Q = np.count_nonzero(above_QI, axis=1)
    equal_QI = (scores_QI >= own_Q1 - step) & ~above_QI
    others_Q = np.count_nonzero(equal_QI, axis=1) - 1
    match ties:
        case "against":
            extra_Q = others_Q.astype(np.float64)
        case "mean":
            extra_Q = others_Q / 2.0
        case "first":
            before_QI = np.arange(scores_QI.shape[1]) < truth_Q[:, None]
            extra_Q = np.count_nonzero(equal_QI & before_QI, axis=1).astype(np.float64)
        case _:
            assert_never(ties)
    return MatrixRanks(ranks=above_Q + extra_Q, num_tied=int(np.count_nonzero(others_Q)))


def video_to_text_ranks(
    scores_TV: np.ndarray,
    video_of_T: np.ndarray,
    *,
    captions: CaptionRule,
    ties: TiePolicy,
    resolution: float = 0.0,
) -> MatrixRanks:
    """Ranks of the videos' own captions (trap 2).

    scores_TV: (texts, videos).   video_of_T: (texts,) index of each text's video; each has one.
    clips: a video's captions count by their best score, and videos are ranked (CLIP4Clip, X-Pool).
    captions: the best own caption's rank among all captions; the other own captions level with it
    do not count (LAVIS), but with the policy `mean`, where they are ties like others (CE,
    frozen-in-time).
    """
    num_videos = scores_TV.shape[1]
    order = np.argsort(video_of_T, kind="stable")
    starts = np.searchsorted(video_of_T[order], np.arange(num_videos))
    by_video_VV = np.maximum.reduceat(scores_TV[order], starts, axis=0).T
    if captions == "clips":
        return item_ranks(by_video_VV, np.arange(num_videos), ties=ties, resolution=resolution)
    ranks_V, num_tied = np.empty(num_videos), 0
    for video, best in enumerate(np.diagonal(by_video_VV)):
        own_T = video_of_T == video
        wrong = np.where(own_T, -np.inf, scores_TV[:, video])
        first = int(np.flatnonzero(own_T & (scores_TV[:, video] == best))[0])
        wrong[first] = best
        found = item_ranks(wrong[None], np.array([first]), ties=ties, resolution=resolution)
        level = np.count_nonzero(scores_TV[own_T, video] >= best - resolution)
        ranks_V[video] = found.ranks[0] + ((level - 1) / 2 if ties == "mean" else 0)
        num_tied += found.num_tied
    return MatrixRanks(ranks=ranks_V, num_tied=num_tied)
