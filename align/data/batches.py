"""Batches of an epoch: index gathers from tensors that stay in memory, no reads per item."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...extract.cache.ragged import Ragged, ragged_rows
from ..loss_config import TaskName
from .pairs import pair_masks
from .split import TrainingSplit
from .task_items import DrawnItems, draw_items, draw_of_each
from .token_batches import TokenBatch, token_batch


@dataclass(frozen=True, kw_only=True, slots=True)
class _LevelPairs:
    """One level of a batch as indices: V clips or segments, T texts, P pairs inside the clips."""

    videos: np.ndarray
    """(V,) int64, rows of clip_features or segment_features."""
    texts: np.ndarray
    """(T,) int64, rows of text_features."""
    in_clip_rows: np.ndarray
    """(P,) int64, rows of the pairs of which both belong to one clip; all positives are there."""
    in_clip_columns: np.ndarray
    """(P,) int64, their columns."""
    in_clip_positive: np.ndarray
    """(P,) bool."""
    related: tuple[np.ndarray, np.ndarray]
    """Rows, and the ids of words that are known to hold for them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LevelBatch:
    """One level of a batch: V clips or segments against T texts."""

    videos: Tensor
    """(V,) int64, rows of clip_features or segment_features."""
    texts: Tensor
    """(T,) int64, rows of text_features."""
    positive: Tensor
    """(V, T) bool."""
    negative: Tensor
    """(V, T) bool."""
    in_clip_rows: Tensor
    """(P,) int64, rows of the pairs of which both belong to one clip; all positives are there."""
    in_clip_columns: Tensor
    """(P,) int64, their columns."""

    @property
    def in_clip(self) -> tuple[Tensor, Tensor]:
        """The index of these pairs in a table of the level."""
        return self.in_clip_rows, self.in_clip_columns


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """What one step sees."""

    clips: np.ndarray
    """(B,) int64."""
    segments: Tensor
    """(S,) int64, rows of segment_features: all segments of the clips, clips end to end."""
    segment_counts: Tensor
    """(B,) int64, how many of them each clip has."""
    global_level: LevelBatch | None
    """The clips, with some of the global texts of each that has any."""
    sentences: np.ndarray
    """(R,) int64, the sentences of these texts, texts end to end: rows of TrainingSplit.sentences;
    empty where there is no global level."""
    sentence_counts: Tensor
    """(T,) int64, how many of them each text has, one or more."""
    segment_level: LevelBatch | None
    """All segments of the clips, with all their segment texts."""
    tokens: TokenBatch | None = None
    """The frames of the clips, with the words of the global level's texts; None where the token
    level is not trained."""
    drawn: Mapping[TaskName, DrawnItems]
    """Items of the tasks that are trained."""


def num_batches(num_clips: int, *, batch_clips: int) -> int:
    """Batches in an epoch of equal batches of at most `batch_clips` clips, none of a single clip.

    An only clip left over joins another batch: it has no negatives of its own.
    """
    return min(-(-num_clips // batch_clips), max(1, num_clips // 2))


def epoch_batches(
    split: TrainingSplit, *, batch_clips: int, seed: int, epoch: int
) -> Iterator[Batch]:
    """The batches of an epoch: every clip once, in an order drawn from (seed, epoch) alone."""
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(split.clips)
    for clips in np.array_split(order, num_batches(len(order), batch_clips=batch_clips)):
        yield make_batch(split, clips, rng=rng)


def make_batch(split: TrainingSplit, clips: np.ndarray, *, rng: np.random.Generator) -> Batch:
    """The batch of the given clips, (B,) int64; `rng` chooses their global texts, and which of
    the tasks' items take part."""
    segments, _ = ragged_rows(split.segment_offsets, clips)
    whole = _global_pairs(split, clips, rng=rng)
    tokens = None
    if split.tokens is not None and whole is not None:
        tokens = token_batch(split.tokens, clips, whole.texts, device=split.device)
    counts = np.diff(split.segment_offsets)[clips]
    texts = np.zeros(0, dtype=np.int64) if whole is None else whole.texts
    sentences, _ = ragged_rows(split.sentences.offsets, texts)
    device = split.device
    return Batch(
        clips=clips,
        segments=torch.from_numpy(segments).to(device),
        segment_counts=torch.from_numpy(counts).to(device),
        global_level=_level_batch(split, whole),
        sentences=split.sentences.values[sentences],
        sentence_counts=torch.from_numpy(split.sentences.counts[texts]).to(device),
        segment_level=_level_batch(split, _segment_pairs(split, clips)),
        tokens=tokens,
        drawn=draw_items(split.tasks, clips, max_per_clip=split.items_per_clip, rng=rng),
    )


def _global_pairs(
    split: TrainingSplit, clips: np.ndarray, *, rng: np.random.Generator
) -> _LevelPairs | None:
    """The clips with the texts that are drawn for them; None where the level is not trained."""
    captions = split.global_texts
    if captions is None:
        return None
    texts, rows = _draw_texts(captions, clips, max_per_clip=split.texts_per_clip, rng=rng)
    # All captions of a clip hold for it, not only those that were drawn, and may well hold for a
    # clip that shares some of its seconds.
    others, other_rows = ragged_rows(split.overlapping_clips.offsets, clips)
    known_clips = np.concatenate([clips, split.overlapping_clips.values[others]])
    rows_of_known = np.concatenate([np.arange(len(clips)), other_rows])
    known, positions = ragged_rows(captions.offsets, known_clips)
    known_rows = rows_of_known[positions]
    return _LevelPairs(
        videos=clips,
        texts=texts,
        in_clip_rows=rows,
        in_clip_columns=np.arange(len(rows)),
        in_clip_positive=np.ones(len(rows), dtype=bool),
        related=(known_rows, split.text_words[captions.values[known]]),
    )


def _draw_texts(
    captions: Ragged, clips: np.ndarray, *, max_per_clip: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Up to max_per_clip texts of each clip, and for each its clip's position in `clips`."""
    if max_per_clip == 1:
        counts = captions.offsets[clips + 1] - captions.offsets[clips]
        drawn = captions.offsets[clips] + (rng.random(len(clips)) * counts).astype(np.int64)
        rows = np.flatnonzero(counts)
        return captions.values[drawn[rows]], rows
    return draw_of_each(captions, clips, max_per_clip=max_per_clip, rng=rng)


def _segment_pairs(split: TrainingSplit, clips: np.ndarray) -> _LevelPairs | None:
    """All segments of the clips with their texts; None where the level is not trained."""
    sentences, pairs = split.segment_texts, split.segment_pairs
    if sentences is None or pairs is None:
        return None
    segments, segment_clip = ragged_rows(split.segment_offsets, clips)
    places, text_clip = ragged_rows(sentences.offsets, clips)
    texts = sentences.values[places]
    inside, columns = ragged_rows(pairs.text_offsets, places)
    # Segments of a clip are neighbours in the split and in the batch: rows follow by a shift.
    first_row = np.searchsorted(segment_clip, np.arange(len(clips)))
    shift = split.segment_offsets[clips] - first_row
    rows = pairs.segments[inside] - shift[text_clip[columns]]
    related = pairs.related[inside]
    known_rows, known_words = _of_overlapping_clips(split, sentences, clips, segment_clip)
    return _LevelPairs(
        videos=segments,
        texts=texts,
        in_clip_rows=rows,
        in_clip_columns=columns,
        in_clip_positive=pairs.positive[inside],
        related=(
            np.concatenate([rows[related], known_rows]),
            np.concatenate([split.text_words[texts][columns[related]], known_words]),
        ),
    )


def _of_overlapping_clips(
    split: TrainingSplit, sentences: Ragged, clips: np.ndarray, segment_clip: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Segments of the batch, and words of the clips that overlap their clip in time.

    segment_clip: (S,) int64, position in `clips` of the clip of each segment.
    """
    others, positions = ragged_rows(split.overlapping_clips.offsets, clips[segment_clip])
    known, of_pair = ragged_rows(sentences.offsets, split.overlapping_clips.values[others])
    return positions[of_pair], split.text_words[sentences.values[known]]


def _level_batch(split: TrainingSplit, pairs: _LevelPairs | None) -> LevelBatch | None:
    if pairs is None:
        return None
    rows, columns, positive = pairs.in_clip_rows, pairs.in_clip_columns, pairs.in_clip_positive
    masks = pair_masks(
        num_rows=len(pairs.videos),
        column_words=split.text_words[pairs.texts],
        positive=(rows[positive], columns[positive]),
        related=pairs.related,
    )
    arrays = (pairs.videos, pairs.texts, masks.positive, masks.negative, rows, columns)
    moved = [torch.from_numpy(array).to(split.device) for array in arrays]
    return LevelBatch(
        videos=moved[0],
        texts=moved[1],
        positive=moved[2],
        negative=moved[3],
        in_clip_rows=moved[4],
        in_clip_columns=moved[5],
    )
