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
from ...extract.cache.split_features import SplitFeatures, sentences_of_texts
from ..config import RunConfig
from ..loss_config import LossConfig
from .pairs import SpanPairs, overlapping_clips, span_pairs, word_ids
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
    sentence_features: Tensor
    """(K, D) float32, sentences that were split off texts at extraction; see `sentences`."""
    sentences: Ragged
    """Of each of the T texts its sentences: rows of text_features, and from T on of
    sentence_features."""
    text_words: np.ndarray
    """(T,) int64, equal for texts with the same normalised words."""
    overlapping_clips: Ragged
    """For each clip the other clips of its video that overlap it in time."""
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

    config: of `trainable`: every weight above 0 is of a level or task that the split has data for.
    Features that do not fit on the device stay where they are. answers: the vocabulary of
    open-ended questions. Raises TrainingDataError when features are not finite.
    """
    losses = config.losses
    check_finite(split)
    global_texts = segment_texts = pairs = None
    if losses.global_weight > 0 or losses.token_weight > 0 or losses.weak_segment_weight:
        global_texts = _texts_by_clip(split, np.flatnonzero(~split.text_is_segment))
    if losses.trains_on_spans:
        segment_texts = _texts_by_clip(split, np.flatnonzero(split.text_is_segment))
        pairs = _pairs_of_spans(split, segment_texts, losses)
    tasks = task_items(split, config=config.tasks, answers=answers, device=device)
    levels = [level.offsets for level in (global_texts, segment_texts) if level is not None]
    offsets = levels + [items.offsets for items in tasks.by_clip.values()]
    takes_part = np.any([np.diff(own) > 0 for own in offsets], axis=0)
    of_tokens = []
    if losses.token_weight > 0 and split.frames is not None and split.tokens is not None:
        of_tokens = [split.frames.values, split.tokens.values]
    no_sentences = np.zeros((0, split.text_features.shape[1]), dtype=np.float32)
    clip_features, segment_features, text_features, sentence_features, *tokens = move_if_it_fits(
        split.clip_features,
        split.segment_features,
        split.text_features,
        no_sentences if split.sentences is None else split.sentences.values,
        *of_tokens,
        device=device,
    )
    return TrainingSplit(
        device=device,
        clip_features=clip_features,
        segment_features=segment_features,
        text_features=text_features,
        sentence_features=sentence_features,
        sentences=sentences_of_texts(split),
        segment_offsets=split.segment_offsets,
        text_words=word_ids(split.texts),
        overlapping_clips=_overlapping_clips(split),
        global_texts=global_texts,
        segment_texts=segment_texts,
        segment_pairs=pairs,
        tokens=token_features(split, *tokens) if losses.token_weight > 0 else None,
        clips=np.flatnonzero(takes_part),
        tasks=tasks,
        items_per_clip=config.tasks.items_per_clip,
        texts_per_clip=config.optimiser.texts_per_clip,
    )


def _pairs_of_spans(split: SplitFeatures, segment_texts: Ragged, losses: LossConfig) -> SpanPairs:
    """Raises TrainingDataError where negatives inside clips are asked for and there are none."""
    pairs = segment_text_pairs(split, segment_texts.values)
    needs_in_clip = losses.in_clip_weight > 0 or losses.cross_clip_negative_weight == 0
    if needs_in_clip and pairs.related.all():
        raise TrainingDataError(
            f"losses.in_clip_weight, or losses.cross_clip_negative_weight=0, asks for "
            f"negatives inside clips, but in the split {split.split!r} no clip has a text "
            f"together with a segment that it is not about: cut clips finer with "
            f"mlalign-extract resegment, or leave these settings out"
        )
    return pairs


def segment_text_pairs(split: SplitFeatures, texts: np.ndarray) -> SpanPairs:
    """The pairs of texts with a span, (T,) int64 rows of the split's texts, and segments."""
    return span_pairs(
        text_spans=split.text_spans[texts],
        text_clips=split.text_clips[texts],
        segment_spans=split.segment_spans,
        segment_offsets=split.segment_offsets,
    )


def _overlapping_clips(split: SplitFeatures) -> Ragged:
    num_clips = len(split.clip_ids)
    if split.clip_videos is None or split.clip_starts is None:
        return Ragged.of([[]] * num_clips)
    return overlapping_clips(split.clip_videos, split.clip_starts, split.clip_durations)


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


def gather_sentences(split: TrainingSplit, rows: np.ndarray) -> Tensor:
    """(R, D) on the device, the features of sentences: rows of TrainingSplit.sentences."""
    num_texts = len(split.text_features)
    own, extracted = np.flatnonzero(rows < num_texts), np.flatnonzero(rows >= num_texts)
    texts = torch.from_numpy(rows[own]).to(split.device)
    if not len(extracted):
        return gather_rows(split.text_features, texts)
    features = split.text_features.new_empty((len(rows), split.text_features.shape[1]))
    features = features.to(split.device)
    features[torch.from_numpy(own)] = gather_rows(split.text_features, texts)
    places = torch.from_numpy(rows[extracted] - num_texts).to(split.device)
    features[torch.from_numpy(extracted)] = gather_rows(split.sentence_features, places)
    return features


def check_finite(split: SplitFeatures) -> None:
    """Raise TrainingDataError, naming clips, when a feature of the split is NaN or infinite."""
    own, asked = np.arange(len(split.clip_ids)), split.questions
    of_options = np.repeat(asked.clips, np.diff(asked.option_offsets))
    kinds = [
        ("clip", split.clip_features, own),
        ("segment", split.segment_features, np.repeat(own, np.diff(split.segment_offsets))),
        ("text", split.text_features, split.text_clips),
        ("question", asked.question_features, asked.clips),
        ("option", asked.option_features, of_options),
    ]
    for kind, ragged, owners in (
        ("sentence", split.sentences, split.text_clips),
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
