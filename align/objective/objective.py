"""What a step minimises: the named loss terms of a batch, a pure function of model and data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, assert_never

import numpy as np
import torch
from torch import Tensor

from ..config import RunConfig
from ..data.batches import Batch, LevelBatch
from ..data.split import TrainingSplit, gather_rows, gather_sentences
from ..data.token_batches import TokenBatch
from ..loss_config import LossConfig, WeakPooling
from ..model.level_heads import LogitScale
from ..model.model import AlignmentModel
from .contrast import contrast, in_clip_term, segment_parts, segment_term
from .tasks import padded_segments, task_terms

# B = clips in the batch, V = clips or segments in the batch, T = texts in the batch


def loss_terms(
    model: AlignmentModel,
    split: TrainingSplit,
    batch: Batch,
    *,
    config: RunConfig,
    epoch: int,
    with_parts: bool = False,
) -> dict[str, Tensor]:
    """The unweighted terms; epoch counts from 1. See `level_losses`.

    with_parts: add "segment_in_clip", which tells the right segment from the others of its clip,
    and "segment_cross_clip", what the segments of other clips add to it (for info_nce the chain
    rule of the softmax). Their sum is "segment". They are for the log: they carry no gradient.
    """
    losses = config.losses
    vectors = _encode(model, split, batch, losses=losses)
    terms: dict[str, Tensor] = {}
    if batch.global_level is not None and losses.global_weight > 0:
        cosines_VT = vectors["clips"] @ vectors["texts"].T
        similarities_VT = _similarities(model.of_global.scale, cosines_VT, losses)
        terms["global"] = contrast(similarities_VT, batch.global_level, losses=losses, epoch=epoch)
    if batch.global_level is not None and losses.weak_segment_weight:
        similarities_VT = _weak_similarities(model, vectors, batch, losses)
        terms["weak_segment"] = contrast(
            similarities_VT, batch.global_level, losses=losses, epoch=epoch
        )
    if batch.segment_level is not None:
        level = batch.segment_level
        cosines_VT = vectors["segments"] @ vectors["segment_texts"].T
        similarities_VT = _similarities(model.of_segments.scale, cosines_VT, losses)
        if losses.segment_weight > 0:
            segment = segment_term(similarities_VT, level, losses=losses, epoch=epoch)
            terms["segment"] = segment
            if with_parts:
                terms |= segment_parts(
                    similarities_VT, level, segment=segment, losses=losses, epoch=epoch
                )
        if losses.in_clip_weight > 0:
            scale = model.of_segments.scale
            terms["in_clip"] = in_clip_term(scale, similarities_VT, level, losses)
    if batch.tokens is not None and batch.global_level is not None:
        similarities_VT = _token_similarities(model, split, batch, batch.tokens, losses=losses)
        terms["token"] = contrast(similarities_VT, batch.global_level, losses=losses, epoch=epoch)
    if batch.drawn:
        segments = padded_segments(vectors["segments"], batch.segment_counts)
        terms |= task_terms(model, split, batch.drawn, segments)
    return terms


LEVEL_OF_TERM: Final = {
    "global": "global",
    "weak_segment": "segment",
    "segment": "segment",
    "in_clip": "segment",
    "token": "token",
}
"""Terms of one level share its bound on the gradient; a task is a level of its own."""


def level_losses(terms: Mapping[str, Tensor], config: RunConfig) -> dict[str, Tensor]:
    """The weighted sums of the terms of each level and task that has any; their sum is the loss."""
    losses: dict[str, Tensor] = {}
    for name, weight in _term_weights(config).items():
        if name in terms:
            level = LEVEL_OF_TERM.get(name, name)
            weighted = weight * terms[name]
            losses[level] = losses[level] + weighted if level in losses else weighted
    return losses


def _term_weights(config: RunConfig) -> dict[str, float]:
    """Weights of the terms in the total, in the order in which the terms are added."""
    losses = config.losses
    return {
        "global": losses.global_weight,
        "weak_segment": losses.weak_segment_weight or 0.0,
        "segment": losses.segment_weight,
        "in_clip": losses.in_clip_weight,
        "token": losses.token_weight,
        **{str(task): weight for task, weight in config.tasks.weights.items()},
    }


def _encode(
    model: AlignmentModel, split: TrainingSplit, batch: Batch, *, losses: LossConfig
) -> dict[str, Tensor]:
    """What the terms compare: clips, texts and their sentences, segments, segment_texts."""
    encoded: dict[str, Tensor] = {}
    has_global = batch.global_level is not None and losses.global_weight > 0
    if has_global or model.sees_segments_together:
        clips = torch.from_numpy(batch.clips).to(split.device)
        encoded["clips"], encoded["segments"] = model.encode_videos(
            gather_rows(split.clip_features, clips),
            gather_rows(split.segment_features, batch.segments),
            batch.segment_counts,
        )
    elif batch.segment_level is not None or losses.weak_segment_weight or batch.drawn:
        encoded["segments"] = model.encode_segments(
            gather_rows(split.segment_features, batch.segments)
        )
    if batch.global_level is not None:
        encoded |= _encode_texts(model, split, batch, batch.global_level, losses=losses)
    if batch.segment_level is not None:
        features = gather_rows(split.text_features, batch.segment_level.texts)
        encoded["segment_texts"] = model.encode_sentences(features)
    return encoded


def _encode_texts(
    model: AlignmentModel,
    split: TrainingSplit,
    batch: Batch,
    level: LevelBatch,
    *,
    losses: LossConfig,
) -> dict[str, Tensor]:
    """The global texts and their sentences, as far as a term reads them."""
    encoded: dict[str, Tensor] = {}
    is_weak = bool(losses.weak_segment_weight)
    if not is_weak and losses.global_weight == 0:
        return encoded
    sentences = gather_sentences(split, batch.sentences)
    if is_weak or model.has_path:
        with torch.set_grad_enabled(is_weak and torch.is_grad_enabled()):
            encoded["sentences"] = model.encode_sentences(sentences)
    if losses.global_weight > 0:
        encoded["texts"] = model.whole_texts(
            gather_rows(split.text_features, level.texts),
            sentences,
            batch.sentence_counts,
            parts=encoded.get("sentences"),
        )
    return encoded


def _weak_similarities(
    model: AlignmentModel,
    vectors: dict[str, Tensor],
    batch: Batch,
    losses: LossConfig,
) -> Tensor:
    """(B, T): clips with texts, by late interaction: the mean over the sentences of a text of their
    cosine with the segments that match them best."""
    cosines_BR = pool_segments(
        vectors["segments"] @ vectors["sentences"].T,
        counts_N=batch.segment_counts,
        pooling=losses.weak_pooling,
        temperature=losses.weak_temperature,
    )
    cosines_VT = cosines_BR
    if len(batch.sentences) > len(batch.sentence_counts):
        cosines_VT = torch.segment_reduce(
            cosines_BR.T.contiguous(), "mean", lengths=batch.sentence_counts, axis=0
        ).T
    return _similarities(model.of_segments.scale, cosines_VT, losses)


def _token_similarities(
    model: AlignmentModel,
    split: TrainingSplit,
    batch: Batch,
    tokens: TokenBatch,
    *,
    losses: LossConfig,
) -> Tensor:
    """(B, T): clips with texts, by their frames and words."""
    assert split.tokens is not None
    clips = torch.from_numpy(batch.clips).to(split.device)
    counts = torch.from_numpy(np.diff(tokens.frame_offsets)).to(split.device)
    frames = gather_rows(split.tokens.frames, tokens.frames).float()
    words = gather_rows(split.tokens.words, tokens.words).float()
    cosines_VT = model.token_scores(
        model.encode_frames(gather_rows(split.clip_features, clips), frames, counts),
        model.encode_sentences(words),
        frame_offsets=tokens.frame_offsets,
        word_offsets=tokens.word_offsets,
    )
    return _similarities(model.of_segments.scale, cosines_VT, losses)


def _similarities(scale: LogitScale, cosines_VT: Tensor, losses: LossConfig) -> Tensor:
    """(V, T): cosines where the loss has a margin between them, logits for the others."""
    if losses.name == "hinge":
        return cosines_VT
    logits: Tensor = scale(cosines_VT)
    return logits


# S = segments, clips end to end; N = clips; T = texts


def pool_segments(
    cosines_ST: Tensor, *, counts_N: Tensor, pooling: WeakPooling, temperature: float
) -> Tensor:
    """(N, T): the cosines of a text with the segments of each clip as one cosine.

    cosines_ST: (S, T) float.   counts_N: (N,) int64, segments of each clip, at least one.

    max: of the best segment, as in multiple-instance learning. softmax: the mean of all, weighted
    by the softmax of cosine / temperature, as X-Pool (arXiv 2203.15086) weighs frames by a query.
    """
    best_NT = torch.segment_reduce(cosines_ST, "max", lengths=counts_N, axis=0)
    match pooling:
        case "max":
            return best_NT
        case "softmax":
            # Shifted by the best, which cancels in the quotient: exp does not overflow.
            top_ST = best_NT.detach().repeat_interleave(
                counts_N, dim=0, output_size=len(cosines_ST)
            )
            shares_ST = ((cosines_ST - top_ST) / temperature).exp()
            total_NT, weighted_NT = (
                torch.segment_reduce(table, "sum", lengths=counts_N, axis=0)
                for table in (shares_ST, shares_ST * cosines_ST)
            )
            return weighted_NT / total_NT
        case _:
            assert_never(pooling)
