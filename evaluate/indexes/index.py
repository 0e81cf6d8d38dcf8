"""FAISS nearest neighbours by inner product, exact or approximate: never for reported ranks.

Approximate indexes are kept beside the features, built once and read when they fit:

    CACHE/indexes/<digest>.faiss     FAISS's own file format; may be deleted at any time

The digest is of the vectors themselves and of the factory string: other heads, another split, a
clip extracted again or another kind make another file, and no stale index is ever searched.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from ...data_manifests.core.atomic_write import atomic_write
from ...data_manifests.core.errors import UserError
from ..config import IndexConfig

MAX_GPU_NEIGHBOURS = 2048
"""FAISS's GPU indexes return no more for a query."""


def build_index(vectors: np.ndarray, config: IndexConfig | None = None) -> Any:
    """An inner-product index of (n, W) float32 vectors, trained on these vectors; default exact.

    Raises UserError when FAISS does not know the factory string or the search parameters, or cannot
    build the index from n vectors.
    """
    config = config or IndexConfig()
    try:
        index = faiss.index_factory(vectors.shape[1], config.factory, faiss.METRIC_INNER_PRODUCT)
        rows = np.ascontiguousarray(vectors, dtype=np.float32)
        if not index.is_trained:
            index.train(rows)
        index.add(rows)
    except RuntimeError as error:
        raise UserError(
            f"cannot build the index {config.factory!r} of {len(vectors)} vectors: {_reason(error)}"
        ) from error
    return index


def ready_to_search(index: Any, config: IndexConfig) -> Any:
    """The index with its search parameters set, on all GPUs when FAISS has any.

    Raises UserError for parameters that the index does not have.
    """
    index = _on_gpus(index)
    # get_num_gpus and GpuParameterSpace are those of a build with CUDA.
    space: Any = faiss.ParameterSpace()  # its stubs know one of two signatures
    if hasattr(faiss, "GpuParameterSpace") and not _is_cpu(index):
        space = faiss.GpuParameterSpace()
    try:
        if config.search:
            space.set_index_parameters(index, config.search)
    except RuntimeError as error:
        raise UserError(
            f"the index {config.factory!r} does not take the search parameters {config.search!r}: "
            f"{_reason(error)}"
        ) from error
    return index


def nearest(index: Any, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best vectors of each query, best first, equal ones by id: scores and ids, (n, k).

    Fewer than k columns when the index holds fewer; id -1 and score -inf where an approximate index
    found fewer. FAISS leaves it open which of equal vectors it returns and in which order, so it is
    asked for more until the last one is worse than the k-th.
    """
    max_neighbours = index.ntotal if _is_cpu(index) else min(index.ntotal, MAX_GPU_NEIGHBOURS)
    k = min(k, max_neighbours)
    rows = np.ascontiguousarray(queries, dtype=np.float32)
    if k == 0 or len(rows) == 0:
        return np.zeros((len(rows), k), dtype=np.float32), np.zeros((len(rows), k), dtype=np.int64)
    depth = min(max_neighbours, k + 1)
    while True:
        scores, ids = index.search(rows, depth)
        scores = np.where(ids < 0, -np.inf, scores)
        all_ties_seen = (scores[:, -1] < scores[:, k - 1]) | (ids[:, -1] < 0)
        if depth == max_neighbours or all_ties_seen.all():
            break
        depth = min(max_neighbours, 2 * depth)
    order = np.lexsort((ids, -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(ids, order, axis=1)


def _on_gpus(index: Any) -> Any:
    """A copy on every GPU that FAISS has; the index itself without one, or of a kind for CPUs."""
    if getattr(faiss, "get_num_gpus", int)() == 0:
        return index
    try:
        return faiss.index_cpu_to_all_gpus(index)
    except RuntimeError:  # HNSW, fast scan and refinement have no GPU version
        return index


def _is_cpu(index: Any) -> bool:
    return not type(index).__name__.startswith(("Gpu", "IndexReplicas"))


def _reason(error: RuntimeError) -> str:
    """FAISS's last words, without the place in its source that they come from."""
    return re.sub(r"^Error in .* at \S+:\d+: ", "", str(error).strip().splitlines()[-1])


FOLDER = "indexes"
MAPPED_BYTES = 1 << 30
"""Larger files are mapped into memory: pages that no search touches are never read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CachedIndex:
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


def load_or_build_index(vectors: np.ndarray, config: IndexConfig, *, cache: Path) -> CachedIndex:
    """The index of (n, W) float32 vectors: read from the cache's folder, or built and kept there.

    An exact index is not kept: it is the vectors themselves, and building it copies them. What
    cannot be written (a cache on a read-only disk) is used all the same. Raises UserError as
    `build_index` and `ready_to_search` do.
    """
    path = cache / FOLDER / f"{index_digest(vectors, config)}.faiss"
    if not config.is_exact and path.is_file():
        cached = _read(path)
        if cached is not None and (cached.ntotal, cached.d) == vectors.shape:
            return CachedIndex(
                index=ready_to_search(cached, config),
                config=config,
                path=path,
                num_bytes=path.stat().st_size,
                build_seconds=0.0,
            )
    start = time.perf_counter()
    index = build_index(vectors, config)
    seconds = time.perf_counter() - start
    saved = not config.is_exact and _write(index, path)
    return CachedIndex(
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
