"""Feature files of other tools, found and read: .npy and .npz folders, webdataset tars, HDF5."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

import h5py
import numpy as np

from ...data_manifests.core.file_names import name_text
from ..cache.contract import CacheError

FormatName = Literal["npy", "webdataset", "npz", "hdf5"]

MAX_BYTES: Final = 4 * 2**30
"""Of one clip's or text's features, unpacked; a small file can claim any size."""
COMPANIONS: Final = ("_fps", "_timestamps_ms")
"""What video_features writes beside STEM_clip.npy."""

_UNREADABLE = (
    *(ValueError, EOFError, OSError, KeyError, TypeError, SyntaxError, MemoryError),
    *(ArithmeticError, RuntimeError, zlib.error, zipfile.BadZipFile, tokenize.TokenError),
)
"""What numpy, zipfile and h5py raise for bytes that are no array."""


class FeatureError(Exception):
    """The features of one clip or text cannot be used, and why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """The features under one key."""

    values: np.ndarray
    """As stored: any shape, a floating-point type."""
    sha256: str
    """Of the bytes they were read from; of HDF5, of type, shape and values."""


class FeatureSource(Protocol):
    """Features by key. Keys are untrusted names: they are compared, never opened."""

    format: FormatName
    files: Mapping[str, Path]
    """Key to the file that holds its features, sorted by key; several keys may share one."""
    problems: list[str]
    """Files that could not be looked through to their end."""

    def read(self, key: str) -> Stored:
        """Raises FeatureError."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Extent:
    """Some bytes of a file."""

    path: Path
    offset: int
    num_bytes: int | None
    """None: to the end of the file."""


class _PackedSource:
    """Every key has bytes of its own: a file, or a member of a tar."""

    def __init__(
        self, format: FormatName, extents: Mapping[str, _Extent], *, npz_array: str
    ) -> None:
        self.format = format
        self.problems: list[str] = []
        self._extents = dict(sorted(extents.items()))
        self._npz_array = npz_array
        self.files: Mapping[str, Path] = {key: extent.path for key, extent in self._extents.items()}

    def read(self, key: str) -> Stored:
        extent = self._extents[key]
        try:
            content = _content(extent)
            if self.format == "npz":
                values = _unpacked(content, self._npz_array)
            else:
                values = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
        except _UNREADABLE as error:
            raise FeatureError(f"cannot be read: {_reason(error)}") from error
        return Stored(values=_floats(values), sha256=hashlib.sha256(content).hexdigest())


class _Hdf5Source:
    """Every key is a dataset of one HDF5 file."""

    format: FormatName = "hdf5"

    def __init__(self, path: Path) -> None:
        self.problems: list[str] = []
        try:
            self._file = h5py.File(path, "r")
            names: list[str] = []
            # Links out of the file are not followed by this.
            self._file.visititems(
                lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None
            )
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            raise CacheError(f"cannot read {path} as HDF5: {_reason(error)}") from error
        self.files: Mapping[str, Path] = dict.fromkeys(sorted(names), path)

    def read(self, key: str) -> Stored:
        try:
            dataset = self._file[key]
            if dataset.external or dataset.is_virtual:
                raise FeatureError("its values lie in other files, which are not opened")
            if dataset.dtype.kind != "f":
                raise FeatureError(_not_floats(dataset.dtype))
            _check_bytes(dataset.size * dataset.dtype.itemsize)
            values = np.asarray(dataset[()])
        except _UNREADABLE as error:
            raise FeatureError(f"cannot be read: {_reason(error)}") from error
        digest = hashlib.sha256(f"{values.dtype.str} {values.shape} ".encode())
        digest.update(np.ascontiguousarray(values).data)
        return Stored(values=values, sha256=digest.hexdigest())


def open_source(path: Path, format: FormatName | None, *, npz_array: str) -> FeatureSource:
    """The features under a path; format None: what it clearly is.

    npz_array: the name of the array within each .npz. Raises CacheError when there is nothing of
    the kind, or several kinds.
    """
    if not path.exists():
        raise CacheError(f"there is no {path}")
    if format is None:
        format = _detected(path)
    source: FeatureSource
    match format:
        case "npy" | "npz":
            extents = {
                key: _Extent(path=file, offset=0, num_bytes=None)
                for key, file in _files(path, f".{format}")
            }
            if format == "npy":
                extents = {key: e for key, e in extents.items() if not _is_companion(key, extents)}
            source = _PackedSource(format, extents, npz_array=npz_array)
        case "webdataset":
            source = _open_tars(path)
        case "hdf5":
            source = _Hdf5Source(path)
    if not source.files and not source.problems:
        raise CacheError(f"{path} has no features of the format {format}")
    return source


def _detected(path: Path) -> FormatName:
    if path.is_file():
        if path.suffix == ".tar":
            return "webdataset"
        if h5py.is_hdf5(path):
            return "hdf5"
        raise CacheError(f"cannot tell the format of {path}: say which with --format")
    endings: dict[str, FormatName] = {".npy": "npy", ".npz": "npz", ".tar": "webdataset"}
    found = sorted(endings[end] for end in endings if next(_files(path, end), None) is not None)
    if len(found) != 1:
        has = f"files of several formats ({', '.join(found)})" if found else "no .npy, .npz or .tar"
        raise CacheError(f"{path} has {has}: say with --format what is to be read")
    return endings[next(end for end in endings if endings[end] == found[0])]


def _files(path: Path, suffix: str) -> Iterator[tuple[str, Path]]:
    """Relative name without the suffix, and path, of a folder's files or of the one file; links to
    folders are not followed."""
    if path.is_file():
        yield name_text(path.name).removesuffix(suffix), path
        return
    for folder, _, names in os.walk(path):
        for name in names:
            file = Path(folder, name)
            if name.endswith(suffix) and not name.startswith("."):
                yield name_text(file.relative_to(path).as_posix()).removesuffix(suffix), file


def _is_companion(key: str, keys: Mapping[str, object]) -> bool:
    for ending in COMPANIONS:
        if key.endswith(ending) and f"{key.removesuffix(ending)}_clip" in keys:
            return True
    return False


def _open_tars(path: Path) -> FeatureSource:
    """The .npy members of tars; their headers alone are read. Of a damaged tar, what lies before
    the damage."""
    extents: dict[str, _Extent] = {}
    problems = []
    for _, file in sorted(_files(path, ".tar")):
        try:
            with tarfile.open(file, "r:") as tar:
                for member in tar:
                    if not (member.isreg() and member.name.endswith(".npy")) or member.issparse():
                        continue
                    key = name_text(member.name).removeprefix("./").removesuffix(".npy")
                    if key in extents:
                        problems.append(f"{file}: {key!r} is there twice; the first one counts")
                        continue
                    extents[key] = _Extent(
                        path=file, offset=member.offset_data, num_bytes=member.size
                    )
        except (tarfile.TarError, OSError, EOFError, ValueError) as error:
            problems.append(f"{file} is no whole, uncompressed tar: {_reason(error)}")
    source = _PackedSource("webdataset", extents, npz_array="")
    source.problems = problems
    return source


def _content(extent: _Extent) -> bytes:
    with extent.path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size - extent.offset
        num_bytes = size if extent.num_bytes is None else extent.num_bytes
        _check_bytes(num_bytes)
        file.seek(extent.offset)
        content = file.read(num_bytes)
    if len(content) < num_bytes:
        raise EOFError(f"{len(content)} of {num_bytes} bytes are there")
    return content


def _unpacked(content: bytes, array: str) -> np.ndarray:
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        names = [name.removesuffix(".npy") for name in packed.namelist()]
        if array not in names:
            raise FeatureError(f"expected an array {array!r}, it has {', '.join(names) or 'none'}")
        info = packed.getinfo(f"{array}.npy")
        _check_bytes(info.file_size)
        with packed.open(info) as file:
            values: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
    return values


def _check_bytes(num_bytes: int) -> None:
    if num_bytes > MAX_BYTES:
        raise FeatureError(f"{num_bytes} bytes are over the limit of {MAX_BYTES} for one item")


def _floats(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind != "f":
        raise FeatureError(_not_floats(values.dtype))
    return values


def _not_floats(dtype: np.dtype[np.generic]) -> str:
    return f"expected floating-point numbers, got {dtype}"


def _reason(error: BaseException) -> str:
    """For a person, in a line."""
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(words.split())[:200] or type(error).__name__
