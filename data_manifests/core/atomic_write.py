"""Atomic writes: a file is complete or absent."""

from __future__ import annotations

import os
import platform
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import UserError


def check_writable(folder: Path) -> None:
    """Raise UserError when no file can be written in `folder`, which may not exist yet.

    For commands that work for a long time before they write.
    """
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir():
        raise UserError(f"cannot write in {folder}: {existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(
            f"cannot write in {folder}: {existing.absolute()} is read-only or belongs to another "
            "user; choose another folder"
        )


def atomic_write(
    path: Path, content: str | bytes | Callable[[Path], object], *, overwrite: bool = True
) -> None:
    """Write a file so that readers see either the old file or the complete new one.

    content: text (written as UTF-8, line ends unchanged), bytes, or a function that writes the
    file at the path it is given. overwrite: see `atomic_path`.
    """
    with atomic_path(path, overwrite=overwrite) as temporary:
        if callable(content):
            content(temporary)
        else:
            data = content.encode() if isinstance(content, str) else content
            with temporary.open("wb") as file:
                file.write(data)


@contextmanager
def atomic_path(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """A temporary path in the folder of `path`, which is created if missing.

    When the block ends, what was written there is flushed to disk and renamed to `path`. When it
    raises, the temporary file is removed. overwrite: False raises FileExistsError if `path` exists.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Each writer has a name of its own, which also tells whether it is still running (see
    # extract/cache/writer.py): .HOST-PID-RANDOM.tmp
    name = f".{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}.tmp"
    temporary = path.with_name(name)
    try:
        yield temporary
        _flush(temporary, os.O_RDWR)  # Windows flushes only what is open for writing
        if overwrite:
            os.replace(temporary, path)
        else:
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":  # flush the rename, too; some network file systems cannot
        with suppress(OSError):
            _flush(path.parent, os.O_RDONLY)


def _flush(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
