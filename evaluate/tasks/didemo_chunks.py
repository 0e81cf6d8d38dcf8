"""Moments that are runs of chunks, judged by several annotators: DiDeMo's protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...data_manifests.cards.scoring_rules import Chunks
from ...data_manifests.core.errors import UserError
from ...extract.cache.split_features import SplitFeatures
from ..config import MomentConfig
from ..official.moments import annotator_values
from ..scores.queries import Scored, TaskQueries
from ..scores.ranks import Ranks
from ..scores.vectors import Embeddings, Encoder
from .highlights import mean_in_bins
from .moments import SCORE, MomentTask, clip_cosines, clip_segments, segment_vectors, spans_by_head

Run = tuple[int, int]
"""First and last chunk."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkTask:
    """Texts, each placed by one annotator or several."""

    queries: TaskQueries
    """Q queries."""
    texts: np.ndarray
    """(Q,) int64, a text of each query."""
    choices: list[list[Run]]
    """Of each query's annotators."""


def chunk_task(
    task: MomentTask,
    features: SplitFeatures,
    chunks: Chunks,
    records: Mapping[str, Mapping[str, Any]] | None,
) -> ChunkTask:
    """The task; the annotators are those of the official records, or one, the tables' own.

    Chance is one of the candidates, for the one annotator that the tables have. Raises UserError
    for a query that the records lack.
    """
    ids = task.queries.query_ids
    absent = [name for name in ids if records is not None and name not in records]
    if absent:
        raise UserError(
            f"the annotations lack {len(absent)} queries of the split, such as {absent[0]}: "
            f"give those of this split with --annotations"
        )
    choices = [
        [_run_of(span, chunks) for span in task.spans(features, query)]
        if records is None
        else [(int(first), int(last)) for first, last in records[name]["times"]]
        for query, name in enumerate(ids)
    ]
    queries = TaskQueries(
        name=task.queries.name,
        kind="moments",
        query_ids=ids,
        clips=task.queries.clips,
        chance=100.0 / len(chunks.candidates()),
        main_metric="Rank@1",
    )
    return ChunkTask(queries=queries, texts=task.first_texts, choices=choices)


def score_chunks(
    task: ChunkTask,
    features: SplitFeatures,
    embeddings: Embeddings,
    encoder: Encoder,
    *,
    config: MomentConfig,
) -> dict[str, Scored]:
    """Rank@K: whether the mean of the best annotators' ranks is K or better; mIoU of the first."""
    assert config.chunks is not None
    best = config.chunks.best_annotators
    values_of_queries = [
        annotator_values(
            rank_runs(features, embeddings, encoder, text=row, chunks=config.chunks),
            list(choices),
            best=best,
        )
        for row, choices in zip(task.texts.tolist(), task.choices, strict=True)
    ]
    ranks, ious = np.array(values_of_queries, dtype=np.float64).T
    values = {f"Rank@{k}": np.where(ranks <= k, 100.0, 0.0) for k in config.recall_ks}
    tied = np.zeros(len(ranks), dtype=bool)
    return {
        SCORE: Scored(
            ranks=Ranks(ranks=ranks - 1.0, tied=tied), values={**values, "mIoU": 100.0 * ious}
        )
    }


def rank_runs(
    features: SplitFeatures,
    embeddings: Embeddings,
    encoder: Encoder,
    *,
    text: int,
    chunks: Chunks,
) -> list[Run]:
    """All runs, best first, equal ones in order; runs with a chunk beyond the clip come last.

    With a moment head by the probability of the span from the segment that shares most with the
    first chunk to that of the last one; without one by the mean similarity of the chunks.
    """
    segments = clip_segments(features, text)
    cosines = clip_cosines(features, embeddings, text)
    bounds = chunks.seconds * np.arange(chunks.number)[:, None]
    shared = np.minimum(bounds + chunks.seconds, segments[:, 1]) - np.maximum(
        bounds, segments[:, 0]
    )
    runs = chunks.candidates()
    if encoder.moment_head is not None:
        vectors = segment_vectors(features, embeddings, text)
        head = spans_by_head(cosines, vectors, segments, encoder)
        by_span = dict(zip(zip(head.first, head.last, strict=True), head.scores, strict=True))
        nearest = shared.argmax(axis=1)
        scores = np.array([by_span[nearest[i], nearest[j]] for i, j in runs])
    else:
        means = mean_in_bins(cosines, segments, seconds=chunks.seconds, number=chunks.number)
        scores = np.array([means[i : j + 1].mean() for i, j in runs])
    is_there = shared.max(axis=1) > 0
    scores = np.where([is_there[i : j + 1].all() for i, j in runs], scores, -np.inf)
    return [runs[place] for place in np.argsort(-scores, kind="stable")]


def _run_of(span: np.ndarray, chunks: Chunks) -> Run:
    """The chunks of a span of the tables, which begins and ends at whole chunks."""
    first = round(float(span[0]) / chunks.seconds)
    last = round(float(span[1]) / chunks.seconds) - 1
    bound = chunks.number - 1
    return min(first, bound), min(max(first, last), bound)
