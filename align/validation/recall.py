"""Text-to-clip recall on a split, by the global, the segment and the fused score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from ...extract.cache.ragged import Ragged, ragged_rows
from ...extract.cache.split_features import SplitFeatures, sentence_features, sentences_of_texts
from ..data.split import check_finite, move_if_it_fits
from ..data.token_batches import TokenFeatures, offsets_of_items
from ..model.model import AlignmentModel
from .encode_blocks import query_tokens, scores_of_queries, texts_in_blocks, videos_in_blocks

# N = clips, S = segments, Q = queries, R = sentences of the queries

FUSED_WEIGHTS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Weights of the global score in the fused one, of which the best counts."""
BLOCK_SCORES: Final = 1 << 24
"""Scores held at a time: 64 MiB of float32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextQueries:
    """Q texts with their sentences, and the clip that each is about."""

    texts: Tensor
    """(Q, D) float32."""
    sentences: Tensor
    """(R, D) float32, texts end to end."""
    counts: Tensor
    """(Q,) int64, sentences of each text, one or more."""
    clips: Tensor
    """(Q,) int64."""

    def __len__(self) -> int:
        return len(self.clips)


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationSplit:
    """One split as queries and what they look for; features of clips and segments that do not fit
    on the device are where they were."""

    clip_features: Tensor
    """(N, D) float32."""
    segment_features: Tensor
    """(S, D) float32."""
    segment_counts: Tensor
    """(N,) int64."""
    queries: TextQueries | None
    """The global texts; None without any."""
    segment_queries: TextQueries | None
    """Of each clip its segment texts as the sentences of one query (whose own feature is that of
    the first of them); None without any."""
    tokens: TokenFeatures | None = None
    """The frames of the clips, and the words of the queries; None where the token level is not
    trained."""


def load_validation_split(
    split: SplitFeatures, *, device: torch.device, with_tokens: bool = False
) -> ValidationSplit:
    """Put a split on the device; raises TrainingDataError when its features are not finite.

    with_tokens: for the token level, too."""
    check_finite(split)
    is_segment = split.text_is_segment
    texts, with_span = np.flatnonzero(~is_segment), np.flatnonzero(is_segment)
    clip_features, segment_features = move_if_it_fits(
        split.clip_features, split.segment_features, device=device
    )
    rows, _ = ragged_rows((sentences := sentences_of_texts(split)).offsets, texts)
    lists = Ragged(
        values=sentences.values[rows], offsets=offsets_of_items(sentences.offsets, texts)
    )
    by_clip = Ragged.grouped(split.text_clips[with_span], num_groups=len(split.clip_ids))
    clips = np.flatnonzero(by_clip.counts)
    of_clips = Ragged(
        values=with_span[by_clip.values], offsets=offsets_of_items(by_clip.offsets, clips)
    )
    return ValidationSplit(
        clip_features=clip_features,
        segment_features=segment_features,
        segment_counts=torch.from_numpy(np.diff(split.segment_offsets)).to(device),
        queries=_queries(split, texts, lists, split.text_clips[texts], device),
        segment_queries=_queries(split, of_clips.firsts, of_clips, clips, device),
        tokens=query_tokens(split, texts, device=device) if with_tokens else None,
    )


def _queries(
    split: SplitFeatures,
    texts: np.ndarray,
    sentences: Ragged,
    clips: np.ndarray,
    device: torch.device,
) -> TextQueries | None:
    """texts: (Q,) rows of the texts.   sentences: of each its rows of `sentence_features`."""
    if not len(texts):
        return None
    arrays = (
        split.text_features[texts],
        sentence_features(split)[sentences.values],
        sentences.counts,
        clips,
    )
    features, of_sentences, counts, own = (torch.from_numpy(a).to(device) for a in arrays)
    return TextQueries(texts=features, sentences=of_sentences, counts=counts, clips=own)


@torch.no_grad()
def validate(model: AlignmentModel, split: ValidationSplit) -> dict[str, float]:
    """Recall at 1, text to clip, among all clips of the split; ties count as misses.

    global_recall_at_1: each global text by its global score. segment_recall_at_1: by late
    interaction, the mean over its sentences of the best segment's cosine; where there are texts
    with spans, all those of a clip are the sentences of one query instead. fused_recall_at_1: each
    global text by a * global + (1 - a) * segment, at the best of a few weights a.
    recall_at_1: the mean of these three, or of those that the split has queries for.
    token_recall_at_1: each global text by its words and the clip's frames, where the split has
    them. A number whose queries the split does not have is left out.
    """
    was_training = model.training
    model.eval()
    metrics: dict[str, float] = {}
    clips, segments = videos_in_blocks(
        model, split.clip_features, split.segment_features, split.segment_counts
    )
    counts = split.segment_counts
    if split.queries is not None:
        recalls = _recalls(model, split.queries, clips, segments, counts)
        metrics["fused_recall_at_1"] = max(recalls)
        metrics["global_recall_at_1"], metrics["segment_recall_at_1"] = recalls[-1], recalls[0]
    if split.segment_queries is not None:
        by_segments, *_ = _recalls(model, split.segment_queries, clips, segments, counts)
        metrics["segment_recall_at_1"] = by_segments
    if metrics:
        metrics = {"recall_at_1": sum(metrics.values()) / len(metrics), **metrics}
    if split.tokens is not None and split.queries is not None:
        metrics["token_recall_at_1"] = _token_recall(model, split, split.queries, split.tokens)
    model.train(was_training)
    return metrics


def _recalls(
    model: AlignmentModel,
    queries: TextQueries,
    clips: Tensor,
    segments: Tensor,
    segment_counts: Tensor,
) -> list[float]:
    """Recall at 1 by the fused score, for each of FUSED_WEIGHTS."""
    wholes, parts = texts_in_blocks(model, queries.texts, queries.sentences, queries.counts)
    ends = queries.counts.cumsum(0)
    step = max(1, BLOCK_SCORES // (len(segments) * int(queries.counts.max())))
    hits = [0] * len(FUSED_WEIGHTS)
    for first in range(0, len(queries), step):
        block = slice(first, first + step)
        counts = queries.counts[block]
        begin, end = int(ends[first] - counts[0]), int(ends[first] + counts[1:].sum())
        cosines_SR = segments @ parts[begin:end].T
        best_NR = torch.segment_reduce(cosines_SR, "max", lengths=segment_counts, axis=0)
        segment_QN = torch.segment_reduce(best_NR.T.contiguous(), "mean", lengths=counts, axis=0)
        global_QN = wholes[block] @ clips.T
        for place, weight in enumerate(FUSED_WEIGHTS):
            scores_QN = torch.lerp(segment_QN, global_QN, weight)
            hits[place] += count_top_1(scores_QN, queries.clips[block])
    return [hit / len(queries) for hit in hits]


def _token_recall(
    model: AlignmentModel, split: ValidationSplit, queries: TextQueries, tokens: TokenFeatures
) -> float:
    first = hits = 0
    for scores in scores_of_queries(model, tokens, clip_features=split.clip_features):
        hits += count_top_1(scores, queries.clips[first : first + len(scores)])
        first += len(scores)
    return hits / first


def count_top_1(scores: Tensor, truth: Tensor) -> int:
    """Queries whose own item is strictly ahead of all others.

    scores: (queries, items), higher is closer.   truth: (queries,) item index.
    """
    true_scores = scores.gather(1, truth[:, None])
    return int(((scores >= true_scores).sum(dim=1) == 1).sum())
