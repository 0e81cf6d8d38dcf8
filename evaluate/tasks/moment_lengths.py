"""mAP of moments by the length of the true window: long, middle and short (QVHighlights)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ...extract.cache.store import SplitFeatures
from ..scores.average_precision import window_metrics, window_precisions_of, windows_in_range
from ..scores.queries import Scored, TaskQueries
from ..scores.ranks import ranks_of_hits
from .moments import SCORE, MomentTask

LENGTHS: Final = ("long", "middle", "short")


@dataclass(frozen=True, kw_only=True, slots=True)
class LengthTask:
    """The queries that have windows of one length."""

    queries: TaskQueries
    """Q queries; guessing is not worked out for mAP, so chance is 0."""
    rows: np.ndarray
    """(Q,) int64, which of the moments' queries they are."""
    windows: list[np.ndarray]
    """Q times (m, 2) seconds, the windows of that length."""


def length_tasks(task: MomentTask, features: SplitFeatures) -> list[LengthTask]:
    """Those of the lengths that occur."""
    found = []
    for name in LENGTHS:
        windows = [
            windows_in_range(task.spans(features, query), name) for query in range(len(task.texts))
        ]
        rows = [query for query, own in enumerate(windows) if len(own)]
        if not rows:
            continue
        queries = TaskQueries(
            name=f"{name}_moments",
            kind="moments",
            query_ids=[task.queries.query_ids[query] for query in rows],
            clips=task.queries.clips[rows],
            chance=0.0,
            main_metric="mAP",
        )
        own_windows = [windows[query] for query in rows]
        found.append(LengthTask(queries=queries, rows=np.array(rows), windows=own_windows))
    return found


def score_lengths(task: LengthTask, predicted: Sequence[np.ndarray]) -> dict[str, Scored]:
    """mAP, mAP@0.5 and mAP@0.75 in percent; windows of other lengths neither help nor harm.

    predicted: of each of the moments' queries (n, 3), by `moments.predictions_of`.
    """
    own = [predicted[row] for row in task.rows]
    precisions = window_precisions_of(own, task.windows)
    ranks = ranks_of_hits(np.zeros(len(own), dtype=bool))
    return {SCORE: Scored(ranks=ranks, values=window_metrics(precisions))}
