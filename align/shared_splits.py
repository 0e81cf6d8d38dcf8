"""Splits that several processes have in memory once: a file that each of them maps."""

from __future__ import annotations

import mmap
import pickle
from pathlib import Path
from typing import Final

from ..extract.store import SplitFeatures

ALIGNMENT: Final = 64
"""Bytes; arrays begin at multiples of it."""

Splits = tuple[SplitFeatures, SplitFeatures | None]
"""To train on, and to validate on."""


def share_splits(splits: Splits, path: Path) -> None:
    """Write the splits so that `shared_splits` maps them: a pickle, and the arrays behind it."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(splits, protocol=5, buffer_callback=buffers.append)
    arrays = [buffer.raw() for buffer in buffers]
    with path.open("wb") as file:
        file.write(pickle.dumps((len(head), [len(array) for array in arrays])))
        file.write(head)
        for array in arrays:
            file.write(b"\0" * (-file.tell() % ALIGNMENT))
            file.write(array)


def shared_splits(path: Path) -> Splits:
    """The splits of a file that `share_splits` of this sweep wrote.

    Their arrays lie in the file's pages, which the system has in memory once for all processes;
    what a process writes into them stays its own.
    """
    with path.open("rb") as file:
        head_bytes, sizes = pickle.load(file)
        head = file.read(head_bytes)
        place = file.tell()
        mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    views = []
    for size in sizes:
        place += -place % ALIGNMENT
        views.append(mapped[place : place + size])
        place += size
    splits: Splits = pickle.loads(head, buffers=views)
    return splits
