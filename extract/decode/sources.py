"""What a clip is read from: a video file, or a folder of frame images; and whether it changed."""

from __future__ import annotations

import functools
import hashlib
import os
import stat
from pathlib import Path

from ...data_manifests.core.file_names import is_image
from .protocol import DecodeError, Heartbeat, no_heartbeat

HASH_BYTES = 2**20
"""Of a file that are read at once."""


def check_source(path: Path, *, image_fps: float | None) -> None:
    """Raises DecodeError for what is neither a file (but a device, a FIFO, nothing at all) nor a
    folder of images, where their rate is known."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise DecodeError("the file does not exist") from None
    except OSError as error:
        raise DecodeError(f"the file cannot be reached: {error.strerror}") from None
    if stat.S_ISDIR(mode) and image_fps is None:
        raise DecodeError("a folder; of frame images, --image-fps would say their rate")
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise DecodeError("not a regular file")


def image_files(folder: Path) -> list[Path]:
    """The images of a folder in the order of their names, numbers in them counting as numbers."""
    names = [entry.name for entry in os.scandir(folder) if is_image(entry.name) and entry.is_file()]
    return [folder / name for name in sorted(names, key=_natural)]


def file_sha256(path: Path, *, heartbeat: Heartbeat = no_heartbeat) -> str:
    """SHA-256 of a file's bytes, 64 hex digits. heartbeat: called for every block of it."""
    state = path.stat()
    return _file_sha256(path, state.st_size, state.st_mtime_ns, heartbeat)


@functools.lru_cache(maxsize=64)  # a film of many clips is read once
def _file_sha256(path: Path, _num_bytes: int, _mtime_ns: int, heartbeat: Heartbeat) -> str:
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BYTES):
            hasher.update(block)
            heartbeat()
    return hasher.hexdigest()


def source_sha256(path: Path, *, heartbeat: Heartbeat = no_heartbeat) -> str:
    """SHA-256 of a file's bytes, or of the names and digests of a folder's images."""
    if not path.is_dir():
        return file_sha256(path, heartbeat=heartbeat)
    lines = [
        f"{file_sha256(image, heartbeat=heartbeat)} {image.name}\n" for image in image_files(path)
    ]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def source_facts(path: Path) -> tuple[int, int] | None:
    """Bytes and time of the last change in nanoseconds, of a folder those of all its images; None
    when there is nothing. What has kept both is taken for unchanged, as make and rsync do."""
    try:
        files = image_files(path) if path.is_dir() else [path]
        states = [file.stat() for file in files]
    except OSError:
        return None
    # A folder's own time tells of images that were taken away.
    times = [state.st_mtime_ns for state in states] + [path.stat().st_mtime_ns]
    return sum(state.st_size for state in states), max(times)


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that puts img2 before img10."""
    parts: list[tuple[int, str]] = []
    for char in name:
        if char.isascii() and char.isdigit():
            value = parts.pop()[0] if parts and parts[-1][0] >= 0 else 0
            parts.append((value * 10 + int(char), ""))
        else:
            parts.append((-1, char))
    return [*parts, (-1, name)]
