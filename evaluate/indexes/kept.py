"""Indexes kept beside the features: built once, named by what they are made of, read when it fits.

    CACHE/indexes/<digest>.faiss     FAISS's own file format; may be deleted at any time

The digest is of the vectors themselves and of the factory string: other heads, another split, a
clip extracted again or another kind make another file, and no stale index is ever searched.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from ...data_manifests.core.atomic_write import atomic_write
from ..config import IndexConfig
from .index import build_index, ready_to_search

FOLDER = "indexes"
MAPPED_BYTES = 1 << 30
"""Larger files are mapped into memory: pages that no search touches are never read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptIndex:
    """An index that is ready to be searched."""

    index: Any
    """Of FAISS."""
    config: IndexConfig
    """What it is."""
    path: Path | None
    """Its file; None when the folder cannot be written."""
    num_bytes: int
    """Of the file; of the vectors without one."""
    build_seconds: float
    """Training and adding; 0 when it was read."""


def keep_index(vectors: np.ndarray, config: IndexConfig, *, cache: Path) -> KeptIndex:
    """The index of (n, W) float32 vectors: read from the cache's folder, or built and kept there.

    An exact index is not kept: it is the vectors themselves, and building it copies them. What
    cannot be written (a cache on a read-only disk) is used all the same. Raises UserError as
    `build_index` and `ready_to_search` do.
    """
    path = cache / FOLDER / f"{index_digest(vectors, config)}.faiss"
    if not config.is_exact and path.is_file():
        found = _read(path)
        if found is not None and (found.ntotal, found.d) == vectors.shape:
            return KeptIndex(
                index=ready_to_search(found, config),
                config=config,
                path=path,
                num_bytes=path.stat().st_size,
                build_seconds=0.0,
            )
    start = time.perf_counter()
    index = build_index(vectors, config)
    seconds = time.perf_counter() - start
    saved = not config.is_exact and _write(index, path)
    return KeptIndex(
        index=ready_to_search(index, config),
        config=config,
        path=path if saved else None,
        num_bytes=path.stat().st_size if saved else vectors.size * 4,
        build_seconds=seconds,
    )


def index_digest(vectors: np.ndarray, config: IndexConfig) -> str:
    """32 hex digits that name the index of these vectors; search parameters are not part of it."""
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    identity = {"factory": config.factory, "shape": rows.shape, "faiss": faiss.__version__}
    hasher = hashlib.sha256(json.dumps(identity, sort_keys=True).encode())
    hasher.update(rows.view(np.uint8).data if rows.size else b"")
    return hasher.hexdigest()[:32]


def _read(path: Path) -> Any | None:
    """None when the file is damaged: the index is built again."""
    flags = faiss.IO_FLAG_MMAP_IFC if path.stat().st_size > MAPPED_BYTES else 0
    try:
        return faiss.read_index(str(path), flags)
    except RuntimeError:
        return None


def _write(index: Any, path: Path) -> bool:
    try:
        path.parent.mkdir(exist_ok=True)
        atomic_write(path, lambda temporary: faiss.write_index(index, str(temporary)))
    except (OSError, RuntimeError):  # read-only or full: the index is only a help
        return False
    return True
