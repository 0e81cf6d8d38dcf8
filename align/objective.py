"""What a step minimises: the named loss terms of a batch, a pure function of model and data."""

from __future__ import annotations

from typing import assert_never

import numpy as np
import torch
from torch import Tensor

from .batches import Batch, LevelBatch
from .config import LossConfig, RunConfig
from .loss_numbers import LossNumbers, loss_numbers
from .losses import (
    hinge,
    hinge_of_few,
    in_clip_logistic,
    info_nce,
    info_nce_of_few,
    rows_and_columns,
    sigmoid,
    sigmoid_of_few,
)
from .model import AlignmentModel, Encoder
from .segment_pooling import pool_segments
from .tasks import padded_clips, task_terms
from .token_batches import TokenBatch
from .training_split import TrainingSplit, gathered

# V = clips or segments in the batch, T = texts in the batch, P = pairs inside the clips
# M = runs that train together: all terms are (M,) then, and tables (M, V, T)


def loss_terms(
    model: AlignmentModel, split: TrainingSplit, batch: Batch, *, config: RunConfig, epoch: int
) -> dict[str, Tensor]:
    """The weighted total "loss" and the unweighted terms; epoch counts from 1.

    "segment" is the sum of "segment_in_clip", telling the right segment from the others of its
    clip, and "segment_cross_clip", what the segments of other clips add to it (for info_nce the
    chain rule of the softmax). These two are for the log and carry no gradient.
    """
    numbers = loss_numbers(config)
    vectors, terms = level_terms(model, split, batch, numbers, losses=config.losses, epoch=epoch)
    if batch.tokens is not None and batch.global_level is not None:
        terms["token"] = _contrast(
            _token_similarities(model, split, batch, batch.tokens, losses=config.losses),
            batch.global_level,
            numbers,
            losses=config.losses,
            epoch=epoch,
        )
    if batch.drawn:
        encoded = padded_clips(vectors["clips"], vectors["segments"], batch.segment_counts)
        terms |= task_terms(model, split, batch.drawn, encoded, config=config.tasks)
    return with_total(terms, numbers, device=split.device)


def level_terms(
    model: Encoder,
    split: TrainingSplit,
    batch: Batch,
    numbers: LossNumbers,
    *,
    losses: LossConfig,
    epoch: int,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The vectors of a batch, and the unweighted terms of the levels, of one or several runs.

    losses: what several runs have in common.
    """
    vectors = _encode(model, split, batch, losses=losses)
    terms: dict[str, Tensor] = {}
    if batch.global_level is not None and losses.global_weight > 0:
        similarities_VT = _similarities(model, vectors["clips"], vectors["texts"], losses)
        terms["global"] = _contrast(
            similarities_VT, batch.global_level, numbers, losses=losses, epoch=epoch
        )
    if batch.global_level is not None and losses.weak_segment_weight > 0:
        similarities_VT = _weak_similarities(model, vectors, batch, numbers, losses)
        terms["weak_segment"] = _contrast(
            similarities_VT, batch.global_level, numbers, losses=losses, epoch=epoch
        )
    if batch.segment_level is not None:
        level = batch.segment_level
        similarities_VT = _similarities(model, vectors["segments"], vectors["sentences"], losses)
        if losses.segment_weight > 0:
            terms |= _segment_terms(similarities_VT, level, numbers, losses=losses, epoch=epoch)
        if losses.in_clip_weight > 0:
            terms["in_clip"] = _in_clip_term(model, similarities_VT, level, losses)
    return vectors, terms


def with_total(
    terms: dict[str, Tensor], numbers: LossNumbers, *, device: torch.device
) -> dict[str, Tensor]:
    """The terms with their weighted total "loss" before them."""
    total = torch.zeros((), device=device)
    for name, weight in numbers.weights.items():
        if name in terms:
            total = total + weight * terms[name]
    return {"loss": total, **terms}


def _encode(
    model: Encoder, split: TrainingSplit, batch: Batch, *, losses: LossConfig
) -> dict[str, Tensor]:
    """What the terms compare, each once: clips, (global) texts, segments, sentences, weak_texts."""
    encoded: dict[str, Tensor] = {}
    clips = torch.from_numpy(batch.clips).to(split.device)
    if model.sees_segments_together:
        encoded["clips"], encoded["segments"] = model.encode_videos(
            gathered(split.clip_features, clips),
            gathered(split.segment_features, batch.segments),
            batch.segment_counts,
        )
    if batch.global_level is not None:
        level = batch.global_level
        if losses.global_weight > 0:
            if "clips" not in encoded:
                encoded["clips"] = model.encode_clips(gathered(split.clip_features, level.videos))
            encoded["texts"] = model.encode_texts(gathered(split.text_features, level.texts))
        if losses.weak_segment_weight > 0:
            is_same = "texts" in encoded and not model.separate_levels
            encoded["weak_texts"] = (
                encoded["texts"]
                if is_same
                else model.encode_sentences(gathered(split.text_features, level.texts))
            )
    if batch.drawn and "clips" not in encoded:
        encoded["clips"] = model.encode_clips(gathered(split.clip_features, clips))
    needs_segments = (
        batch.segment_level is not None or losses.weak_segment_weight > 0 or len(batch.drawn) > 0
    )
    if needs_segments and "segments" not in encoded:
        encoded["segments"] = model.encode_segments(
            gathered(split.segment_features, batch.segments)
        )
    if batch.segment_level is not None:
        features = gathered(split.text_features, batch.segment_level.texts)
        encoded["sentences"] = model.encode_sentences(features)
    return encoded


def _weak_similarities(
    model: Encoder,
    vectors: dict[str, Tensor],
    batch: Batch,
    numbers: LossNumbers,
    losses: LossConfig,
) -> Tensor:
    """(B, T): clips with texts, by the segments that match best."""
    cosines_VT = pool_segments(
        vectors["segments"] @ vectors["weak_texts"].mT,
        counts_N=batch.segment_counts,
        pooling=losses.weak_pooling,
        temperature=numbers.weak_temperature,
    )
    return cosines_VT if losses.name == "hinge" else model.logits_of(cosines_VT)


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
    frames = gathered(split.tokens.frames, tokens.frames).float()
    words = gathered(split.tokens.words, tokens.words).float()
    cosines_VT = model.token_scores(
        model.encode_frames(gathered(split.clip_features, clips), frames, counts),
        model.encode_sentences(words),
        frame_offsets=tokens.frame_offsets,
        word_offsets=tokens.word_offsets,
    )
    return cosines_VT if losses.name == "hinge" else model.logits_of(cosines_VT)


def _similarities(model: Encoder, videos: Tensor, texts: Tensor, losses: LossConfig) -> Tensor:
    """(V, T): cosines where the loss has a margin between them, logits for the others."""
    return videos @ texts.mT if losses.name == "hinge" else model.logits(videos, texts)


def _contrast(
    similarities_VT: Tensor,
    level: LevelBatch,
    numbers: LossNumbers,
    *,
    losses: LossConfig,
    epoch: int,
    negative_weight_VT: Tensor | None = None,
) -> Tensor:
    """The loss of that name over a level; a scalar."""
    positive, negative, weight = level.positive, level.negative, negative_weight_VT
    match losses.name:
        case "info_nce":
            return info_nce(
                similarities_VT,
                positive_VT=positive,
                negative_VT=negative,
                negative_weight_VT=weight,
            )
        case "sigmoid":
            return sigmoid(
                similarities_VT,
                positive_VT=positive,
                negative_VT=negative,
                negative_weight_VT=weight,
            )
        case "hinge":
            return hinge(
                similarities_VT,
                positive_VT=positive,
                negative_VT=negative,
                margin=numbers.margin,
                hardest=_is_hardest(losses, epoch),
                negative_weight_VT=weight,
            )
        case _:
            assert_never(losses.name)


def _is_hardest(losses: LossConfig, epoch: int) -> bool:
    return losses.hardest_from_epoch is not None and epoch >= losses.hardest_from_epoch


def _segment_terms(
    similarities_VT: Tensor,
    level: LevelBatch,
    numbers: LossNumbers,
    *,
    losses: LossConfig,
    epoch: int,
) -> dict[str, Tensor]:
    """The term of the annotated segments and, without gradient, its two parts."""
    in_clip, cross_clip = losses.in_clip_negative_weight, losses.cross_clip_negative_weight
    weights_VT = None
    if (in_clip, cross_clip) != (1, 1):
        weights_VT = _negative_weights(similarities_VT, level, in_clip, cross_clip)
    total = _contrast(
        similarities_VT, level, numbers, losses=losses, epoch=epoch, negative_weight_VT=weights_VT
    )
    part = _in_clip_part(similarities_VT.detach(), level, numbers, losses=losses, epoch=epoch)
    return {"segment": total, "segment_in_clip": part, "segment_cross_clip": total.detach() - part}


def _in_clip_part(
    similarities_VT: Tensor,
    level: LevelBatch,
    numbers: LossNumbers,
    *,
    losses: LossConfig,
    epoch: int,
) -> Tensor:
    """What the term is with the negatives of its own clip alone, from these P pairs."""
    rows_P, columns_P = rows_and_columns(level.in_clip, similarities_VT)
    weight = losses.in_clip_negative_weight
    similarities_P = similarities_VT[level.in_clip]
    positive_P, negative_P = level.positive[level.in_clip], level.negative[level.in_clip]
    match losses.name:
        case "info_nce":
            return info_nce_of_few(
                similarities_P,
                rows_P=rows_P,
                columns_P=columns_P,
                positive_P=positive_P,
                negative_P=negative_P,
                shape=tuple(similarities_VT.shape),
                negative_weight=weight,
            )
        case "sigmoid":
            return sigmoid_of_few(
                similarities_P,
                rows_P=rows_P,
                positive_P=positive_P,
                negative_P=negative_P,
                shape=tuple(similarities_VT.shape),
                negative_weight=weight,
            )
        case "hinge":
            return hinge_of_few(
                similarities_P,
                rows_P=rows_P,
                columns_P=columns_P,
                positive_P=positive_P,
                negative_P=negative_P,
                counts=(level.negative.sum(dim=-1), level.negative.sum(dim=-2)),
                margin=numbers.margin,
                hardest=_is_hardest(losses, epoch),
                negative_weight=weight,
            )
        case _:
            assert_never(losses.name)


def _in_clip_term(
    model: Encoder, similarities_VT: Tensor, level: LevelBatch, losses: LossConfig
) -> Tensor:
    """The term that tells a text's segments from the others of its clip."""
    _, columns_P = rows_and_columns(level.in_clip, similarities_VT)
    scale: float | Tensor = 1
    if losses.name == "hinge":  # the others have it in their similarities
        runs_P = level.in_clip_runs
        scale = model.logit_scale if runs_P is None else model.logit_scale[runs_P]
    return in_clip_logistic(
        scale * similarities_VT[level.in_clip],
        columns_P=columns_P,
        positive_P=level.positive[level.in_clip],
        negative_P=level.negative[level.in_clip],
        texts=tuple(level.texts.shape),
    )


def _negative_weights(
    similarities_VT: Tensor, level: LevelBatch, in_clip: float, cross_clip: float
) -> Tensor:
    weights_VT = torch.full_like(similarities_VT, cross_clip)
    weights_VT[level.in_clip] = in_clip
    return weights_VT
