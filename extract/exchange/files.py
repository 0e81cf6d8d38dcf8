"""Feature files as other tools have them, written one clip or text after the other."""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

import h5py
import numpy as np

from ..cache.contract import CacheError
from .sources import FormatName

TAR_ITEMS: Final = 1000
"""In one tar."""
MAX_NAME_BYTES: Final = 240
"""Of one part of a path; file systems take 255, the suffix included."""


class FeatureWriter(Protocol):
    def put(self, key: str, values: np.ndarray) -> None:
        """values: (n, D); of a text, (1, D)."""


def check_names(ids: Sequence[str], *, what: str, format: FormatName) -> None:
    """Raises CacheError for ids that cannot be the names of features: they must be relative paths
    without "..", and in HDF5 none may be a folder of another."""
    bad = [name for name in ids if not _is_path(name)]
    if format == "hdf5":
        folders = {str(folder) for name in ids for folder in PurePosixPath(name).parents}
        bad += [name for name in ids if name in folders]
    if bad:
        shown = ", ".join(map(repr, bad[:5]))
        raise CacheError(
            f"{len(bad)} {what} ids cannot be names of {format} features (expected relative paths "
            f"without '..', empty or overlong parts, or a part that another id uses as a folder), "
            f"such as {shown}"
        )


def _is_path(name: str) -> bool:
    parts = name.split("/")
    is_short = all(len(part.encode()) <= MAX_NAME_BYTES for part in parts)
    return is_short and "\0" not in name and "\\" not in name and not {"", ".", ".."} & {*parts}


@contextlib.contextmanager
def open_feature_writer(
    path: Path, format: FormatName, *, is_text: bool
) -> Iterator[FeatureWriter]:
    """Writes below `path`, a folder; for hdf5 the file `path` with the ending .h5.

    npy, webdataset: videos (n, D), texts (D,). hdf5: (n, D) for both, as TVR has it. npz: videos
    under `features`; texts as Moment-DETR has them, qidID.npz with `pooler_output` (D,) and
    `last_hidden_state` (1, D), the same vector: a cache has none of single words.
    """
    if format == "hdf5":
        with h5py.File(path.with_name(f"{path.name}.h5"), "w") as file:
            yield _Hdf5Writer(file)
        return
    path.mkdir()
    match format:
        case "npy":
            yield _NpyWriter(path, is_text=is_text)
        case "npz":
            yield _NpzWriter(path, is_text=is_text)
        case "webdataset":
            with contextlib.closing(_TarWriter(path, is_text=is_text)) as writer:
                yield writer


class _Hdf5Writer:
    def __init__(self, file: h5py.File) -> None:
        self._file = file

    def put(self, key: str, values: np.ndarray) -> None:
        self._file.create_dataset(key, data=values, track_times=False)


class _NpyWriter:
    def __init__(self, folder: Path, *, is_text: bool) -> None:
        self._folder = folder
        self._is_text = is_text

    def put(self, key: str, values: np.ndarray) -> None:
        np.save(_file(self._folder, f"{key}.npy"), values[0] if self._is_text else values)


class _NpzWriter:
    def __init__(self, folder: Path, *, is_text: bool) -> None:
        self._folder = folder
        self._is_text = is_text

    def put(self, key: str, values: np.ndarray) -> None:
        if not self._is_text:
            np.savez(_file(self._folder, f"{key}.npz"), features=values)
            return
        name = key if key.startswith("qid") else f"qid{key}"
        path = _file(self._folder, f"{name}.npz")
        np.savez(path, last_hidden_state=values, pooler_output=values[0])


class _TarWriter:
    def __init__(self, folder: Path, *, is_text: bool) -> None:
        self._folder = folder
        self._is_text = is_text
        self._num_items = 0
        self._tar: tarfile.TarFile | None = None

    def put(self, key: str, values: np.ndarray) -> None:
        if self._num_items % TAR_ITEMS == 0:
            self.close()
            path = self._folder / f"{self._num_items // TAR_ITEMS:05}.tar"
            self._tar = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)
        assert self._tar is not None
        self._num_items += 1
        content = io.BytesIO()
        np.save(content, values[0] if self._is_text else values)
        member = tarfile.TarInfo(f"{key}.npy")
        member.size = content.tell()
        content.seek(0)
        self._tar.addfile(member, content)

    def close(self) -> None:
        if self._tar is not None:
            self._tar.close()


def _file(folder: Path, name: str) -> Path:
    """Raises CacheError when it is there: 7 and qid7 of texts, a and A on some disks."""
    path = folder / name
    if path.exists():
        raise CacheError(f"two ids have the file name {name!r}; choose --format hdf5")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
