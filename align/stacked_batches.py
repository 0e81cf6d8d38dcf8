"""Batches of runs that train together: what each draws alone, stacked and padded to one shape.

Which clips a run sees, and which of their texts, is drawn as alone, by numpy. All that follows from
it is worked out on the device, for all runs at once: for 16 runs of 128 clips with 12 segments it
took numpy 40 ms a step, which would keep a GPU waiting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .batches import Batch, LevelBatch, draw_texts
from .config import TaskName
from .task_items import DrawnItems, draw_items
from .training_split import ClipTexts, TrainingSplit

# M = runs, B = clips of each, V = clips or segments, T = texts, both of the run that has most
# N = clips, L = segments of the longest, S = those of all, of the run that has most
# n = items of all runs, end to end; P = pairs inside the clips; R = pairs that are related


@dataclass(frozen=True, kw_only=True, slots=True)
class _Items:
    """Items of several runs, end to end, on the device."""

    run: Tensor
    """(n,) int64, whose each is."""
    place: Tensor
    """(n,) int64, where among those of its run."""
    counts: np.ndarray
    """(M,) int64, items of each run."""

    def padded(self, values: Tensor) -> Tensor:
        """(M, most): (n,) values of the items, zeros behind those of a run."""
        table = values.new_zeros(self.shape)
        table[self.run, self.place] = values
        return table

    @property
    def shape(self) -> tuple[int, int]:
        """M, and the most that a run has."""
        return len(self.counts), int(self.counts.max())

    @property
    def present(self) -> Tensor:
        """(M, most) bool, what is no padding."""
        return self.padded(torch.ones_like(self.run, dtype=torch.bool))


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentPlaces:
    """Where the segments of clips are, end to end and padded to L, the most that a clip has."""

    run: Tensor
    """(M, 1, 1) int64, 0 1 2 ..."""
    rows: Tensor
    """(M, N, L) int64, the row of each padded one among those end to end; 0 for padding."""
    present: Tensor
    """(M, N, L) bool, what is no padding."""
    clips: Tensor
    """(M, S) int64, the clip of each that lies end to end."""
    within: Tensor
    """(M, S) int64, and its place there."""

    @classmethod
    def of(cls, counts: Tensor, *, num_segments: int) -> SegmentPlaces:
        """counts: (M, N) int64, segments of each clip; num_segments: S, with the padding."""
        ends = counts.cumsum(dim=1)
        starts = ends - counts
        places = torch.arange(int(counts.max()), device=counts.device)
        present = places < counts[:, :, None]
        rows = torch.arange(num_segments, device=counts.device).expand(len(counts), -1)
        clips = torch.searchsorted(ends, rows.contiguous(), right=True).clamp(max=len(ends[0]) - 1)
        within = (rows - starts.gather(1, clips)).clamp(max=len(places) - 1)
        return cls(
            run=torch.arange(len(counts), device=counts.device)[:, None, None],
            rows=(starts[:, :, None] + places).where(present, 0),
            present=present,
            clips=clips,
            within=within,
        )


class StackedBatches:
    """Makes the batches of several runs from a split."""

    def __init__(self, split: TrainingSplit) -> None:
        self._split = split
        self._num_words = 1 + int(split.text_words.max(initial=0))
        self._words = self._sent(split.text_words)
        self._segment_offsets = self._sent(split.segment_offsets)
        self._captions = self._sent_texts(split.global_texts)
        self._sentences = self._sent_texts(split.segment_texts)
        pairs = split.segment_pairs
        if pairs is not None:
            self._pair_offsets = self._sent(pairs.text_offsets)
            self._pair_segments = self._sent(pairs.segments)
            self._pair_positive = self._sent(pairs.positive)
            self._pair_related = self._sent(pairs.related)

    def make(self, clips: Sequence[np.ndarray], rngs: Sequence[np.random.Generator]) -> Batch:
        """The batch of M runs, of which each alone has clips (B,) int64 and draws from its
        generator. Items of tasks are (M, K); those that pad a run's have the clip -1."""
        split = self._split
        clips_MB = np.stack(clips)
        counts_MB = np.diff(split.segment_offsets)[clips_MB]
        every = self._sent(clips_MB.ravel())
        counts = counts_MB.sum(axis=1)
        rows, clip = _ragged(self._segment_offsets, every, int(counts.sum()))
        segments = self._items(clip // clips_MB.shape[1], counts)
        return Batch(
            clips=clips_MB,
            segments=segments.padded(rows),
            segment_counts=self._sent(counts_MB),
            global_level=self._global_level(clips, every, rngs),  # texts are drawn before items
            segment_level=self._segment_level(clips_MB, every, rows, segments),
            drawn=self._drawn(clips, rngs),
        )

    def _drawn(
        self, clips: Sequence[np.ndarray], rngs: Sequence[np.random.Generator]
    ) -> dict[TaskName, DrawnItems]:
        most = self._split.items_per_clip
        of_runs = [
            draw_items(self._split.tasks, own, most=most, rng=rng)
            for own, rng in zip(clips, rngs, strict=True)
        ]
        return {
            task: DrawnItems(
                items=_padded([drawn[task].items for drawn in of_runs], filler=0),
                clips=_padded([drawn[task].clips for drawn in of_runs], filler=-1),
            )
            for task in of_runs[0]
        }

    def _global_level(
        self, clips: Sequence[np.ndarray], every: Tensor, rngs: Sequence[np.random.Generator]
    ) -> LevelBatch | None:
        captions = self._split.global_texts
        if captions is None or self._captions is None:
            return None
        most = self._split.texts_per_clip
        drawn = [
            draw_texts(captions, own, most=most, rng=rng)
            for own, rng in zip(clips, rngs, strict=True)
        ]
        sizes = np.array([len(own) for own in clips])
        videos = self._items(torch.arange(len(every), device=every.device) // sizes[0], sizes)
        counts = np.array([len(own) for own, _ in drawn])
        texts = self._items(self._sent(np.repeat(np.arange(len(clips)), counts)), counts)
        rows = self._sent(np.concatenate([own for _, own in drawn])) + texts.run * int(sizes[0])
        # All captions of a clip hold for it, not only those that were drawn.
        num_known = int(np.diff(captions.offsets)[np.concatenate(clips)].sum())
        known, known_rows = _ragged(self._captions.offsets, every, num_known)
        own = self._sent(np.concatenate([own for own, _ in drawn]))
        return self._level(
            videos,
            texts,
            values=(every, own),
            in_clip=(rows, torch.arange(len(rows), device=rows.device)),
            in_clip_positive=torch.ones_like(rows, dtype=torch.bool),
            related=(known_rows, self._words[self._captions.texts[known]]),
        )

    def _segment_level(
        self, clips_MB: np.ndarray, every: Tensor, segment_rows: Tensor, segments: _Items
    ) -> LevelBatch | None:
        split = self._split
        if self._sentences is None or split.segment_texts is None or split.segment_pairs is None:
            return None
        offsets = split.segment_texts.offsets
        counts = np.diff(offsets)[clips_MB].sum(axis=1)
        num_pairs = np.diff(split.segment_pairs.text_offsets[offsets])[clips_MB].sum()
        places, clip = _ragged(self._sentences.offsets, every, int(counts.sum()))
        texts = self._items(clip // clips_MB.shape[1], counts)
        inside, columns = _ragged(self._pair_offsets, places, int(num_pairs))
        # Segments of a clip are neighbours in the split and in the batch: rows follow by a shift.
        begins = self._segment_offsets[every]
        lengths = self._segment_offsets[every + 1] - begins
        shift = begins - (lengths.cumsum(0) - lengths)
        rows = self._pair_segments[inside] - shift[clip[columns]]
        own = self._sentences.texts[places]
        return self._level(
            segments,
            texts,
            values=(segment_rows, own),
            in_clip=(rows, columns),
            in_clip_positive=self._pair_positive[inside],
            related=(rows, self._words[own[columns]]),
            is_related=self._pair_related[inside],
        )

    def _level(
        self,
        videos: _Items,
        texts: _Items,
        *,
        values: tuple[Tensor, Tensor],
        in_clip: tuple[Tensor, Tensor],
        in_clip_positive: Tensor,
        related: tuple[Tensor, Tensor],
        is_related: Tensor | None = None,
    ) -> LevelBatch:
        """A level, of pairs of items end to end.

        values: rows of the features.   related: rows, and the ids of words that are known to hold
        for them, (R,) each.   is_related: (R,) bool, those that count; None: all.
        """
        runs, rows = videos.run[in_clip[0]], videos.place[in_clip[0]]
        columns = texts.place[in_clip[1]]
        table = (*videos.shape, texts.shape[1])
        positive = torch.zeros(table, dtype=torch.bool, device=runs.device)
        positive[runs, rows, columns] = in_clip_positive
        present = videos.present[:, :, None] & texts.present[:, None, :]
        is_about = self._is_about(videos, texts, values[1], related, is_related)
        return LevelBatch(
            videos=videos.padded(values[0]),
            texts=texts.padded(values[1]),
            positive=positive,
            negative=present & ~is_about,
            in_clip_rows=rows,
            in_clip_columns=columns,
            in_clip_runs=runs,
        )

    def _is_about(
        self,
        videos: _Items,
        texts: _Items,
        text_rows: Tensor,
        related: tuple[Tensor, Tensor],
        is_related: Tensor | None,
    ) -> Tensor:
        """(M, V, T) bool, which rows are related to the words of which columns of their run."""
        num_runs, width = texts.shape
        if width == 0:
            return torch.zeros((*videos.shape, 0), dtype=torch.bool, device=text_rows.device)
        # Of the texts of a run that have the same words one stands for all: any, but the same one.
        words = texts.run * self._num_words + self._words[text_rows]
        stands_for = words.new_zeros(num_runs * self._num_words)
        stands_for[words] = torch.arange(len(words), device=words.device)
        rows, about = related
        about = videos.run[rows] * self._num_words + about
        found = stands_for[about]
        counts = words[found] == about  # else no text of the run has these words
        if is_related is not None:
            counts = counts & is_related
        # What does not count goes to a column more.
        columns = torch.where(counts, texts.place[found], width)
        table = (*videos.shape, width + 1)
        is_about = torch.zeros(table, dtype=torch.bool, device=words.device)
        is_about[videos.run[rows], videos.place[rows], columns] = True
        column = texts.padded(texts.place[stands_for[words]])[:, None, :]
        return is_about.gather(2, column.expand(-1, table[1], -1))

    def _items(self, run: Tensor, counts: np.ndarray) -> _Items:
        begins = self._sent(np.cumsum(counts) - counts)
        place = torch.arange(len(run), device=run.device) - begins[run]
        return _Items(run=run, place=place, counts=counts)

    def _sent(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self._split.device)

    def _sent_texts(self, texts: ClipTexts | None) -> _SentTexts | None:
        if texts is None:
            return None
        return _SentTexts(texts=self._sent(texts.texts), offsets=self._sent(texts.offsets))


@dataclass(frozen=True, kw_only=True, slots=True)
class _SentTexts:
    """`ClipTexts` on the device."""

    texts: Tensor
    offsets: Tensor


def _padded(arrays: Sequence[np.ndarray], *, filler: int) -> np.ndarray:
    """(M, most) int64: arrays of different lengths, with a filler behind the shorter ones."""
    table = np.full((len(arrays), max(map(len, arrays))), filler, dtype=np.int64)
    for row, array in zip(table, arrays, strict=True):
        row[: len(array)] = array
    return table


def _ragged(offsets: Tensor, items: Tensor, num_rows: int) -> tuple[Tensor, Tensor]:
    """`pairs.ragged_rows` on the device; num_rows: how many there are, which it need not count."""
    counts = offsets[items + 1] - offsets[items]
    places = torch.arange(len(items), device=items.device)
    positions = places.repeat_interleave(counts, output_size=num_rows)
    begins = counts.cumsum(0) - counts
    rows = torch.arange(num_rows, device=items.device) + (offsets[items] - begins)[positions]
    return rows, positions
