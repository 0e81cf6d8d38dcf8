"""FAISS neighbours: they agree with brute force, and ties have an order of our own."""

from __future__ import annotations

import numpy as np
import pytest

from mlalign.data_manifests.core.errors import UserError
from mlalign.evaluate.config import IndexConfig
from mlalign.evaluate.indexes.index import build_index, nearest


def vectors(seed: int, num: int, *, width: int = 16) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(num, width)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def test_exact_search_agrees_with_brute_force() -> None:
    items, queries = vectors(0, 300), vectors(1, 40)
    scores, ids = nearest(build_index(items), queries, 10)
    every = queries @ items.T
    expected = np.argsort(-every, axis=1, kind="stable")[:, :10]
    assert np.array_equal(ids, expected)
    assert np.allclose(scores, np.take_along_axis(every, expected, axis=1), atol=1e-6)


def test_equal_items_come_by_id_also_at_the_cut() -> None:
    items = np.eye(4, dtype=np.float32)[[1, 0, 0, 2, 0, 0, 0, 3]]
    _, ids = nearest(build_index(items), np.eye(4, dtype=np.float32)[:1], 3)
    assert ids.tolist() == [[1, 2, 4]]


def test_more_neighbours_than_items_gives_all_items() -> None:
    scores, ids = nearest(build_index(vectors(0, 3)), vectors(1, 2), 10)
    assert scores.shape == ids.shape == (2, 3)
    assert np.sort(ids, axis=1).tolist() == [[0, 1, 2]] * 2


def test_an_unknown_factory_string_is_a_clear_error() -> None:
    with pytest.raises(UserError, match="'Flatt' of 3 vectors: could not parse index string"):
        build_index(vectors(0, 3), IndexConfig(factory="Flatt"))


def test_an_index_is_trained_on_the_vectors_that_it_holds() -> None:
    """Frozen features lie in a narrow cone: centroids of random vectors would leave lists empty."""
    import faiss

    cone = vectors(5, 1) + 0.1 * vectors(6, 2000)
    cone /= np.linalg.norm(cone, axis=1, keepdims=True)
    random = faiss.index_factory(16, "IVF16,Flat", faiss.METRIC_INNER_PRODUCT)
    random.train(vectors(7, 2000))
    random.add(cone)
    ours = build_index(cone, IndexConfig(factory="IVF16,Flat"))

    def largest_list(index: faiss.Index) -> int:
        lists = faiss.extract_index_ivf(index).invlists
        return max(lists.list_size(k) for k in range(16))

    assert largest_list(random) > 1000
    assert largest_list(ours) < 500
