"""What a step minimises: the named loss terms of a batch, a pure function of model and data."""

from __future__ import annotations

from typing import assert_never

import torch
from torch import Tensor

from .batches import Batch, LevelBatch, TrainingSplit, gathered
from .config import LossConfig, RunConfig
from .losses import hinge, hinge_of_few, in_clip_logistic, info_nce, info_nce_of_few, sigmoid
from .model import AlignmentModel
from .segment_pooling import pool_segments
from .tasks import padded_clips, task_terms

# V = clips or segments in the batch, T = texts in the batch, P = pairs inside the clips


def loss_terms(
    model: AlignmentModel, split: TrainingSplit, batch: Batch, *, config: RunConfig, epoch: int
) -> dict[str, Tensor]:
    """The weighted total "loss" and the unweighted terms; epoch counts from 1.

    "segment" is the sum of "segment_in_clip", telling the right segment from the others of its
    clip, and "segment_cross_clip", what the segments of other clips add to it (for info_nce the
    chain rule of the softmax). These two are for the log and carry no gradient.
    """
    losses = config.losses
    vectors = _encode(model, split, batch, losses=losses)
    terms: dict[str, Tensor] = {}
    if batch.global_level is not None and losses.global_weight > 0:
        similarities_VT = _similarities(model, vectors["clips"], vectors["texts"], losses)
        terms["global"] = _contrast(similarities_VT, batch.global_level, losses=losses, epoch=epoch)
    if batch.global_level is not None and losses.weak_segment_weight > 0:
        similarities_VT = _weak_similarities(model, vectors, batch, losses)
        terms["weak_segment"] = _contrast(
            similarities_VT, batch.global_level, losses=losses, epoch=epoch
        )
    if batch.segment_level is not None:
        level = batch.segment_level
        similarities_VT = _similarities(model, vectors["segments"], vectors["sentences"], losses)
        if losses.segment_weight > 0:
            terms |= _segment_terms(similarities_VT, level, losses=losses, epoch=epoch)
        if losses.in_clip_weight > 0:
            scale = model.logit_scale if losses.name == "hinge" else 1
            terms["in_clip"] = in_clip_logistic(
                scale * similarities_VT[level.in_clip_rows, level.in_clip_columns],
                columns_P=level.in_clip_columns,
                positive_P=level.positive[level.in_clip_rows, level.in_clip_columns],
                negative_P=level.negative[level.in_clip_rows, level.in_clip_columns],
                num_texts=len(level.texts),
            )
    if batch.drawn:
        encoded = padded_clips(vectors["clips"], vectors["segments"], batch.segment_counts)
        terms |= task_terms(model, split, batch.drawn, encoded, config=config.tasks)
    total = torch.zeros((), device=split.device)
    for name, weight in (
        ("global", losses.global_weight),
        ("weak_segment", losses.weak_segment_weight),
        ("segment", losses.segment_weight),
        ("in_clip", losses.in_clip_weight),
        *config.tasks.weights.items(),
    ):
        if name in terms:
            total = total + weight * terms[name]
    return {"loss": total, **terms}


def _encode(
    model: AlignmentModel, split: TrainingSplit, batch: Batch, *, losses: LossConfig
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
    model: AlignmentModel, vectors: dict[str, Tensor], batch: Batch, losses: LossConfig
) -> Tensor:
    """(B, T): clips with texts, by the segments that match best."""
    cosines_VT = pool_segments(
        vectors["segments"] @ vectors["weak_texts"].T,
        counts_N=batch.segment_counts,
        pooling=losses.weak_pooling,
        temperature=losses.weak_temperature,
    )
    return cosines_VT if losses.name == "hinge" else model.logits_of(cosines_VT)


def _similarities(
    model: AlignmentModel, videos: Tensor, texts: Tensor, losses: LossConfig
) -> Tensor:
    """(V, T): cosines where the loss has a margin between them, logits for the others."""
    return videos @ texts.T if losses.name == "hinge" else model.logits(videos, texts)


def _contrast(
    similarities_VT: Tensor,
    level: LevelBatch,
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
                margin=losses.margin,
                hardest=_is_hardest(losses, epoch),
                negative_weight_VT=weight,
            )
        case _:
            assert_never(losses.name)


def _is_hardest(losses: LossConfig, epoch: int) -> bool:
    return losses.hardest_from_epoch is not None and epoch >= losses.hardest_from_epoch


def _segment_terms(
    similarities_VT: Tensor, level: LevelBatch, *, losses: LossConfig, epoch: int
) -> dict[str, Tensor]:
    """The term of the annotated segments and, without gradient, its two parts."""
    in_clip, cross_clip = losses.in_clip_negative_weight, losses.cross_clip_negative_weight
    weights_VT = None
    if (in_clip, cross_clip) != (1, 1):
        weights_VT = _negative_weights(similarities_VT, level, in_clip, cross_clip)
    total = _contrast(
        similarities_VT, level, losses=losses, epoch=epoch, negative_weight_VT=weights_VT
    )
    part = _in_clip_part(similarities_VT.detach(), level, losses=losses, epoch=epoch)
    return {"segment": total, "segment_in_clip": part, "segment_cross_clip": total.detach() - part}


def _in_clip_part(
    similarities_VT: Tensor, level: LevelBatch, *, losses: LossConfig, epoch: int
) -> Tensor:
    """What the term is with the negatives of its own clip alone, from these P pairs."""
    rows_P, columns_P = level.in_clip_rows, level.in_clip_columns
    weight = losses.in_clip_negative_weight
    similarities_P = similarities_VT[rows_P, columns_P]
    positive_P, negative_P = level.positive[rows_P, columns_P], level.negative[rows_P, columns_P]
    match losses.name:
        case "info_nce":
            return info_nce_of_few(
                similarities_P,
                rows_P=rows_P,
                columns_P=columns_P,
                positive_P=positive_P,
                negative_P=negative_P,
                shape=(len(level.videos), len(level.texts)),
                negative_weight=weight,
            )
        case "sigmoid":
            return sigmoid(
                similarities_P,
                positive_VT=positive_P,
                negative_VT=negative_P,
                negative_weight_VT=torch.full_like(similarities_P, weight),
            )
        case "hinge":
            return hinge_of_few(
                similarities_P,
                rows_P=rows_P,
                columns_P=columns_P,
                positive_P=positive_P,
                negative_P=negative_P,
                counts=(level.negative.sum(dim=1), level.negative.sum(dim=0)),
                margin=losses.margin,
                hardest=_is_hardest(losses, epoch),
                negative_weight=weight,
            )
        case _:
            assert_never(losses.name)


def _negative_weights(
    similarities_VT: Tensor, level: LevelBatch, in_clip: float, cross_clip: float
) -> Tensor:
    weights_VT = torch.full_like(similarities_VT, cross_clip)
    weights_VT[level.in_clip_rows, level.in_clip_columns] = in_clip
    return weights_VT
