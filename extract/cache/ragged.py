"""Lists of any length, end to end in one array: frames of clips, texts of clips, right items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class Ragged:
    """n lists; list i is values[offsets[i]:offsets[i + 1]] and may be empty."""

    values: np.ndarray
    """(total, ...) of any type."""
    offsets: np.ndarray
    """(n + 1,) int64, from 0 to total, never falling."""

    def __post_init__(self) -> None:
        if len(self.offsets) == 0 or self.offsets[0] != 0 or self.offsets[-1] != len(self.values):
            raise ValueError(
                f"expected offsets from 0 to {len(self.values)}, got {self.offsets.tolist()[:5]}"
            )

    @classmethod
    def of(cls, lists: Sequence[Sequence[int] | np.ndarray]) -> Self:
        """From lists of int64 numbers."""
        parts = [np.asarray(part, dtype=np.int64) for part in lists]
        return cls(
            values=np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64),
            offsets=offsets_of(np.array([len(part) for part in parts], dtype=np.int64)),
        )

    @classmethod
    def singles(cls, values: np.ndarray) -> Self:
        """Lists of one element each."""
        return cls(values=values, offsets=np.arange(len(values) + 1, dtype=np.int64))

    @classmethod
    def grouped(cls, group_of: np.ndarray, *, num_groups: int) -> Self:
        """Positions in `group_of` by their group, in order. group_of: (total,) 0 .. num_groups."""
        return cls(
            values=np.argsort(group_of, kind="stable"),
            offsets=offsets_of(np.bincount(group_of, minlength=num_groups)),
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        return np.asarray(self.values[self.offsets[index] : self.offsets[index + 1]])

    @property
    def counts(self) -> np.ndarray:
        """(n,) int64, the lengths."""
        return np.diff(self.offsets)

    @property
    def firsts(self) -> np.ndarray:
        """(n,) the first element of each list, where none is empty."""
        return np.asarray(self.values[self.offsets[:-1]])

    def slice(self, start: int, stop: int) -> Self:
        """Lists start to stop, without a copy."""
        offsets = self.offsets[start : stop + 1]
        return type(self)(
            values=self.values[offsets[0] : offsets[-1]], offsets=offsets - offsets[0]
        )

    def refuse_empty(self) -> None:
        """Raise ValueError for an empty list: numpy's reduceat gives a wrong number for it."""
        if (self.counts < 1).any():
            raise ValueError("expected lists of at least one element, got an empty one")


def offsets_of(counts: np.ndarray) -> np.ndarray:
    """(n + 1,) int64: where each of n lists of these lengths starts, and the total."""
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets


def ragged_rows(offsets: np.ndarray, lists: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the given lists of a ragged array, and each row's position in `lists`.

    offsets: (n + 1,), list i has rows [offsets[i], offsets[i + 1]).   lists: (m,) indices.
    offsets 0 2 3 6, lists 2 0  ->  rows 3 4 5 0 1, positions 0 0 0 1 1
    """
    counts = offsets[lists + 1] - offsets[lists]
    positions = np.repeat(np.arange(len(lists)), counts)
    begins = np.cumsum(counts) - counts
    return np.arange(counts.sum()) + (offsets[lists] - begins)[positions], positions
