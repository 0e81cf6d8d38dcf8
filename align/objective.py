"""What a step minimises: the named loss terms of a batch, a pure function of model and data."""

from __future__ import annotations

import torch
from torch import Tensor

from .batches import Batch, LevelBatch, TrainingSplit
from .config import RunConfig
from .losses import info_nce, info_nce_of_few
from .model import AlignmentModel


def loss_terms(
    model: AlignmentModel, split: TrainingSplit, batch: Batch, *, config: RunConfig, epoch: int
) -> dict[str, Tensor]:
    """The weighted total "loss" and the unweighted terms; epoch counts from 1.

    "segment" is the sum of "segment_in_clip", telling the right segment from the others of its
    clip, and "segment_cross_clip", what the segments of other clips add to it (the chain rule of
    the softmax). These two are for the log and carry no gradient.
    """
    losses = config.losses
    terms: dict[str, Tensor] = {}
    total = torch.zeros((), device=split.clip_features.device)
    if batch.global_level is not None:
        level = batch.global_level
        clips = model.encode_clips(split.clip_features[level.videos])
        logits = _logits(model, split, clips, level)
        terms["global"] = info_nce(logits, positive_VT=level.positive, negative_VT=level.negative)
        total = total + losses.global_weight * terms["global"]
    if batch.segment_level is not None:
        level = batch.segment_level
        segments = model.encode_segments(split.segment_features[level.videos])
        logits = _logits(model, split, segments, level)
        terms["segment"] = info_nce(logits, positive_VT=level.positive, negative_VT=level.negative)
        total = total + losses.segment_weight * terms["segment"]
        in_clip = info_nce_of_few(
            logits.detach(),
            positive_VT=level.positive,
            negative_VT=level.negative & level.same_clip,
        )
        terms["segment_in_clip"] = in_clip
        terms["segment_cross_clip"] = terms["segment"].detach() - in_clip
    return {"loss": total, **terms}


def _logits(
    model: AlignmentModel, split: TrainingSplit, videos: Tensor, level: LevelBatch
) -> Tensor:
    texts = model.encode_texts(split.text_features[level.texts])
    return model.logit_scale * videos @ texts.T
