"""Moments in a corpus (TVR's VCMR): the best clips of a query by the fused score are searched for
moments, which are ranked together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from ...align.model.model import AlignmentModel
from ...data_manifests.cards.spans import reaches, suppress
from ...extract.cache.ragged import offsets_of, ragged_rows
from ...extract.cache.split_features import SplitFeatures
from ..config import EvaluationConfig, MomentConfig
from ..scores.queries import Scored, TaskQueries
from ..scores.ranks import ranks_of_hits
from ..scores.similarity import BLOCK_BYTES, blocks, fuse, level_scores
from ..scores.vectors import Embeddings, Encoder, TwoLevelVectors, clip_vectors, text_vectors
from .moments import (
    SCORE,
    MomentTask,
    clip_segments,
    main_threshold,
    nearest_overlaps,
    recall_name,
    recall_values,
)

BEFORE_SUPPRESSION: Final = 2
"""Times the predictions that count, so many are suppressed among (TVR: 200 for 100)."""
HEAD_CLIPS: Final = 4096
"""Clips that go through the head at once, those of several queries."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusMoments:
    """The best moments of one query, best first."""

    clips: np.ndarray
    """(n,) int64, rows of the split's clips."""
    moments: np.ndarray
    """(n, 3) float64: start and end in the clip, score."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Searched:
    """The C clips that a query searches, the best first, and their P segments, end to end."""

    clips: np.ndarray
    """(C,) int64, rows of the split's clips."""
    cosines: np.ndarray
    """(P,) float32, of the text with the segments."""
    previous: np.ndarray
    """(P,) float32, of each segment with the one before it in its clip; 0 for a clip's first."""
    offsets: np.ndarray
    """(C + 1,) int64, where the segments of each clip begin."""
    global_scores: np.ndarray
    """(C,) float32."""
    fused_scores: np.ndarray
    """(C,) float32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Spans:
    """n spans of segments in the clips that a query searches."""

    scores: np.ndarray
    """(n,) float32."""
    first: np.ndarray
    """(n,) int64, place of the first segment among the P."""
    last: np.ndarray
    """(n,) int64, of the last one."""
    inside: np.ndarray | None = None
    """(P, 2) float32 from 0 to 1, where inside a segment a moment starts, and where one ends; None:
    at its bounds."""


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
    encoder: Encoder,
    *,
    weight: float,
    config: EvaluationConfig,
) -> dict[str, Scored]:
    """R@K at each IoU in percent, where the clip has to be right, too."""
    searched = predict_in_corpus(
        features, embeddings, encoder, texts=task.first_texts, weight=weight, config=config
    )
    largest_k = max(config.moments.recall_ks)
    predicted, spans = [], []
    for query, result in enumerate(searched):
        is_right = result.clips[:largest_k] == task.queries.clips[query]
        # A moment of another clip is one that nothing overlaps.
        moved = np.where(is_right[:, None], result.moments[:largest_k, :2], -1.0)
        predicted.append(moved)
        spans.append(task.spans(features, query))
    values = recall_values(predicted, spans, config.moments)
    del values["mIoU"]
    main = recall_name(1, main_threshold(config.moments))
    return {SCORE: Scored(ranks=ranks_of_hits(values[main] > 0), values=values)}


def predict_in_corpus(
    features: SplitFeatures,
    embeddings: Embeddings,
    encoder: Encoder,
    *,
    texts: np.ndarray,
    weight: float,
    config: EvaluationConfig,
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[CorpusMoments]:
    """The moments of each text in all clips, in blocks of texts: memory is bounded by the block.

    With a moment head a span's score is corpus_clip_factor times the clip's fused score plus the
    logarithm of its probability in the clip; without one a segment's is the fused score
    with its own similarity in place of the pooled one. Equal scores are in the order of clips (the
    best first), then of time.
    """
    clips = clip_vectors(features, embeddings)
    previous = _previous_cosines(clips)
    queries = text_vectors(embeddings, texts)
    for start, stop in blocks(queries, clips, block_bytes=block_bytes):
        block = queries.slice(start, stop)
        global_QN, segment_QN = level_scores(block, clips, config=config.segment_score)
        fused_QN = fuse(global_QN, segment_QN, weight=weight)
        best_QC = np.argsort(-fused_QN, axis=1, kind="stable")[:, : config.moments.corpus_clips]
        at_once = max(1, HEAD_CLIPS // best_QC.shape[1])
        for first in range(0, len(block), at_once):
            some = range(first, min(first + at_once, len(block)))
            searched = [
                _searched(
                    block.parts[query],
                    best_QC[query],
                    clips,
                    previous,
                    global_N=global_QN[query],
                    fused_N=fused_QN[query],
                )
                for query in some
            ]
            if encoder.moment_head is not None:
                candidates = _spans_of_head(
                    searched, encoder, factor=config.moments.corpus_clip_factor
                )
            else:
                candidates = (_segments(one, weight) for one in searched)
            for one, spans in zip(searched, candidates, strict=True):
                yield _best_moments(spans, one, features, config.moments)


def _searched(
    text: np.ndarray,
    chosen: np.ndarray,
    clips: TwoLevelVectors,
    previous: np.ndarray,
    *,
    global_N: np.ndarray,
    fused_N: np.ndarray,
) -> _Searched:
    """A text (W,) with the chosen of the N clips. previous: of all their segments."""
    rows, _ = ragged_rows(clips.offsets, chosen)
    return _Searched(
        clips=chosen,
        cosines=clips.parts[rows] @ text,
        previous=previous[rows],
        offsets=offsets_of(clips.part_counts[chosen]),
        global_scores=global_N[chosen],
        fused_scores=fused_N[chosen],
    )


def _previous_cosines(clips: TwoLevelVectors) -> np.ndarray:
    """(S,) float32: of each segment with the one before it in its clip; 0 for a clip's first."""
    previous = np.zeros(len(clips.parts), dtype=np.float32)
    previous[1:] = np.einsum("sw,sw->s", clips.parts[1:], clips.parts[:-1])
    previous[clips.offsets[:-1]] = 0.0
    return previous


def _segments(searched: _Searched, weight: float) -> _Spans:
    """Every segment by itself."""
    global_scores = np.repeat(searched.global_scores, np.diff(searched.offsets))
    places = np.arange(len(searched.cosines))
    scores = fuse(global_scores, searched.cosines, weight=weight)
    return _Spans(scores=scores, first=places, last=places)


def _spans_of_head(
    searched: Sequence[_Searched], encoder: AlignmentModel, *, factor: float
) -> Iterator[_Spans]:
    """All spans of each query's clips. The queries go through the head together."""
    assert encoder.moment_head is not None
    counts = np.concatenate([np.diff(one.offsets) for one in searched])
    present_CL = np.arange(counts.max()) < counts[:, None]
    cosines_CL, previous_CL = (np.zeros(present_CL.shape, dtype=np.float32) for _ in range(2))
    cosines_CL[present_CL] = np.concatenate([one.cosines for one in searched])
    previous_CL[present_CL] = np.concatenate([one.previous for one in searched])
    with torch.no_grad():
        raw_CLL, offsets = encoder.moment_head(
            *(torch.from_numpy(array) for array in (cosines_CL, previous_CL, present_CL))
        )
        logs_CLL = raw_CLL.flatten(1).log_softmax(dim=1).view_as(raw_CLL).numpy()
    offsets_CL2 = offsets.clamp(0.0, 1.0).numpy()
    rows = offsets_of(np.array([len(one.clips) for one in searched]))
    for one, start, stop in zip(searched, rows[:-1], rows[1:], strict=True):
        length = int(counts[start:stop].max())
        present = present_CL[start:stop, :length]
        scores_CLL = logs_CLL[start:stop, :length, :length]
        scores_CLL = scores_CLL + factor * one.fused_scores[:, None, None]
        later = np.triu(np.ones((length, length), dtype=bool))
        is_span = later & present[:, :, None] & present[:, None, :]
        clip, first, last = np.nonzero(is_span)
        yield _Spans(
            scores=scores_CLL[is_span],
            first=one.offsets[clip] + first,
            last=one.offsets[clip] + last,
            inside=offsets_CL2[start:stop, :length][present],
        )


def _best_moments(
    candidates: _Spans, searched: _Searched, features: SplitFeatures, config: MomentConfig
) -> CorpusMoments:
    num_kept = config.num_predictions
    depth = num_kept if config.nms_iou is None else BEFORE_SUPPRESSION * num_kept
    order = _top(candidates.scores, depth)
    rank = np.searchsorted(searched.offsets, candidates.first[order], side="right") - 1
    clips = searched.clips[rank]
    to_row = features.segment_offsets[clips] - searched.offsets[rank]
    spans = _bounds(candidates, order, to_row, features.segment_spans)
    moments = np.column_stack([spans, candidates.scores[order]]).astype(np.float64)
    kept = np.arange(len(order))
    if config.nms_iou is not None:
        kept = _suppressed(clips, spans, config.nms_iou)
    kept = kept[:num_kept]
    return CorpusMoments(clips=clips[kept], moments=moments[kept])


def _bounds(
    candidates: _Spans, order: np.ndarray, to_row: np.ndarray, segments: np.ndarray
) -> np.ndarray:
    """(n, 2) seconds of the spans of some places, with the offsets inside their segments.

    to_row: (n,) what is added to a place among the searched segments for its row in `segments`.
    """
    first, last = candidates.first[order], candidates.last[order]
    whole = np.column_stack([segments[to_row + first, 0], segments[to_row + last, 1]])
    if candidates.inside is None:
        return whole
    spans = np.column_stack(
        [
            segments[to_row + place, 0]
            + candidates.inside[place, side].astype(np.float64)
            * (segments[to_row + place, 1] - segments[to_row + place, 0])
            for side, place in enumerate((first, last))
        ]
    )
    return np.where((spans[:, 1] > spans[:, 0])[:, None], spans, whole)


def _suppressed(clips: np.ndarray, spans: np.ndarray, threshold: float) -> np.ndarray:
    """Places that are kept, clip by clip, in their order."""
    kept = [
        clip_places[suppress(spans[clip_places], threshold=threshold)]
        for clip_places in (np.flatnonzero(clips == clip) for clip in np.unique(clips))
    ]
    return np.sort(np.concatenate(kept))


def _top(scores: np.ndarray, top_k: int) -> np.ndarray:
    """Places of the best scores, best first, equal ones in order."""
    return np.argsort(-scores, kind="stable")[:top_k]
