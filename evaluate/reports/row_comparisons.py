"""Rows side by side: their differences with intervals, and the queries that they part on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ...extract.cache.split_features import SplitFeatures
from ..evaluation import Evaluation
from ..inputs.splits import ClipVideos
from ..scores.queries import Scored, TaskQueries
from ..statistics.summaries import RowOutcome
from .figures import Difference, differences
from .gallery import GalleryClip, gallery_clip

SHOWN_QUERIES: Final = 6
"""On which rows part most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RowResult:
    """What a row (its first run) made of a query."""

    row: str
    rank: float
    """Of the right clip; 1 is the best."""
    first: GalleryClip | None
    """The clip that it puts first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedQuery:
    """A query that some row finds and another does not."""

    text: str
    right: GalleryClip
    """The clip it is about."""
    by_row: tuple[RowResult, ...]
    """In the order of the rows."""


def comparison_figure(evaluation: Evaluation) -> str | None:
    """Each row less the baseline, on the main metric of every task, by its last score; None when
    there is nothing to compare."""
    main = {task.name: task.main_metric for task in evaluation.tasks}
    score = {
        summary.task: summary.score  # the last one stays: fused, or the task's own
        for summaries in evaluation.summaries.values()
        for summary in summaries
    }
    rows = [row.name for row in evaluation.plain_rows]
    bars = [
        Difference(
            group=f"{item.task.replace('_', ' ')} {item.metric}",
            name=item.row,
            colour=rows.index(item.row),
            value=item.difference.value,
            low=item.difference.low,
            high=item.difference.high,
        )
        for item in evaluation.comparisons
        if item.subset is None
        and item.metric == main[item.task]
        and item.score == score[item.task]
        and item.row in rows
        and item.baseline == evaluation.config.baseline
    ]
    return differences(bars, baseline=evaluation.config.baseline) if bars else None


def compared_queries(evaluation: Evaluation, task: TaskQueries, score: str) -> list[ComparedQuery]:
    """The queries of a text to clip task whose ranks differ most between rows, as factors."""
    if len(evaluation.plain_rows) < 2:
        return []
    scored = {row.name: _first(row, task, score) for row in evaluation.plain_rows}
    ranks_RQ = np.stack([row_scores.ranks.ranks + 1.0 for row_scores in scored.values()])
    spread_Q = ranks_RQ.max(axis=0) / ranks_RQ.min(axis=0)
    order = np.argsort(-spread_Q, kind="stable")[:SHOWN_QUERIES]
    texts = dict(zip(evaluation.features.text_ids, evaluation.features.texts, strict=True))
    return [
        _compared(evaluation, task, scored, int(query), texts[task.query_ids[query]])
        for query in order
        if spread_Q[query] > 1
    ]


def _first(row: RowOutcome, task: TaskQueries, score: str) -> Scored:
    return row.runs[0].scored[task.name][score]


def _compared(
    evaluation: Evaluation,
    task: TaskQueries,
    scored: Mapping[str, Scored],
    query: int,
    text: str,
) -> ComparedQuery:
    clip = int(task.clips[query])
    features, places = evaluation.features, evaluation.places
    return ComparedQuery(
        text=text,
        right=gallery_clip(features, places, clip, span=None, score=None, right=clip),
        by_row=tuple(
            RowResult(
                row=name,
                rank=float(row_scores.ranks.ranks[query]) + 1,
                first=_first_clip(features, places, row_scores, query, clip),
            )
            for name, row_scores in scored.items()
        ),
    )


def _first_clip(
    features: SplitFeatures, places: ClipVideos, scored: Scored, query: int, right: int
) -> GalleryClip | None:
    best = scored.best_items
    if best is None:
        return None
    span: Sequence[float] | None = None if best.spans is None else best.spans[query, 0]
    score = float(best.scores[query, 0])
    return gallery_clip(
        features, places, int(best.items[query, 0]), span=span, score=score, right=right
    )
