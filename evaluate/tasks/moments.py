"""Moments in one clip: where does a text happen, as a run's head says, or its similarities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from ...align.data.moment_items import moment_queries
from ...align.model.model import AlignmentModel
from ...align.model.moment_head import bounded_spans
from ...align.model.scene_clock import previous_cosines
from ...data_manifests.cards.spans import reaches, span_iou, suppress
from ...extract.cache.ragged import Ragged
from ...extract.cache.split_features import SplitFeatures
from ..config import MomentConfig
from ..scores.metrics import window_metrics, window_precisions_of, windows_in_range
from ..scores.queries import Scored, TaskQueries
from ..scores.ranks import ranks_of_hits
from ..scores.vectors import Embeddings, Encoder

SCORE: Final = "task"
"""Name of the score: the run's moment head, or without one the similarity with each segment."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MomentTask:
    """Texts with a span or several, to be found in their clips."""

    queries: TaskQueries
    """Q queries."""
    texts: Ragged
    """Rows of the split's texts of each query: one for each of its moments, all with its words."""

    @property
    def first_texts(self) -> np.ndarray:
        """(Q,) int64, a text of each query."""
        return self.texts.firsts

    def spans(self, features: SplitFeatures, query: int) -> np.ndarray:
        """(m, 2) seconds, the moments of a query."""
        return np.asarray(features.text_spans[self.texts[query]])


def moment_task(features: SplitFeatures, config: MomentConfig) -> MomentTask | None:
    """The task, or None without texts that have a span.

    The main metric is recall at 1 at the middle one of the thresholds; chance is a segment of the
    clip drawn at random.
    """
    rows = np.flatnonzero(features.text_is_segment)
    if len(rows) == 0:
        return None
    query_ids, texts = moment_queries(features, rows)
    threshold = main_threshold(config)
    firsts = texts.firsts
    queries = TaskQueries(
        name="moments",
        kind="moments",
        query_ids=query_ids,
        clips=features.text_clips[firsts],
        chance=0.0,
        main_metric=recall_name(1, threshold),
    )
    task = MomentTask(queries=queries, texts=texts)
    guessed = [
        _reached(clip_segments(features, row), task.spans(features, query), threshold, config)
        for query, row in enumerate(firsts.tolist())
    ]
    chance = 100.0 * float(np.mean([hits.mean() for hits in guessed]))
    return MomentTask(queries=queries.with_chance(chance), texts=texts)


def predictions_of(
    task: MomentTask,
    features: SplitFeatures,
    embeddings: Embeddings,
    encoder: Encoder,
    *,
    config: MomentConfig,
) -> list[np.ndarray]:
    """Of each query what `predict_moments` gives."""
    return [
        predict_moments(features, embeddings, encoder, text=row, config=config)
        for row in task.first_texts.tolist()
    ]


def score_moments_of(
    task: MomentTask,
    features: SplitFeatures,
    predicted: Sequence[np.ndarray],
    *,
    config: MomentConfig,
) -> dict[str, Scored]:
    """R@K at each IoU, and the mean IoU of the first prediction, in percent.

    predicted: of each query (n, 3), by `predictions_of`. Of a query with several moments the
    nearest counts; with config.average_precision there are mAP, mAP@0.5 and mAP@0.75, too.
    """
    spans = [task.spans(features, query) for query in range(len(predicted))]
    values = recall_values(predicted, spans, config)
    if config.average_precision:
        precisions = window_precisions_of(predicted, spans)
        values |= window_metrics(precisions)
    ranks = ranks_of_hits(values[task.queries.main_metric] > 0)
    return {SCORE: Scored(ranks=ranks, values=values)}


def recall_values(
    predicted: Sequence[np.ndarray], spans: Sequence[np.ndarray], config: MomentConfig
) -> dict[str, np.ndarray]:
    """R@K at each IoU and mIoU, (Q,) each in percent.

    predicted: of each query (n, 3) start, end and score, best first.   spans: (m, 2), its moments;
    none where no prediction of it can be right.
    """
    largest_k = max(config.recall_ks)
    ious = np.zeros((len(predicted), largest_k))
    for query, (moments, truth) in enumerate(zip(predicted, spans, strict=True)):
        near = nearest_overlaps(moments[:largest_k, :2], truth, config)
        ious[query, : len(near)] = near
    best = np.maximum.accumulate(ious, axis=1)
    values = {
        recall_name(k, threshold): 100.0 * reaches(best[:, k - 1], threshold, config.iou_comparison)
        for k in config.recall_ks
        for threshold in config.iou_thresholds
    }
    return {**values, "mIoU": 100.0 * ious[:, 0]}


def predict_moments(
    features: SplitFeatures,
    embeddings: Embeddings,
    encoder: Encoder,
    *,
    text: int,
    config: MomentConfig,
) -> np.ndarray:
    """(n, 3) start, end and score of the moments of a text in its clip, best first.

    With a moment head spans by the logarithm of their probability, with bounds inside segments;
    without one the segments by their cosine.
    Equal scores are in the order of time. Suppressed and cut as the settings say.
    """
    spans, scores = clip_segments(features, text), clip_cosines(features, embeddings, text)
    if encoder.moment_head is not None:
        head = spans_by_head(scores, segment_vectors(features, embeddings, text), spans, encoder)
        spans, scores = head.spans, head.scores
    order = np.argsort(-scores, kind="stable")
    if config.nms_iou is not None:
        order = order[
            suppress(spans[order], threshold=config.nms_iou, max_spans=config.num_predictions)
        ]
    order = order[: config.num_predictions]
    return np.column_stack([spans[order], scores[order]]).astype(np.float64)


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadSpans:
    """All spans of the S segments of a clip, by a moment head."""

    first: np.ndarray
    """(n,) int64, place of the segment that each span starts in."""
    last: np.ndarray
    """(n,) int64, of the one that it ends in, not before `first`."""
    spans: np.ndarray
    """(n, 2) seconds, with the head's offsets inside these segments."""
    scores: np.ndarray
    """(n,) float32, the logarithms of their probabilities, which add up to 1."""


def spans_by_head(
    cosines: np.ndarray, vectors: np.ndarray, segments: np.ndarray, encoder: AlignmentModel
) -> HeadSpans:
    """cosines: (S,) of a text with the segments of a clip.   vectors: (S, W) and segments: (S, 2)
    seconds, of these segments."""
    assert encoder.moment_head is not None
    with torch.no_grad():
        scores_1LL, offsets_1L2 = encoder.moment_head(
            torch.from_numpy(cosines)[None],
            previous_cosines(torch.from_numpy(vectors)[None]),
            torch.ones((1, len(cosines)), dtype=torch.bool),
        )
        scores_LL, offsets_L2 = scores_1LL[0], offsets_1L2[0]
        first, last = torch.triu_indices(len(segments), len(segments))
        seconds = torch.from_numpy(segments)
        spans = bounded_spans(seconds, first, last, offsets_L2.double())
        scores = scores_LL[first, last].log_softmax(dim=0)
    return HeadSpans(
        first=first.numpy(), last=last.numpy(), spans=spans.numpy(), scores=scores.numpy()
    )


def nearest_overlaps(predicted: np.ndarray, truth: np.ndarray, config: MomentConfig) -> np.ndarray:
    """(n,) IoU of each span (n, 2) with the nearest of the true ones (m, 2); 0 without any."""
    if not len(truth):
        return np.zeros(len(predicted))
    ious = span_iou(predicted[:, None], truth[None], denominator=config.iou_denominator)
    return np.asarray(ious.max(axis=1))


def clip_segments(features: SplitFeatures, text: int) -> np.ndarray:
    """(S, 2) seconds, the segments of the text's clip."""
    spans: np.ndarray = features.segment_spans[_rows_of_clip(features, text)]
    return spans


def clip_cosines(features: SplitFeatures, embeddings: Embeddings, text: int) -> np.ndarray:
    """(S,) float32, the cosines of a text with the segments of its clip."""
    vectors = segment_vectors(features, embeddings, text)
    return np.asarray(vectors @ embeddings.sentences[text])


def segment_vectors(features: SplitFeatures, embeddings: Embeddings, text: int) -> np.ndarray:
    """(S, W) float32, the segments of the text's clip."""
    vectors: np.ndarray = embeddings.segments[_rows_of_clip(features, text)]
    return vectors


def main_threshold(config: MomentConfig) -> float:
    """The middle one of the thresholds."""
    return config.iou_thresholds[len(config.iou_thresholds) // 2]


def recall_name(k: int, threshold: float) -> str:
    """Of a metric."""
    return f"R@{k} IoU {threshold:g}"


def _rows_of_clip(features: SplitFeatures, text: int) -> slice:
    """Of the split's segments, those of the text's clip."""
    return slice(*features.segment_offsets[features.text_clips[text] :][:2])


def _reached(
    segments: np.ndarray, truth: np.ndarray, threshold: float, config: MomentConfig
) -> np.ndarray:
    ious = nearest_overlaps(segments, truth, config)
    return reaches(ious, threshold, config.iou_comparison)


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
    tasks = []
    for name in LENGTHS:
        windows = [
            windows_in_range(task.spans(features, query), name) for query in range(len(task.texts))
        ]
        rows = [query for query, query_windows in enumerate(windows) if len(query_windows)]
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
        tasks.append(LengthTask(queries=queries, rows=np.array(rows), windows=own_windows))
    return tasks


def score_lengths(task: LengthTask, predicted: Sequence[np.ndarray]) -> dict[str, Scored]:
    """mAP, mAP@0.5 and mAP@0.75 in percent; windows of other lengths neither help nor harm.

    predicted: of each of the moments' queries (n, 3), by `moments.predictions_of`.
    """
    length_predictions = [predicted[row] for row in task.rows]
    precisions = window_precisions_of(length_predictions, task.windows)
    ranks = ranks_of_hits(np.zeros(len(length_predictions), dtype=bool))
    return {SCORE: Scored(ranks=ranks, values=window_metrics(precisions))}
