"""Lists of indices of any length, end to end: correct items of queries, sentences of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexLists:
    """n lists; list i is indices[offsets[i]:offsets[i + 1]] and has at least one element.

    Not one may be empty: numpy's reduceat gives a wrong number for an empty group.
    """

    indices: np.ndarray
    """(total,) int64."""
    offsets: np.ndarray
    """(n + 1,) int64, from 0 to total, rising."""

    def __post_init__(self) -> None:
        if len(self.offsets) == 0 or self.offsets[0] != 0 or self.offsets[-1] != len(self.indices):
            raise ValueError(
                f"expected offsets from 0 to {len(self.indices)}, got {self.offsets.tolist()[:5]}"
            )
        if (np.diff(self.offsets) < 1).any():
            raise ValueError("expected lists of at least one element, got an empty one")

    @classmethod
    def of(cls, lists: Sequence[Sequence[int] | np.ndarray]) -> Self:
        """From Python lists."""
        parts = [np.asarray(part, dtype=np.int64) for part in lists]
        return cls(
            indices=np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64),
            offsets=offsets_of(np.array([len(part) for part in parts], dtype=np.int64)),
        )

    @classmethod
    def singles(cls, indices: np.ndarray) -> Self:
        """Lists of one element each."""
        return cls(indices=indices, offsets=np.arange(len(indices) + 1, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def counts(self) -> np.ndarray:
        """(n,) int64, the lengths."""
        return np.diff(self.offsets)

    def slice(self, start: int, stop: int) -> Self:
        """Lists start to stop."""
        offsets = self.offsets[start : stop + 1]
        return type(self)(
            indices=self.indices[offsets[0] : offsets[-1]], offsets=offsets - offsets[0]
        )


def offsets_of(counts: np.ndarray) -> np.ndarray:
    """(n + 1,) int64: where each of n groups of these sizes starts, and the total."""
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets


def expand(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Ramps end to end: starts [5, 0], counts [2, 3] -> [5, 6, 0, 1, 2]."""
    ramps = np.arange(int(counts.sum()), dtype=np.int64)
    return np.asarray(ramps + np.repeat(starts - offsets_of(counts)[:-1], counts))
