"""Highlights: how salient is each two-second clip for a query, by similarity (QVHighlights)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ...extract.cache.split_features import SplitFeatures
from ..official.qvhighlights import CLIP_SECONDS, LEVELS, highlight_values, saliency
from ..scores.queries import Scored, TaskQueries
from ..scores.ranks import ranks_of_hits
from ..scores.vectors import Embeddings
from .moments import MomentTask, clip_cosines, clip_segments

MAIN: Final = "HL mAP"
MAIN_LEVEL: Final = "VeryGood"
"""The level of the numbers that papers report."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HighlightTask:
    """Queries whose clips people have rated."""

    queries: TaskQueries
    """Q queries."""
    texts: np.ndarray
    """(Q,) int64, a text of each query."""
    ratings: list[np.ndarray]
    """Q times (clips, annotators), 0 to 4."""


def highlight_task(
    task: MomentTask, records: Mapping[str, Mapping[str, Any]]
) -> HighlightTask | None:
    """The queries of which the official records have ratings; None without any.

    Chance is the share of rated annotators' clips that are very good, what random scores get.
    """
    rows = [
        query
        for query, query_id in enumerate(task.queries.query_ids)
        if "saliency_scores" in records.get(query_id, {})
    ]
    if not rows:
        return None
    ids = [task.queries.query_ids[query] for query in rows]
    ratings = [saliency(dict(records[query_id])) for query_id in ids]
    right = [(rating >= LEVELS[MAIN_LEVEL]).mean() for rating in ratings]
    queries = TaskQueries(
        name="highlights",
        kind="moments",
        query_ids=ids,
        clips=task.queries.clips[rows],
        chance=100.0 * float(np.mean(right)),
        main_metric=MAIN,
    )
    return HighlightTask(queries=queries, texts=task.first_texts[rows], ratings=ratings)


def score_highlights(
    task: HighlightTask, features: SplitFeatures, embeddings: Embeddings
) -> dict[str, Scored]:
    """HL mAP and HIT@1 in percent, of clips that are very good, and at least good or fair."""
    predicted = [
        clip_saliency(features, embeddings, text=row, num_clips=len(ratings))
        for row, ratings in zip(task.texts.tolist(), task.ratings, strict=True)
    ]
    values: dict[str, np.ndarray] = {}
    for level, lowest in LEVELS.items():
        pairs = [
            highlight_values(saliency_scores, rated >= lowest)
            for saliency_scores, rated in zip(predicted, task.ratings, strict=True)
        ]
        name = "" if level == MAIN_LEVEL else f" {level}"
        precisions = np.array([by_annotator.mean() for by_annotator, _ in pairs])
        hits = np.array([is_hit for _, is_hit in pairs], dtype=np.float64)
        values |= {f"{MAIN}{name}": 100.0 * precisions, f"HIT@1{name}": 100.0 * hits}
    return {"segment": Scored(ranks=ranks_of_hits(values["HIT@1"] > 0), values=values)}


def clip_saliency(
    features: SplitFeatures, embeddings: Embeddings, *, text: int, num_clips: int | None = None
) -> np.ndarray:
    """(clips,) the similarity of a text with each two-second clip.

    That of the segments that meet it, weighted by the seconds they share; of a clip beyond the last
    segment the lowest. num_clips: None for as many as the clip's seconds have.
    """
    segments = clip_segments(features, text)
    if num_clips is None:
        duration = features.clip_durations[features.text_clips[text]]
        num_clips = max(1, int(duration / CLIP_SECONDS))
    similarities = clip_cosines(features, embeddings, text)
    return mean_in_bins(similarities, segments, seconds=CLIP_SECONDS, number=num_clips)


def mean_in_bins(
    values: np.ndarray, spans: np.ndarray, *, seconds: float, number: int
) -> np.ndarray:
    """(number,) the mean of the values of spans (n, 2), weighted by the seconds in each bin.

    Bin k is [k, k + 1) times `seconds`; one that no span meets gets the lowest of the values.
    """
    starts = seconds * np.arange(number)[:, None]
    shared = np.minimum(starts + seconds, spans[:, 1]) - np.maximum(starts, spans[:, 0])
    weights = np.maximum(0.0, shared)
    total = weights.sum(axis=1)
    sums = weights @ values.astype(np.float64)
    return np.where(total > 0, sums / np.where(total > 0, total, 1.0), float(values.min()))
