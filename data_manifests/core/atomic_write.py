"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from .errors import UserError


def check_writable(folder: Path) -> None:
    """Raise UserError when no file can be written in `folder`, which may have to be created first.

    For commands that work long before they write.
    """
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir():
        raise UserError(f"cannot write in {folder}: {existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(
            f"cannot write in {folder}: {existing.absolute()} is read-only or belongs to another "
            "user; choose another folder"
        )


def atomic_write(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a path beside `path`, and rename what it wrote: a reader sees the old file
    or the new one. Nothing is left behind when `write` raises."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
