"""What every task has: queries, the clip that each belongs to, and what chance would get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from ...data_manifests.cards.scoring_rules import TypeGroup
from .best_items import BestItems
from .ranks import Ranks


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskQueries:
    """The queries of one task; the same for every run, so that runs can be paired."""

    name: str
    """text_to_clip, clip_to_text, sentence_to_clip, grounding, moments, answers ..."""
    kind: Literal["retrieval", "choice", "moments"]
    """Ranks among all items, right or wrong among a few, or spans of time."""
    query_ids: list[str]
    """Q ids of texts, clips or questions."""
    clips: np.ndarray
    """(Q,) int64, the clip of each query."""
    chance: float
    """Expected main metric of guessing, in percent."""
    item_ids: list[str] = field(default_factory=list)
    """Ids of the items that `BestItems.items` counts; empty when none are kept."""
    subsets: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Rows of groups of queries with numbers of their own, such as the types of questions."""
    main_metric: str = "accuracy"
    """The metric that `chance` is about, and the first to look at."""
    groups: np.ndarray | None = None
    """(Q,) int64, queries of one group are resampled together; None: those of one clip."""

    @property
    def clusters(self) -> np.ndarray:
        """(Q,) int64, which queries are resampled together."""
        return self.clips if self.groups is None else self.groups

    def with_chance(self, chance: float) -> TaskQueries:
        """The same queries, of which guessing gets this."""
        return replace(self, chance=chance)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """How one run did on the queries of one task with one kind of score."""

    ranks: Ranks
    """0-based, of the best right item."""
    values: Mapping[str, np.ndarray]
    """Per metric (Q,) float64, whose mean is the metric."""
    best_items: BestItems | None = None
    """Of each query; None where none are kept."""


def type_subsets(types: np.ndarray, groups: Sequence[TypeGroup]) -> dict[str, np.ndarray]:
    """Rows of each question type, then of each group that has any; no type is the empty text."""
    subsets = {str(name): np.flatnonzero(types == name) for name in np.unique(types) if name}
    for group in groups:
        rows = np.flatnonzero(np.isin(types, group.types))
        if len(rows):
            subsets[group.name] = rows
    return subsets
