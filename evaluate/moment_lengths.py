"""mAP of moments by the length of the true window: long, middle and short (QVHighlights)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ..align.model import AlignmentModel
from ..extract.store import SplitFeatures
from .config import MomentConfig
from .moments import SCORE, MomentTask, predict_moments
from .queries import Scored, TaskQueries
from .ranks import Ranks
from .scoring import Embeddings
from .window_precision import window_metrics, window_precisions_of, windows_in_range

LENGTHS: Final = ("long", "middle", "short")


@dataclass(frozen=True, kw_only=True, slots=True)
class LengthTask:
    """The queries that have windows of one length."""

    queries: TaskQueries
    """Q queries; guessing is not worked out for mAP, so chance is 0."""
    texts: np.ndarray
    """(Q,) int64, a text of each query."""
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
        found.append(LengthTask(queries=queries, texts=task.first_texts[rows], windows=own_windows))
    return found


def score_lengths(
    task: LengthTask,
    features: SplitFeatures,
    embeddings: Embeddings,
    encoder: AlignmentModel | None,
    *,
    config: MomentConfig,
) -> dict[str, Scored]:
    """mAP, mAP@0.5 and mAP@0.75 in percent; windows of other lengths neither help nor harm."""
    predicted = [
        predict_moments(features, embeddings, encoder, text=row, config=config)
        for row in task.texts.tolist()
    ]
    precisions = window_precisions_of(predicted, task.windows)
    missed = np.ones(len(predicted), dtype=np.int64)
    ranks = Ranks(ranks=missed, tied=np.zeros(len(predicted), dtype=bool))
    return {SCORE: Scored(ranks=ranks, values=window_metrics(precisions))}
