"""Segment grounding: does a segment text find its segment among those of its own clip?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...data_manifests.cards.spans import span_iou
from ...extract.cache.ragged import offsets_of, ragged_rows
from ...extract.cache.split_features import SplitFeatures
from ..scores.metrics import recall_at
from ..scores.queries import Scored, TaskQueries
from ..scores.ranks import SCORE_RESOLUTION, ranks_in_lists
from ..scores.similarity import own_clip_similarities
from ..scores.vectors import Embeddings

IOU_RESOLUTION = 1e-9
"""IoUs nearer than this are equal; spans are float64 seconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroundingTask:
    """Segment texts, each with the IoU of its span with every segment of its clip, end to end."""

    queries: TaskQueries
    """Q texts whose span meets at least one segment of their clip."""
    texts: np.ndarray
    """(Q,) int64, rows of the split's texts."""
    ious: np.ndarray
    """(P,) float64."""
    offsets: np.ndarray
    """(Q + 1,) int64: text q has ious [offsets[q], offsets[q + 1])."""
    right: np.ndarray
    """(P,) bool, the segments whose IoU is the text's largest."""
    pointed: np.ndarray
    """(P,) bool, the segments whose middle lies in the text's span."""
    num_left_out: int
    """Segment texts whose span meets no segment: no answer would be right."""


def grounding_task(features: SplitFeatures) -> GroundingTask | None:
    """The task, or None when the split has no segment text that meets a segment."""
    texts = np.flatnonzero(features.text_is_segment)
    ious, pointed, counts = _relations_with_own_segments(features, texts)
    if len(texts) == 0:
        return None
    best = np.maximum.reduceat(ious, offsets_of(counts)[:-1])
    met = best > 0
    if not met.any():
        return None
    kept = np.repeat(met, counts)
    texts, ious, counts, best = texts[met], ious[kept], counts[met], best[met]
    pointed = pointed[kept]
    right = ious >= np.repeat(best, counts) - IOU_RESOLUTION
    offsets = offsets_of(counts)
    queries = TaskQueries(
        name="grounding",
        kind="choice",
        query_ids=[features.text_ids[row] for row in texts],
        clips=features.text_clips[texts],
        chance=100.0 * float((np.add.reduceat(right.astype(float), offsets[:-1]) / counts).mean()),
    )
    return GroundingTask(
        queries=queries,
        texts=texts,
        ious=ious,
        offsets=offsets,
        right=right,
        pointed=pointed,
        num_left_out=int((~met).sum()),
    )


def score_grounding(
    task: GroundingTask, features: SplitFeatures, embeddings: Embeddings
) -> dict[str, Scored]:
    """Accuracy, pointing accuracy, and the mean IoU of the chosen segment, all in percent.

    A text is right when its best-scoring segment has the largest IoU with its span; it points right
    when the middle of that segment lies in its span (the pointing game, arXiv 1608.00507, in time).
    Ties count against us: of segments with the best score the one with the least IoU, and one that
    points wrong, is the chosen one.
    """
    similarities, offsets = own_clip_similarities(
        embeddings.sentences[task.texts],
        task.queries.clips,
        segments=embeddings.segments,
        segment_offsets=features.segment_offsets,
    )
    starts, counts = offsets[:-1], np.diff(offsets)
    ranks = ranks_in_lists(similarities, task.right, offsets)
    best = np.repeat(np.maximum.reduceat(similarities, starts), counts)
    is_best = similarities >= best - SCORE_RESOLUTION
    ious_of_best = np.where(is_best, task.ious, np.inf)
    points_right = np.minimum.reduceat(np.where(is_best, task.pointed, True), starts)
    values = {
        "accuracy": recall_at(ranks.ranks, 1),
        "pointing": 100.0 * points_right,
        "mIoU": 100.0 * np.minimum.reduceat(ious_of_best, starts),
    }
    return {"segment": Scored(ranks=ranks, values=values)}


def _relations_with_own_segments(
    features: SplitFeatures, texts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each text with its clip's segments, end to end: (P,) IoUs with its span, (P,) whether the
    segment's middle lies in it, and (n,) the numbers of segments."""
    clips = features.text_clips[texts]
    counts = np.diff(features.segment_offsets)[clips]
    rows, of_text = ragged_rows(features.segment_offsets, clips)
    true_spans, segments = features.text_spans[texts][of_text], features.segment_spans[rows]
    middles = segments.mean(axis=1)
    pointed = (true_spans[:, 0] <= middles) & (middles < true_spans[:, 1])
    return span_iou(true_spans, segments), pointed, counts
