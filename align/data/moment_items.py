"""Moments to train on: queries with one moment or several, and the segments that hold them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import numpy as np

from ...data_manifests.core.errors import UserError
from ...extract.cache.ragged import Ragged
from ...extract.cache.split_features import SplitFeatures
from .pairs import SHORTEST_SEGMENT

# N = clips of the split, K = queries, M = moments of all queries

WINDOW_ID: Final = re.compile(r"(.+)/\d+")
"""Of the texts that are one query with several moments: QUERY/0, QUERY/1 ..."""


class TaskDataError(UserError):
    """A split that a task cannot be trained or validated on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MomentItems:
    """K queries with the segments of their clip where each of their moments starts and ends."""

    by_clip: Ragged
    """The queries of each clip."""
    texts: Ragged
    """Of each query its M texts, one a moment, all with its words: rows of the split's texts."""
    first: np.ndarray
    """(M,) int64, place in its clip of the segment that has the start of the moment."""
    last: np.ndarray
    """(M,) int64, of the one that has its end; not before `first`."""
    offsets: np.ndarray
    """(M, 2) float32, the share of the first segment before the moment's start, and of the last one
    before its end, from 0 to 1."""


def moment_queries(features: SplitFeatures, rows: np.ndarray) -> tuple[list[str], Ragged]:
    """Ids of the queries, and the texts of each: those of a clip with the ids QUERY/K are one."""
    texts_of_query: dict[tuple[int, str, str], list[int]] = {}
    for row in rows.tolist():
        name = features.text_ids[row]
        match = WINDOW_ID.fullmatch(name)
        query_id = match.group(1) if match else name
        texts_of_query.setdefault(
            (features.text_clips[row], features.texts[row], query_id), []
        ).append(row)
    return [query_id for _, _, query_id in texts_of_query], Ragged.of(list(texts_of_query.values()))


def moment_items(split: SplitFeatures) -> MomentItems:
    """Queries with a span or several, and the segments that hold each start and each end.

    A span that begins or ends where no segment is takes the nearest. Raises TaskDataError when no
    text has a span, or when segments of a clip overlap: a start among such segments means nothing.
    """
    rows = np.flatnonzero(split.text_is_segment)
    if len(rows) == 0:
        raise TaskDataError(f"the split {split.split!r} has no texts with a span")
    _refuse_overlaps(split)
    _, texts = moment_queries(split, rows)
    first = np.empty(len(rows), dtype=np.int64)
    last = np.empty(len(rows), dtype=np.int64)
    offsets = np.empty((len(rows), 2), dtype=np.float32)
    for place, text in enumerate(texts.values):
        clip = split.text_clips[text]
        segments = slice(split.segment_offsets[clip], split.segment_offsets[clip + 1])
        start, end = split.text_spans[text]
        starts, ends = split.segment_spans[segments].T
        first[place] = min(np.searchsorted(ends, start, side="right"), len(ends) - 1)
        last[place] = max(np.searchsorted(starts, end, side="left") - 1, first[place])
        for side, (seconds, own) in enumerate(((start, first[place]), (end, last[place]))):
            length = max(ends[own] - starts[own], SHORTEST_SEGMENT)
            offsets[place, side] = np.clip((seconds - starts[own]) / length, 0, 1)
    return MomentItems(
        by_clip=Ragged.grouped(split.text_clips[texts.firsts], num_groups=len(split.clip_ids)),
        texts=texts,
        first=first,
        last=last,
        offsets=offsets,
    )


def _refuse_overlaps(split: SplitFeatures) -> None:
    inner = np.ones(len(split.segment_spans), dtype=bool)
    inner[split.segment_offsets[:-1]] = False
    begins = split.segment_spans[inner, 0]
    if (begins < np.roll(split.segment_spans[:, 1], 1)[inner] - 1e-6).any():
        raise TaskDataError(
            f"segments of the rule {split.segment_rule!r} overlap: choose a rule that cuts clips "
            f"into pieces, such as uniform:16, with data.segments"
        )
