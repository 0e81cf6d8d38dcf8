"""Files that are there whole or not at all: written aside, flushed to disk, renamed."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .contract import DiskError


def put_file(path: Path, content: bytes) -> None:
    """Write a file aside, flush it to disk, and rename it over path. Raises DiskError."""
    with disk_errors(path), aside(path) as file:
        file.write(content)


def link_file(source: Path, path: Path, *, copy: bool) -> None:
    """Put a file at path by a hard link, or by a copy (asked for, or the disk has no such links).

    Raises DiskError.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not copy:
            with contextlib.suppress(OSError):  # another disk, or one without links
                path.unlink(missing_ok=True)
                return os.link(source, path)
        with source.open("rb") as reading, aside(path) as writing:
            shutil.copyfileobj(reading, writing, 2**20)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """What the system says against writing `path`, as a DiskError that names the disk."""
    try:
        yield
    except OSError as error:
        disk = _disk_of(path)
        free, size = shutil.disk_usage(disk).free, shutil.disk_usage(disk).total
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "make room" if is_full else "make it possible to write there"
        raise DiskError(
            f"cannot write {path}: {error.strerror or error}; the disk at {disk} has "
            f"{free / 2**20:.1f} of {size / 2**20:.1f} MiB free. What was committed before is "
            f"safe; {advice} and run the same command again to go on"
        ) from error


def _disk_of(path: Path) -> Path:
    """Where the disk that holds (or would hold) a file is mounted."""
    folder = Path(os.path.abspath(path)).parent
    while not os.path.ismount(folder) and folder != folder.parent:
        folder = folder.parent
    return folder


def create_file(path: Path, content: bytes) -> None:
    """Like `put_file`, but the first writer wins and the others leave its file alone."""
    with contextlib.suppress(FileExistsError), aside(path, is_new=True) as file:
        file.write(content)


@contextlib.contextmanager
def aside(path: Path, *, is_new: bool = False) -> Iterator[io.BufferedRandom]:
    """A file to write and read; when the block ends well it is flushed to disk and put at path.

    is_new: raise FileExistsError rather than replace what is there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own per writer: writers never share a half-written file, and one that was killed
    # can be told from one at work.
    prefix = f".{_writer_name(os.getpid())}-"
    handle, temporary = tempfile.mkstemp(prefix=prefix, suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        put = os.link if is_new else os.replace
        put(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):  # it was renamed
            os.unlink(temporary)
    _flush_folder(path.parent)


def _writer_name(pid: int) -> str:
    return f"{platform.node()}-{pid}"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flush_folder(folder: Path) -> None:
    """Make a rename last a power cut, where the system can (POSIX)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
