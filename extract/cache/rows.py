"""A matrix that is read block by block, in memory or on disk."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np


class Matrix(Protocol):
    """A matrix that is read block by block, wherever it lies."""

    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def read(self, start: int, stop: int) -> np.ndarray:
        """(stop - start, D), rows start to stop."""


class ArrayMatrix:
    """A matrix in memory, or one of a file that h5py has open; see `Matrix`."""

    def __init__(self, values: np.ndarray, *, first: int = 0, count: int | None = None) -> None:
        """values: a (n, D) array or HDF5 dataset; count rows of it from `first` on are meant."""
        self._values = values
        self._first = first
        self.shape = len(values) - first if count is None else count, int(values.shape[1])
        self.dtype = values.dtype

    def read(self, start: int, stop: int) -> np.ndarray:
        block: np.ndarray = self._values[self._first + start : self._first + stop]
        return block
