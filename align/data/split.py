"""One split to train on: its pairs worked out, its tensors in memory or on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from ...data_manifests.core.errors import UserError
from ...extract.cache.ragged import Ragged
from ...extract.cache.store import SplitFeatures
from ..config import RunConfig
from .pairs import SpanPairs, span_pairs, word_ids
from .task_items import TaskItems, task_items
from .token_batches import TokenFeatures, token_features

BLOCK_ROWS: Final = 1 << 16
"""Rows of features looked at, or encoded, at a time."""
SHARE_OF_GPU: Final = 0.7
"""Of its free memory that the features of a split may fill."""


class TrainingDataError(UserError):
    """Features that cannot be trained on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSplit:
    """One split with its pairs worked out; its features are on the device if they fit there."""

    device: torch.device
    """Where steps are taken."""
    clip_features: Tensor
    """(N, D) float32."""
    segment_features: Tensor
    """(S, D) float32."""
    text_features: Tensor
    """(T, D) float32."""
    segment_offsets: np.ndarray
    """(N + 1,) int64."""
    text_words: np.ndarray
    """(T,) int64, equal for texts with the same normalised words."""
    global_texts: Ragged | None
    """Texts of the split by clip; None where the level is not trained."""
    segment_texts: Ragged | None
    """Texts of the split by clip; None where the level is not trained."""
    segment_pairs: SpanPairs | None
    """Of segment_texts.values, in that order."""
    tokens: TokenFeatures | None = None
    """None where the token level is not trained."""
    clips: np.ndarray
    """(n,) int64, the clips that have a text of a trained level, or a trained task's question; the
    others are left out."""
    tasks: TaskItems
    """Questions and moments of the tasks that are trained."""
    items_per_clip: int
    """How many of each a clip brings to a batch at most."""
    texts_per_clip: int
    """How many of its global texts a clip brings to a batch at most."""


def load_training_split(
    split: SplitFeatures, *, config: RunConfig, device: torch.device, answers: Sequence[str] = ()
) -> TrainingSplit:
    """Work out a split's pairs for the terms that have a weight, and put it on the device.

    Features that do not fit there stay where they are. answers: the vocabulary of open-ended
    questions. Raises TrainingDataError when features are not finite or a term with a weight has
    no pairs, TaskDataError when such a task has no items.
    """
    losses = config.losses
    check_finite(split)
    is_segment = split.text_is_segment
    global_texts = segment_texts = pairs = None
    for weight in ("global_weight", "weak_segment_weight", "token_weight"):
        if getattr(losses, weight) > 0:
            global_texts = _texts_by_clip(split, np.flatnonzero(~is_segment))
            if np.count_nonzero(np.diff(global_texts.offsets)) < 2:
                raise TrainingDataError(_no_pairs(split, weight, "texts without a span"))
    if losses.weak_segment_weight > 0:
        _check_segments(split)
    annotated = "segment_weight" if losses.segment_weight > 0 else "in_clip_weight"
    if getattr(losses, annotated) > 0:
        segment_texts = _texts_by_clip(split, np.flatnonzero(is_segment))
        pairs = span_pairs(
            text_spans=split.text_spans[segment_texts.values],
            text_clips=split.text_clips[segment_texts.values],
            segment_spans=split.segment_spans,
            segment_offsets=split.segment_offsets,
            overlap_iou=losses.overlap_iou,
        )
        if not pairs.positive.any():
            raise TrainingDataError(_no_pairs(split, annotated, "texts with a span"))
        needs_in_clip = losses.in_clip_weight > 0 or losses.cross_clip_negative_weight == 0
        if needs_in_clip and pairs.related.all():
            raise TrainingDataError(
                f"losses.in_clip_weight, or losses.cross_clip_negative_weight=0, asks for "
                f"negatives inside clips, but in the split {split.split!r} no clip has a text "
                f"together with a segment that it is not about: cut clips finer with "
                f"mlalign-extract resegment, or leave these settings out"
            )
    tasks = task_items(split, config=config.tasks, answers=answers, device=device)
    levels = [level.offsets for level in (global_texts, segment_texts) if level is not None]
    offsets = levels + [items.offsets for items in tasks.by_clip.values()]
    takes_part = np.any([np.diff(own) > 0 for own in offsets], axis=0)
    of_tokens = []
    if losses.token_weight > 0 and split.frames is not None and split.tokens is not None:
        of_tokens = [split.frames.values, split.tokens.values]
    clip_features, segment_features, text_features, *tokens = move_if_it_fits(
        split.clip_features, split.segment_features, split.text_features, *of_tokens, device=device
    )
    return TrainingSplit(
        device=device,
        clip_features=clip_features,
        segment_features=segment_features,
        text_features=text_features,
        segment_offsets=split.segment_offsets,
        text_words=word_ids(split.texts),
        global_texts=global_texts,
        segment_texts=segment_texts,
        segment_pairs=pairs,
        tokens=token_features(split, *tokens) if losses.token_weight > 0 else None,
        clips=np.flatnonzero(takes_part),
        tasks=tasks,
        items_per_clip=config.tasks.items_per_clip,
        texts_per_clip=config.optimiser.texts_per_clip,
    )


def move_if_it_fits(*features: np.ndarray, device: torch.device) -> tuple[Tensor, ...]:
    """The arrays on the device; where they are, when they would fill too much of a GPU."""
    tensors = tuple(torch.from_numpy(array) for array in features)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if sum(tensor.nbytes for tensor in tensors) > SHARE_OF_GPU * free:
            return tensors
    return tuple(tensor.to(device) for tensor in tensors)


def gather_rows(features: Tensor, rows: Tensor) -> Tensor:
    """features[rows] on the device of the rows, wherever the features are."""
    return features[rows.to(features.device)].to(rows.device)


def check_finite(split: SplitFeatures) -> None:
    """Raise TrainingDataError, naming clips, when a feature of the split is NaN or infinite."""
    own = np.arange(len(split.clip_ids))
    kinds = [
        ("clip", split.clip_features, own),
        ("segment", split.segment_features, np.repeat(own, np.diff(split.segment_offsets))),
        ("text", split.text_features, split.text_clips),
    ]
    for kind, ragged, owners in (
        ("frame", split.frames, own),
        ("token", split.tokens, split.text_clips),
    ):
        if ragged is not None:
            clips_of_rows = np.repeat(owners, np.diff(ragged.offsets))
            kinds.append((kind, ragged.values, clips_of_rows))
    for kind, features, clips in kinds:
        # In blocks: of a split that is mapped only some rows are in memory.
        starts = range(0, len(features), BLOCK_ROWS)
        finite = [np.isfinite(features[at : at + BLOCK_ROWS]).all(axis=1) for at in starts]
        bad = ~np.concatenate([np.ones(0, dtype=bool), *finite])
        if bad.any():
            names = [split.clip_ids[clip] for clip in np.unique(clips[bad])]
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if names[5:] else "")
            raise TrainingDataError(
                f"split {split.split!r}: {int(bad.sum())} of {len(bad)} {kind} features are NaN "
                f"or infinite, those of the clips {shown}: extract these clips again"
            )


def _texts_by_clip(split: SplitFeatures, texts: np.ndarray) -> Ragged:
    by_clip = Ragged.grouped(split.text_clips[texts], num_groups=len(split.clip_ids))
    return Ragged(values=texts[by_clip.values], offsets=by_clip.offsets)


def _check_segments(split: SplitFeatures) -> None:
    empty = np.flatnonzero(np.diff(split.segment_offsets) == 0)
    if len(empty):
        raise TrainingDataError(
            f"losses.weak_segment_weight is set, which needs a segment in every clip, but "
            f"{len(empty)} of the {len(split.clip_ids)} clips of the split {split.split!r} have no "
            f"segments {split.segment_rule!r} (first: {split.clip_ids[empty[0]]}): cut them with "
            f"mlalign-extract resegment, or leave the term out with "
            f"--set losses.weak_segment_weight=0"
        )


def _no_pairs(split: SplitFeatures, weight: str, texts: str) -> str:
    is_segment = split.text_is_segment
    message = (
        f"losses.{weight} is set, but the split {split.split!r} has no pairs for it: it needs "
        f"{texts} on two clips at least, and the split has {len(split.clip_ids)} clips, "
        f"{int((~is_segment).sum())} texts without and {int(is_segment.sum())} with a span. "
        f"Leave it out with --set losses.{weight}=0"
    )
    if weight in ("segment_weight", "in_clip_weight") and (~is_segment).any():
        message += ", and learn from segments without spans with --set losses.weak_segment_weight=1"
    return message
