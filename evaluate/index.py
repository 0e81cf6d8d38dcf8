"""FAISS nearest neighbours by inner product, for what is shown: never for ranks."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np

from ..data_manifests.errors import UserError


def build_index(vectors: np.ndarray, factory: str = "Flat") -> Any:
    """An inner-product index of (n, W) float32 vectors; "Flat" is exact.

    Raises UserError when FAISS does not know the factory string or cannot build it from n vectors.
    """
    try:
        index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        rows = np.ascontiguousarray(vectors, dtype=np.float32)
        if not index.is_trained:
            index.train(rows)
        index.add(rows)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UserError(
            f"cannot build the index {factory!r} of {len(vectors)} vectors: {reason}"
        ) from error
    return index


def nearest(index: Any, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best vectors of each query, best first, equal ones by id: scores and ids, (n, k).

    Fewer than k columns when the index holds fewer; id -1 and score -inf where an approximate index
    found fewer. FAISS leaves it open which of equal vectors it returns and in which order, so it is
    asked for more until the last one is worse than the k-th.
    """
    k = min(k, index.ntotal)
    rows = np.ascontiguousarray(queries, dtype=np.float32)
    if k == 0 or len(rows) == 0:
        return np.zeros((len(rows), k), dtype=np.float32), np.zeros((len(rows), k), dtype=np.int64)
    depth = min(index.ntotal, k + 1)
    while True:
        scores, ids = index.search(rows, depth)
        scores = np.where(ids < 0, -np.inf, scores)
        all_ties_seen = (scores[:, -1] < scores[:, k - 1]) | (ids[:, -1] < 0)
        if depth == index.ntotal or all_ties_seen.all():
            break
        depth = min(index.ntotal, 2 * depth)
    order = np.lexsort((ids, -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(ids, order, axis=1)
