"""FAISS neighbours: they agree with brute force, and ties have an order of our own."""

from __future__ import annotations

import numpy as np
import pytest

from mlalign.data_manifests.errors import UserError
from mlalign.evaluate.config import EvaluationConfig, IndexConfig
from mlalign.evaluate.index import build_index, nearest
from mlalign.evaluate.scoring import TwoLevelVectors, fuse, level_scores
from mlalign.evaluate.shown import show_neighbours


def vectors(seed: int, num: int, *, width: int = 16) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(num, width)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def two_level(seed: int, num: int, *, most_parts: int) -> TwoLevelVectors:
    counts = np.random.default_rng(seed).integers(1, most_parts + 1, size=num)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    parts = vectors(seed + 1, int(offsets[-1]))
    return TwoLevelVectors(wholes=vectors(seed, num), parts=parts, offsets=offsets)


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
    with pytest.raises(UserError, match="cannot build the index 'Flatt' of 3 vectors"):
        build_index(vectors(0, 3), IndexConfig(factory="Flatt"))


@pytest.mark.parametrize("direction", ["text_to_clip", "clip_to_text"])
def test_shown_items_of_one_sentence_texts_are_the_exact_best(direction: str) -> None:
    texts, clips = two_level(2, 70, most_parts=1), two_level(4, 50, most_parts=6)
    config = EvaluationConfig(shown_neighbours=5)
    spans = np.stack([np.arange(len(clips.parts)), np.arange(len(clips.parts)) + 1.0], axis=1)
    found = show_neighbours(
        texts,
        clips,
        direction="text_to_clip" if direction == "text_to_clip" else "clip_to_text",
        weights=[1.0, 0.0],
        spans=spans,
        config=config,
    )
    levels = level_scores(texts, clips, config=config.segment_score)
    for shown, weight in zip(found, [1.0, 0.0], strict=True):
        assert shown is not None
        scores = fuse(*levels, weight=weight)
        scores = scores if direction == "text_to_clip" else scores.T
        expected = np.argsort(-scores, axis=1)[:, :5]
        assert np.array_equal(shown.items, expected)
        assert np.allclose(shown.scores, np.take_along_axis(scores, expected, axis=1), atol=2e-6)


def test_the_moment_shown_is_the_segment_nearest_to_a_sentence() -> None:
    texts, clips = two_level(6, 9, most_parts=3), two_level(8, 7, most_parts=4)
    spans = np.stack([np.arange(len(clips.parts)), np.arange(len(clips.parts)) + 1.0], axis=1)
    (shown,) = show_neighbours(
        texts,
        clips,
        direction="text_to_clip",
        weights=[0.5],
        spans=spans,
        config=EvaluationConfig(shown_neighbours=20),
    )
    assert shown is not None and shown.spans is not None
    assert shown.items.shape == (9, 7)
    for text, row in enumerate(shown.items):
        sentences = texts.parts[texts.offsets[text] : texts.offsets[text + 1]]
        for place, clip in enumerate(row):
            first, last = clips.offsets[clip], clips.offsets[clip + 1]
            best = first + (sentences @ clips.parts[first:last].T).max(axis=0).argmax()
            assert shown.spans[text, place].tolist() == [best, best + 1]


def test_no_neighbours_are_searched_when_none_are_asked_for() -> None:
    side = two_level(0, 3, most_parts=2)
    config = EvaluationConfig(shown_neighbours=0)
    assert show_neighbours(
        side,
        side,
        direction="text_to_clip",
        weights=[1.0],
        spans=np.zeros((len(side.parts), 2)),
        config=config,
    ) == [None]


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
