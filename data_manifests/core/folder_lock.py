"""One process at a time in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import UserError


@contextmanager
def folder_lock(lock_file: Path, *, busy: UserError) -> Iterator[None]:
    """Hold the lock; the system releases it when this process ends, even if it is killed.

    busy: raised when another process holds the lock.
    """
    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise busy from error
    try:
        yield
    finally:
        lock.release()
