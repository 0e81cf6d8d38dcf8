"""Batches of runs that train together: what each draws alone, stacked and padded to one shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .batches import (
    Batch,
    LevelBatch,
    LevelPairs,
    TrainingSplit,
    draw_texts,
    global_pairs_of,
    segment_pairs,
)
from .pairs import ragged_rows, related_words

# M = runs, B = clips of each, V = clips or segments, T = texts, both of the run that has most


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ragged:
    """Items of several runs, end to end."""

    counts: np.ndarray
    """(M,) int64, items of each run."""
    run: np.ndarray
    """(n,) int64, whose each item is."""
    place: np.ndarray
    """(n,) int64, where among those of its run."""

    def padded(self, values: np.ndarray) -> np.ndarray:
        """(M, most): (n,) values of the items, zeros behind those of a run."""
        table = np.zeros((len(self.counts), self.counts.max(initial=0)), dtype=values.dtype)
        table[self.run, self.place] = values
        return table

    @property
    def present(self) -> np.ndarray:
        """(M, most) bool, what is no padding."""
        return np.arange(self.counts.max(initial=0)) < self.counts[:, None]


def stacked_batch(
    split: TrainingSplit, clips: Sequence[np.ndarray], rngs: Sequence[np.random.Generator]
) -> Batch:
    """The batch of M runs, of which each alone has clips (B,) int64 and draws from its generator.

    All numbers are worked out for the clips of all runs at once, as those of one batch, and sent
    to the device as indices; masks are made there. Of tasks nothing is drawn.
    """
    clips_MB = np.stack(clips)
    every = clips_MB.ravel()
    counts_MB = np.diff(split.segment_offsets)[clips_MB]
    segments = _ragged(counts_MB.sum(axis=1))
    rows, _ = ragged_rows(split.segment_offsets, every)
    return Batch(
        clips=clips_MB,
        segments=torch.from_numpy(segments.padded(rows)).to(split.device),
        segment_counts=torch.from_numpy(counts_MB).to(split.device),
        global_level=_global_level(split, clips, rngs),
        segment_level=_segment_level(split, clips_MB, segments),
        drawn={},
    )


def _global_level(
    split: TrainingSplit, clips: Sequence[np.ndarray], rngs: Sequence[np.random.Generator]
) -> LevelBatch | None:
    captions = split.global_texts
    if captions is None:
        return None
    drawn = [
        draw_texts(captions, own, most=split.texts_per_clip, rng=rng)
        for own, rng in zip(clips, rngs, strict=True)
    ]
    num_videos = np.array([len(own) for own in clips])
    first_row = np.cumsum(num_videos) - num_videos
    pairs = global_pairs_of(
        split,
        captions,
        np.concatenate(clips),
        texts=np.concatenate([texts for texts, _ in drawn]),
        rows=np.concatenate([rows + first_row[run] for run, (_, rows) in enumerate(drawn)]),
    )
    texts = _ragged(np.array([len(own) for own, _ in drawn]))
    return _stacked_level(pairs, _ragged(num_videos), texts, device=split.device)


def _segment_level(
    split: TrainingSplit, clips_MB: np.ndarray, segments: _Ragged
) -> LevelBatch | None:
    pairs = segment_pairs(split, clips_MB.ravel())
    if pairs is None or split.segment_texts is None:
        return None
    sentences = np.diff(split.segment_texts.offsets)[clips_MB].sum(axis=1)
    return _stacked_level(pairs, segments, _ragged(sentences), device=split.device)


def _stacked_level(
    pairs: LevelPairs, videos: _Ragged, texts: _Ragged, *, device: torch.device
) -> LevelBatch:
    """A level of several runs, which lie end to end in `pairs`."""

    def sent(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(device)

    runs, rows = sent(videos.run[pairs.in_clip_rows]), sent(videos.place[pairs.in_clip_rows])
    columns = sent(texts.place[pairs.in_clip_columns])
    shape = (len(videos.counts), videos.counts.max(initial=0), texts.counts.max(initial=0))
    # Written to all in-clip pairs, so that the device need not count the positive ones.
    positive = torch.zeros(shape, dtype=torch.bool, device=device)
    positive[runs, rows, columns] = sent(pairs.in_clip_positive)
    present = sent(videos.present)[:, :, None] & sent(texts.present)[:, None, :]
    return LevelBatch(
        videos=sent(videos.padded(pairs.videos)),
        texts=sent(texts.padded(pairs.texts)),
        positive=positive,
        negative=~_related(pairs, videos, texts, device=device) & present,
        in_clip_rows=rows,
        in_clip_columns=columns,
        in_clip_runs=runs,
    )


def _related(pairs: LevelPairs, videos: _Ragged, texts: _Ragged, *, device: torch.device) -> Tensor:
    """(M, V, T) bool, which rows are related to the words of which columns of their run."""
    rows, words = pairs.related
    num_words = 1 + max(pairs.column_words.max(initial=0), words.max(initial=0))
    known = related_words(
        texts.run * num_words + pairs.column_words, (rows, videos.run[rows] * num_words + words)
    )
    # Words are numbered run by run, each of which begins at 0 here.
    run_of_word = np.zeros(known.num_words, dtype=np.int64)
    run_of_word[known.column_word] = texts.run
    first_word = np.searchsorted(run_of_word, np.arange(len(videos.counts)))
    column_word = texts.padded(known.column_word - first_word[texts.run])
    most = int(column_word.max(initial=0)) + 1
    runs = videos.run[known.rows]
    places = (runs, videos.place[known.rows], known.words - first_word[runs])
    related_to = torch.zeros((*videos.present.shape, most), dtype=torch.bool, device=device)
    related_to[tuple(torch.from_numpy(place).to(device) for place in places)] = True
    columns = torch.from_numpy(column_word).to(device)[:, None, :]
    return related_to.gather(2, columns.expand(-1, related_to.shape[1], -1))


def _ragged(counts: np.ndarray) -> _Ragged:
    begins = np.cumsum(counts) - counts
    run = np.repeat(np.arange(len(counts)), counts)
    return _Ragged(counts=counts, run=run, place=np.arange(len(run)) - begins[run])
