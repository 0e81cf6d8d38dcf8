"""Write a cache: each shard is complete or absent."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...data_manifests.core.atomic_write import atomic_path, atomic_write
from ...data_manifests.core.file_names import name_text
from .contract import (
    FORMAT,
    TABLES,
    CacheError,
    Unit,
    cache_key,
    index_path,
    read_settings,
    settings_path,
    shard_path,
)
from .disk_files import disk_errors, put_file

BLOCK_ROWS: Final = 4096
"""Of a matrix that is written block by block."""
OTHER_HOST_LEFTOVER_SECONDS = 24 * 3600
"""Age at which an unfinished file of another machine is removed: its writer was killed."""
ORPHAN_SECONDS = 600
"""Age at which a shard without its index file is removed: its writer was killed."""


def open_for_writing(
    cache: Path,
    *,
    settings: Mapping[str, Any],
    layout: Mapping[str, Any],
    record: Mapping[str, Any],
) -> str:
    """Make the cache, or check that it was made the same way; its key.

    settings and layout: see `contract`. record: versions, command, videos root: kept for the
    reader, never compared.
    Raises CacheError when the cache was made otherwise, showing both values, DiskError when the
    disk refuses.
    """
    path = settings_path(cache)
    if not path.exists():
        check_new(cache)
        content = {
            "format": FORMAT,
            "key": cache_key(dict(settings)),
            "settings": dict(settings),
            "layout": dict(layout),
            **record,
        }
        # The first of several processes wins; the others compare their settings with its file.
        with disk_errors(path), contextlib.suppress(FileExistsError):
            atomic_write(path, json_bytes(content), overwrite=False)
    check_same(cache, {**settings, **layout})
    clear_leftovers(cache)
    return str(read_settings(cache)["key"])


def check_new(cache: Path) -> None:
    """Raises CacheError when a folder that is not a cache has something in it."""
    if cache.exists() and not cache.is_dir():
        raise CacheError(f"{cache} is a file; a cache is a folder, choose another with -o")
    if cache.is_dir() and any(not name.name.startswith(".") for name in cache.iterdir()):
        raise CacheError(f"{cache} is not empty and not a cache; choose a new folder with -o")


def check_same(cache: Path, asked: Mapping[str, Any]) -> None:
    """Raises CacheError naming every asked setting in which the cache differs, with both values."""
    content = read_settings(cache)
    found = {**content["settings"], **content["layout"]}
    differences = [
        f"  {name}: the cache has {has}, this run asks for {asks}"
        for name, has, asks in setting_differences(found, asked)
    ]
    if differences:
        raise CacheError(
            "\n".join(
                [
                    f"the cache {cache} was made with other settings; nothing was changed:",
                    *differences,
                    "  use the same settings, or a new folder with -o",
                ]
            )
        )


def setting_differences(
    found: Mapping[str, Any], asked: Mapping[str, Any]
) -> list[tuple[str, str, str]]:
    """(name, found value, asked value), in words, of every asked setting that differs."""
    plain = json.loads(json.dumps(dict(asked)))
    return [
        (name, _shown(found.get(name)), _shown(value))
        for name, value in plain.items()
        if found.get(name) != value
    ]


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def commit_shard(
    cache: Path,
    unit: Unit | Literal["segments"],
    name: str,
    *,
    arrays: Mapping[str, np.ndarray | Sequence[Matrix]],
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
) -> None:
    """Put one shard and its index rows on disk; a reader sees all of it or nothing.

    name: without folder and ending; the same content must always come under the same name, so that
    two writers of the same work replace each other's file by an equal one.
    arrays: dataset path in the HDF5 file to array, or to at least one matrix end to end, which are
    written block by block. tables: index table to rows; shard and digest are added here.
    Raises DiskError when the disk refuses (full, read-only).
    """
    shard = f"{name}.h5"
    sha256 = _put_hdf5(shard_path(cache, shard), arrays)
    location = {"shard": shard, "shard_sha256": sha256}
    # The main table goes last: its file is what makes the shard exist.
    for table in sorted(tables, key=lambda table: table == unit):
        rows = [{"clip_shard": shard, **row, **location} for row in tables[table]]
        put_file(index_path(cache, table, shard), parquet_bytes(TABLES[table], rows))


def _put_hdf5(path: Path, arrays: Mapping[str, np.ndarray | Sequence[Matrix]]) -> str:
    """Write an HDF5 file atomically and return its SHA-256.

    Equal arrays give equal bytes: no time is stored.
    """
    with disk_errors(path), atomic_path(path) as temporary, temporary.open("w+b") as file:
        # A file object, not a path: disk errors are then raised, and HDF5 can close it.
        with _unchanged_errors(), h5py.File(file, "w", libver=("v110", "v110")) as hdf5:
            for name in sorted(arrays):
                _write_dataset(hdf5, name, arrays[name])
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _unchanged_errors() -> Iterator[None]:
    """Raise an OSError of the file itself: where HDF5 goes on after it, CPython 3.13 wraps it in a
    SystemError."""
    try:
        yield
    except SystemError as error:
        if isinstance(error.__cause__, OSError):
            raise error.__cause__ from None
        raise


def _write_dataset(hdf5: h5py.File, name: str, content: np.ndarray | Sequence[Matrix]) -> None:
    if isinstance(content, np.ndarray):
        hdf5.create_dataset(name, data=content, track_times=False)
        return
    shape = sum(part.shape[0] for part in content), content[0].shape[1]
    dataset = hdf5.create_dataset(name, shape=shape, dtype=content[0].dtype, track_times=False)
    row = 0
    for part in content:
        for start in range(0, part.shape[0], BLOCK_ROWS):
            block = part.read(start, min(start + BLOCK_ROWS, part.shape[0]))
            dataset[row : row + len(block)] = block
            row += len(block)


def parquet_bytes(schema: pa.Schema, rows: Sequence[Mapping[str, Any]]) -> bytes:
    """An index file of the rows; what a row leaves out is null."""
    columns = {
        field.name: pa.array([row.get(field.name) for row in rows], type=field.type)
        for field in schema
    }
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, schema=schema), buffer, write_page_checksum=True)
    return buffer.getvalue()


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """A JSON file for people, too; names of files in it are texts of file_names."""
    return name_text(json.dumps(content, indent=2, ensure_ascii=False)).encode() + b"\n"


def clear_leftovers(cache: Path) -> None:
    """Remove unfinished files of killed writers; files of writers that may be running stay."""
    for path in orphans(cache):
        with contextlib.suppress(OSError):
            path.unlink()
    for path in cache.rglob(".*.tmp"):
        name, _, _ = path.name.removeprefix(".").rpartition("-")
        host, _, pid = name.rpartition("-")
        with contextlib.suppress(OSError):
            if host == platform.node():
                is_left = not (pid.isdecimal() and _is_alive(int(pid)))
            else:
                is_left = time.time() - path.stat().st_mtime > OTHER_HOST_LEFTOVER_SECONDS
            if is_left:
                path.unlink()


def orphans(cache: Path) -> list[Path]:
    """Shards without the index file that would commit them, and segments of such: a writer was
    killed between the two. Those younger than ORPHAN_SECONDS are left out: it may be at work."""
    found = []
    segments = (cache / "index" / "segments").glob("*.parquet")
    for path in sorted([*(cache / "shards").glob("*.h5"), *segments]):
        unit = path.name.partition("-")[0]
        is_committed = unit in TABLES and index_path(cache, unit, path.name).exists()
        with contextlib.suppress(FileNotFoundError):
            if not is_committed and time.time() - path.stat().st_mtime > ORPHAN_SECONDS:
                found.append(path)
    return found


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


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
