"""Moments in a corpus: which clip, and when in it (TVR's VCMR).

The best clips of a query by the fused score are searched for moments, which are ranked together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from ..align.model import AlignmentModel
from ..extract.store import SplitFeatures
from .config import EvaluationConfig, MomentConfig
from .index_lists import IndexLists, expand, offsets_of
from .moments import (
    SCORE,
    MomentTask,
    clip_segments,
    main_threshold,
    nearest_overlaps,
    recall_name,
    recall_values,
)
from .queries import Scored, TaskQueries
from .ranks import ranks_of_hits
from .score_blocks import BLOCK_BYTES, blocks
from .scoring import Embeddings, TwoLevelVectors, clip_vectors, fuse, level_scores, text_vectors
from .spans import reaches, suppress

BEFORE_SUPPRESSION: Final = 2
"""Times the predictions that count, so many are suppressed among (TVR: 200 for 100)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusMoments:
    """The best moments of one query, best first."""

    clips: np.ndarray
    """(n,) int64, rows of the split's clips."""
    moments: np.ndarray
    """(n, 3) float64: start and end in the clip, score."""


def corpus_task(task: MomentTask, features: SplitFeatures, config: MomentConfig) -> TaskQueries:
    """The same queries; chance is a segment of any clip drawn at random."""
    threshold = main_threshold(config)
    right = [
        reaches(
            nearest_overlaps(clip_segments(features, row), task.spans(features, query), config),
            threshold,
            config.iou_comparison,
        ).sum()
        for query, row in enumerate(task.first_texts.tolist())
    ]
    return TaskQueries(
        name="corpus_moments",
        kind="moments",
        query_ids=task.queries.query_ids,
        clips=task.queries.clips,
        chance=100.0 * float(np.mean(right)) / len(features.segment_spans),
        main_metric=recall_name(1, threshold),
    )


def score_corpus_moments(
    task: MomentTask,
    features: SplitFeatures,
    embeddings: Embeddings,
    encoder: AlignmentModel | None,
    *,
    weight: float,
    config: EvaluationConfig,
) -> dict[str, Scored]:
    """R@K at each IoU in percent, where the clip has to be right, too."""
    searched = predict_in_corpus(
        features, embeddings, encoder, texts=task.first_texts, weight=weight, config=config
    )
    most = max(config.moments.recall_ks)
    predicted, spans = [], []
    for query, found in enumerate(searched):
        is_right = found.clips[:most] == task.queries.clips[query]
        # A moment of another clip is one that nothing overlaps.
        moved = np.where(is_right[:, None], found.moments[:most, :2], -1.0)
        predicted.append(moved)
        spans.append(task.spans(features, query))
    values = recall_values(predicted, spans, config.moments)
    del values["mIoU"]
    main = recall_name(1, main_threshold(config.moments))
    return {SCORE: Scored(ranks=ranks_of_hits(values[main] > 0), values=values)}


def predict_in_corpus(
    features: SplitFeatures,
    embeddings: Embeddings,
    encoder: AlignmentModel | None,
    *,
    texts: np.ndarray,
    weight: float,
    config: EvaluationConfig,
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[CorpusMoments]:
    """The moments of each text in all clips, in blocks of texts: memory is bounded by the block.

    With a moment head a span's score is corpus_clip_factor times the clip's fused score plus the
    logarithms of the probabilities of its start and end; without one a segment's is the fused score
    with its own similarity in place of the pooled one. Equal scores are in the order of clips (the
    best first), then of time.
    """
    clips = clip_vectors(features, embeddings)
    queries = text_vectors(embeddings, texts=texts, sentences=IndexLists.singles(texts))
    for start, stop in blocks(queries, clips, block_bytes=block_bytes):
        block = queries.slice(start, stop)
        global_QN, segment_QN = level_scores(block, clips, config=config.segment_score)
        fused_QN = fuse(global_QN, segment_QN, weight=weight)
        for query, fused_N in enumerate(fused_QN):
            best = np.argsort(-fused_N, kind="stable")[: config.moments.corpus_clips]
            cosines, offsets = _cosines(clips, best, block.parts[query])
            if encoder is not None and encoder.moment_head is not None:
                clip_scores = config.moments.corpus_clip_factor * fused_N[best]
                found = _spans_of_head(cosines, offsets, clip_scores, encoder)
            else:
                scores = fuse(
                    np.repeat(global_QN[query, best], np.diff(offsets)), cosines, weight=weight
                )
                places = np.arange(len(cosines))
                found = scores, places, places
            yield _best_moments(*found, features, best, offsets, config.moments)


def _cosines(
    clips: TwoLevelVectors, chosen: np.ndarray, text: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of a text with the segments of some clips, end to end, and where each clip's begin."""
    counts = clips.part_counts[chosen]
    cosines: np.ndarray = clips.parts[expand(clips.offsets[chosen], counts)] @ text
    return cosines, offsets_of(counts)


def _spans_of_head(
    cosines: np.ndarray, offsets: np.ndarray, clip_scores: np.ndarray, encoder: AlignmentModel
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of all spans, and the first and last segment of each, as places in `cosines`."""
    assert encoder.moment_head is not None
    counts = np.diff(offsets)
    present_CL = np.arange(counts.max()) < counts[:, None]
    logits_CL = np.zeros(present_CL.shape, dtype=np.float32)
    logits_CL[present_CL] = cosines
    with torch.no_grad():
        logits = encoder.logit_scale * torch.from_numpy(logits_CL)
        starts, ends = encoder.moment_head(logits, torch.from_numpy(present_CL))
    scores_CLL = starts.numpy()[:, :, None] + ends.numpy()[:, None, :]
    scores_CLL += clip_scores[:, None, None]
    later = np.triu(np.ones((counts.max(), counts.max()), dtype=bool))
    is_span = later & present_CL[:, :, None] & present_CL[:, None, :]
    clip, first, last = np.nonzero(is_span)
    return scores_CLL[is_span], offsets[clip] + first, offsets[clip] + last


def _best_moments(
    scores: np.ndarray,
    first: np.ndarray,
    last: np.ndarray,
    features: SplitFeatures,
    chosen: np.ndarray,
    offsets: np.ndarray,
    config: MomentConfig,
) -> CorpusMoments:
    """first, last: places among the segments of the chosen clips, end to end."""
    most = config.num_predictions
    depth = most if config.nms_iou is None else BEFORE_SUPPRESSION * most
    order = _top(scores, depth)
    rank = np.searchsorted(offsets, first[order], side="right") - 1
    clips = chosen[rank]
    to_row = features.segment_offsets[clips] - offsets[rank]
    spans = np.column_stack(
        [
            features.segment_spans[to_row + first[order], 0],
            features.segment_spans[to_row + last[order], 1],
        ]
    )
    moments = np.column_stack([spans, scores[order]]).astype(np.float64)
    kept = np.arange(len(order))
    if config.nms_iou is not None:
        kept = _suppressed(clips, spans, config.nms_iou)
    kept = kept[:most]
    return CorpusMoments(clips=clips[kept], moments=moments[kept])


def _suppressed(clips: np.ndarray, spans: np.ndarray, threshold: float) -> np.ndarray:
    """Places that are kept, clip by clip, in their order."""
    kept = [
        own[suppress(spans[own], threshold=threshold)]
        for own in (np.flatnonzero(clips == clip) for clip in np.unique(clips))
    ]
    return np.sort(np.concatenate(kept))


def _top(scores: np.ndarray, most: int) -> np.ndarray:
    """Places of the best scores, best first, equal ones in order."""
    if len(scores) > most:
        least = np.partition(scores, len(scores) - most)[len(scores) - most]
        places = np.flatnonzero(scores >= least)
    else:
        places = np.arange(len(scores))
    return np.asarray(places[np.argsort(-scores[places], kind="stable")][:most])
