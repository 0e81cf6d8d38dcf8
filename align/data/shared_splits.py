"""Splits as a file that processes map: in memory once for all of them, or hardly at all."""

from __future__ import annotations

import math
import mmap
import os
import pickle
import struct
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np

from ...extract.cache.split_features import SplitFeatures

ALIGNMENT: Final = mmap.ALLOCATIONGRANULARITY
"""Bytes; arrays begin at multiples of it, where a mapping may begin."""
FOOTER: Final = struct.Struct("<QQ")
"""Where the pickle begins, and its length: the last bytes of the file."""

Splits = tuple[SplitFeatures, SplitFeatures | None]
"""To train on, and to validate on."""


class SplitsFile:
    """A file of splits that is being written: arrays, a pickle that says where they are, a footer.

    Arrays from `allocate` lie in the file from the start, so that features larger than the memory
    can be gathered into them: the system writes pages out as it needs their place.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b")
        self._places: dict[int, int] = {}
        """Address of an allocated array to its place in the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def allocate(self, shape: tuple[int, int], dtype: str) -> np.ndarray:
        """An array whose memory is the file's. Raises OSError when the disk is full."""
        num_bytes = np.dtype(dtype).itemsize * math.prod(shape)
        if num_bytes == 0:
            return np.empty(shape, dtype=dtype)
        place = self._aligned_end()
        # Reserved, not only made longer: writing into a mapping on a full disk ends the process.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._file.fileno(), place, num_bytes)
        else:
            self._file.truncate(place + num_bytes)
        mapped = mmap.mmap(self._file.fileno(), num_bytes, offset=place)
        array = np.frombuffer(mapped, dtype=dtype).reshape(shape)
        self._places[array.ctypes.data] = place
        return array

    def finish(self, splits: Splits) -> None:
        """Write what is not in the file yet; `shared_splits` reads it from now on."""
        buffers: list[pickle.PickleBuffer] = []
        content = pickle.dumps(splits, protocol=5, buffer_callback=buffers.append)
        arrays = [buffer.raw() for buffer in buffers]
        places = [(self._place_of(array), len(array)) for array in arrays]
        head = pickle.dumps((content, places))
        start = self._aligned_end()
        self._file.write(head)
        self._file.write(FOOTER.pack(start, len(head)))
        self._file.flush()

    def _place_of(self, array: memoryview) -> int:
        """Where the array lies in the file, into which it is written unless it is there."""
        if len(array) == 0:
            return 0
        known = self._places.get(np.frombuffer(array, dtype=np.uint8).ctypes.data)
        if known is not None:
            return known
        place = self._aligned_end()
        self._file.write(array)
        return place

    def _aligned_end(self) -> int:
        """The next place for an array; the file is at it."""
        end = self._file.seek(0, os.SEEK_END)
        return self._file.seek(end + -end % ALIGNMENT)


def share_splits(splits: Splits, path: Path) -> None:
    """Write splits that are in memory so that `shared_splits` maps them."""
    with SplitsFile(path) as file:
        file.finish(splits)


def shared_splits(path: Path) -> Splits:
    """The splits of a file that a `SplitsFile` of this run or sweep finished.

    Their arrays lie in the file's pages, which the system has in memory once for all processes,
    and only as long as there is room; what a process writes into them stays its own. The file may
    be deleted while they are in use.
    """
    with path.open("rb") as file:
        mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    start, length = FOOTER.unpack(mapped[-FOOTER.size :])
    content, places = pickle.loads(mapped[start : start + length])
    views = [mapped[place : place + size] for place, size in places]
    splits: Splits = pickle.loads(content, buffers=views)
    return splits
