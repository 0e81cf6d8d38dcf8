"""Which queries the page shows: the best, the median and the worst, and where levels disagree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...extract.cache.split_features import SplitFeatures
from ..inputs.splits import ClipVideos
from ..scores.queries import TaskQueries
from ..statistics.summaries import RunOutcome
from .render import thumbnail

SHOWN_QUERIES = 4
"""Of each kind."""
SHOWN_CLIPS = 3
"""Found clips of each query."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GalleryClip:
    """A clip on the page."""

    clip_id: str
    picture: str | None
    """Data URI; None without the video."""
    start_seconds: float | None
    """Of the moment, in the clip; None for the clip as a whole."""
    end_seconds: float | None
    score: float | None
    is_right: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class GalleryQuery:
    """A query on the page."""

    text: str
    rank: int
    """1 is the best."""
    right: GalleryClip
    """The clip it is about."""
    found: list[GalleryClip]
    """Best first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Disagreement:
    """A query that one level finds and the other does not."""

    text: str
    global_rank: int
    segment_rank: int


def gallery(
    task: TaskQueries,
    run: RunOutcome,
    score: str,
    features: SplitFeatures,
    places: ClipVideos,
) -> dict[str, list[GalleryQuery]]:
    """{"best", "median", "worst"}: queries of a text to clip task, each with what it found."""
    scored = run.scored[task.name][score]
    ranks = scored.ranks.ranks
    order = np.argsort(ranks, kind="stable")
    middle = max(0, (len(order) - SHOWN_QUERIES) // 2)
    chosen = {
        "best": order[:SHOWN_QUERIES],
        "median": order[middle : middle + SHOWN_QUERIES],
        "worst": order[::-1][:SHOWN_QUERIES],
    }
    row_of_text = {text_id: row for row, text_id in enumerate(features.text_ids)}
    best = scored.best_items
    assert best is not None

    def show(query: int) -> GalleryQuery:
        clip = int(task.clips[query])
        assert best is not None
        items = best.items[query, :SHOWN_CLIPS]
        spans = [None] * len(items) if best.spans is None else best.spans[query]
        best_clips = [
            gallery_clip(features, places, int(item), span=span, score=float(value), right=clip)
            for item, value, span in zip(items, best.scores[query], spans, strict=False)
            if item >= 0
        ]
        return GalleryQuery(
            text=features.texts[row_of_text[task.query_ids[query]]],
            rank=int(ranks[query]) + 1,
            right=gallery_clip(features, places, clip, span=None, score=None, right=clip),
            found=best_clips,
        )

    return {name: [show(int(query)) for query in queries] for name, queries in chosen.items()}


def disagreements(
    task: TaskQueries, run: RunOutcome, features: SplitFeatures
) -> tuple[list[Disagreement], list[Disagreement]]:
    """Queries that the segment score finds first and the global score does not, farthest first;
    and the other way round."""
    ranks = {level: run.scored[task.name][level].ranks.ranks for level in ("global", "segment")}
    row_of_text = {text_id: row for row, text_id in enumerate(features.text_ids)}

    def only(first_level: str, other_level: str) -> list[Disagreement]:
        queries = np.flatnonzero((ranks[first_level] == 0) & (ranks[other_level] > 0))
        farthest = queries[np.argsort(-ranks[other_level][queries], kind="stable")]
        return [
            Disagreement(
                text=features.texts[row_of_text[task.query_ids[query]]],
                global_rank=int(ranks["global"][query]) + 1,
                segment_rank=int(ranks["segment"][query]) + 1,
            )
            for query in farthest
        ]

    return only("segment", "global"), only("global", "segment")


def gallery_clip(
    features: SplitFeatures,
    places: ClipVideos,
    clip: int,
    *,
    span: Sequence[float] | np.ndarray | None,
    score: float | None,
    right: int,
) -> GalleryClip:
    """A clip with a picture of the middle of its moment; without a span, of the whole clip's."""
    duration = float(features.clip_durations[clip])
    start, end = (0.0, duration) if span is None else (float(span[0]), float(span[1]))
    middle = float(places.start_seconds[clip]) + (start + end) / 2
    return GalleryClip(
        clip_id=features.clip_ids[clip],
        picture=thumbnail(places.videos[clip], middle),
        start_seconds=None if span is None else start,
        end_seconds=None if span is None else end,
        score=score,
        is_right=clip == right,
    )
