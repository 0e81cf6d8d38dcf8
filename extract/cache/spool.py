"""Rows that wait in a file once they are many: memory does not grow with a video's length."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Final

import numpy as np

from .disk_files import disk_errors

MEMORY_BYTES: Final = 4 * 2**20
"""Rows of a spool that are kept in memory; more of them go to its file."""


class Spool:
    """Takes rows one by one and gives back any of them.

    Its file has no name and goes with the process, whatever ends that. It lies on the disk of the
    cache, which has to take the rows anyway.
    """

    def __init__(self, folder: Path, *, memory_bytes: int = MEMORY_BYTES) -> None:
        """folder: whose disk has the file. memory_bytes: of rows, before that is needed."""
        self._folder = folder
        self._memory_bytes = memory_bytes
        self._waiting: list[np.ndarray] = []
        self._file: io.FileIO | None = None
        self._num_in_file = 0
        self._like: np.ndarray | None = None
        """Any row: all are of its shape and type."""

    def __len__(self) -> int:
        return self._num_in_file + len(self._waiting)

    @property
    def num_waiting_bytes(self) -> int:
        """Of rows in memory."""
        return 0 if self._like is None else self._like.nbytes * len(self._waiting)

    def append(self, row: np.ndarray) -> int:
        """The number of the row, (D,) and of one type with all others. Raises DiskError."""
        self._like = row
        self._waiting.append(row)
        if self.num_waiting_bytes >= self._memory_bytes:
            self._to_file()
        return len(self) - 1

    def take(self, numbers: np.ndarray) -> np.ndarray:
        """(n, D): the rows of these numbers, (n,) int64, at least one, in any order."""
        wanted, places = np.unique(numbers, return_inverse=True)
        in_file = wanted[wanted < self._num_in_file]
        runs = np.split(in_file, np.flatnonzero(np.diff(in_file) > 1) + 1) if len(in_file) else []
        parts = [self._from_file(int(run[0]), len(run)) for run in runs]
        in_memory = wanted[len(in_file) :] - self._num_in_file
        if len(in_memory):
            parts.append(np.stack([self._waiting[number] for number in in_memory]))
        taken: np.ndarray = np.concatenate(parts)[places]
        return taken

    def close(self) -> None:
        """Give the file's space back."""
        self._waiting = []
        if self._file is not None:
            self._file.close()

    def _to_file(self) -> None:
        with disk_errors(self._folder / "frames"):
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)
            block = np.stack(self._waiting)
            self._file.seek(0, io.SEEK_END)
            remaining = block.view(np.uint8).reshape(-1).data
            while remaining:  # a write may take less than all of it
                remaining = remaining[self._file.write(remaining) :]
        self._num_in_file += len(self._waiting)
        self._waiting = []

    def _from_file(self, first: int, count: int) -> np.ndarray:
        assert self._file is not None and self._like is not None
        rows = np.empty((count, *self._like.shape), dtype=self._like.dtype)
        self._file.seek(first * self._like.nbytes)
        remaining = rows.view(np.uint8).reshape(-1).data
        while remaining:
            remaining = remaining[self._file.readinto(remaining) :]
        return rows


class SpooledMatrix:
    """Some rows of a spool as a matrix; see `Matrix`."""

    def __init__(self, spool: Spool, numbers: np.ndarray, *, width: int, dtype: str) -> None:
        """numbers: (n,) int64, which rows of the spool they are."""
        self._spool = spool
        self._numbers = numbers
        self.shape = len(numbers), width
        self.dtype = np.dtype(dtype)

    def read(self, start: int, stop: int) -> np.ndarray:
        return self._spool.take(self._numbers[start:stop])
