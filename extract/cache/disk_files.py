"""Files of a cache, written atomically; errors of the disk become DiskError."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ...data_manifests.core.atomic_write import atomic_path, atomic_write
from .contract import DiskError


def put_file(path: Path, content: bytes) -> None:
    """Write a file atomically. Raises DiskError."""
    with disk_errors(path):
        atomic_write(path, content)


def link_file(source: Path, path: Path, *, copy: bool) -> None:
    """Make `path` a hard link to `source`, or a copy if asked for or if links are unsupported.

    Raises DiskError.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not copy:
            with contextlib.suppress(OSError):  # another disk, or one without links
                path.unlink(missing_ok=True)
                return os.link(source, path)
        with atomic_path(path) as temporary:
            shutil.copyfile(source, temporary)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Translate OSError while writing `path` into DiskError, which names the disk and its space."""
    try:
        yield
    except OSError as error:
        disk = _disk_of(path)
        usage = shutil.disk_usage(disk)
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "make room" if is_full else "make it possible to write there"
        raise DiskError(
            f"cannot write {path}: {error.strerror or error}; the disk at {disk} has "
            f"{usage.free / 2**20:.1f} of {usage.total / 2**20:.1f} MiB free. What was committed "
            f"before is safe; {advice} and run the same command again to go on"
        ) from error


def _disk_of(path: Path) -> Path:
    """Mount point of the disk that holds (or would hold) a file."""
    folder = Path(os.path.abspath(path)).parent
    while not os.path.ismount(folder) and folder != folder.parent:
        folder = folder.parent
    return folder
