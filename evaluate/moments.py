"""Moments in one clip: where does a text happen, as a run's head says, or its similarities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from ..align.model import AlignmentModel
from ..extract.store import SplitFeatures
from .config import MomentConfig
from .queries import Scored, TaskQueries
from .ranks import Ranks
from .scoring import Embeddings
from .spans import overlaps, reaches

SCORE: Final = "task"
"""Name of the score: the run's moment head, or without one the similarity with each segment."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MomentTask:
    """Texts with a span, to be found in their clips."""

    queries: TaskQueries
    """Q texts."""
    texts: np.ndarray
    """(Q,) int64, rows of the split's texts."""


def moment_task(features: SplitFeatures, config: MomentConfig) -> MomentTask | None:
    """The task, or None without texts that have a span.

    The main metric is recall at 1 at the middle one of the thresholds; chance is a segment of the
    clip drawn at random.
    """
    texts = np.flatnonzero(features.text_is_segment)
    if len(texts) == 0:
        return None
    threshold = config.iou_thresholds[len(config.iou_thresholds) // 2]
    guessed = [
        reaches(
            overlaps(_segments(features, row), features.text_spans[row], denominator="union"),
            threshold,
            config.iou_comparison,
        ).mean()
        for row in texts.tolist()
    ]
    queries = TaskQueries(
        name="moments",
        kind="moments",
        query_ids=[features.text_ids[row] for row in texts],
        clips=features.text_clips[texts],
        chance=100.0 * float(np.mean(guessed)),
        main_metric=_name(1, threshold),
    )
    return MomentTask(queries=queries, texts=texts)


def score_moments_of(
    task: MomentTask,
    features: SplitFeatures,
    embeddings: Embeddings,
    encoder: AlignmentModel | None,
    *,
    config: MomentConfig,
) -> dict[str, Scored]:
    """R@K at each IoU, and the mean IoU of the first prediction, in percent.

    With a moment head the predictions are spans of segments by the product of the probabilities of
    their start and end (XML, arXiv 2001.09099), without one the segments by their cosine. Equal
    scores are in the order of time.
    """
    most = max(config.recall_ks)
    ious = np.zeros((len(task.texts), most))
    for query, row in enumerate(task.texts.tolist()):
        spans = _segments(features, row)
        own = slice(*features.segment_offsets[features.text_clips[row] :][:2])
        cosines = embeddings.segments[own] @ embeddings.sentences[row]
        if encoder is not None and encoder.moment_head is not None:
            spans = _predicted(cosines, spans, encoder, most=most)
        else:
            spans = spans[np.argsort(-cosines, kind="stable")[:most]]
        found = overlaps(spans, features.text_spans[row], denominator="union")
        ious[query, : len(found)] = found
    best = np.maximum.accumulate(ious, axis=1)
    values = {
        _name(k, threshold): 100.0 * reaches(best[:, k - 1], threshold, config.iou_comparison)
        for k in config.recall_ks
        for threshold in config.iou_thresholds
    }
    first = values[task.queries.main_metric] > 0
    ranks = Ranks(ranks=np.where(first, 0, 1), tied=np.zeros(len(first), dtype=bool))
    return {SCORE: Scored(ranks=ranks, values={**values, "mIoU": 100.0 * ious[:, 0]})}


def _predicted(
    cosines: np.ndarray, segments: np.ndarray, encoder: AlignmentModel, *, most: int
) -> np.ndarray:
    """(n, 2) spans from the start of a segment to the end of it or a later one, best first."""
    assert encoder.moment_head is not None
    with torch.no_grad():
        logits = encoder.logit_scale * torch.from_numpy(cosines)[None]
        starts, ends = encoder.moment_head(logits, torch.ones_like(logits, dtype=torch.bool))
    first, last = np.triu_indices(len(segments))
    scores = starts[0].numpy()[first] + ends[0].numpy()[last]
    order = np.argsort(-scores, kind="stable")[:most]
    return np.stack([segments[first[order], 0], segments[last[order], 1]], axis=1)


def _segments(features: SplitFeatures, text: int) -> np.ndarray:
    """(S, 2) seconds, the segments of the text's clip."""
    clip = features.text_clips[text]
    spans: np.ndarray = features.segment_spans[
        features.segment_offsets[clip] : features.segment_offsets[clip + 1]
    ]
    return spans


def _name(k: int, threshold: float) -> str:
    return f"R@{k} IoU {threshold:g}"
