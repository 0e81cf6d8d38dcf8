"""What is shown of a query: the very best items by the scores that rank, and the nearest moment."""

from __future__ import annotations

import numpy as np
import pytest

from mlalign.evaluate.scores.best_items import best_clips, best_texts, join_best_items
from mlalign.evaluate.scores.vectors import TwoLevelVectors


def unit(rng: np.random.Generator, num: int, *, width: int = 16) -> np.ndarray:
    drawn = rng.normal(size=(num, width)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def two_level(rng: np.random.Generator, num: int, *, most_parts: int) -> TwoLevelVectors:
    offsets = np.concatenate([[0], np.cumsum(rng.integers(1, most_parts + 1, size=num))])
    return TwoLevelVectors(
        wholes=unit(rng, num), parts=unit(rng, int(offsets[-1])), offsets=offsets
    )


@pytest.mark.parametrize("is_transposed", [False, True])
@pytest.mark.parametrize("k", [1, 5, 30, 31])
def test_the_best_items_are_those_of_a_stable_sort_of_rounded_scores(
    k: int, is_transposed: bool
) -> None:
    rng = np.random.default_rng(k)
    scores = rng.normal(size=(40, 30)).astype(np.float32).round(1)  # with many equal ones
    if is_transposed:
        scores = np.asfortranarray(scores)
    shown = best_texts(scores, k=k)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    assert np.array_equal(shown.items, expected)
    assert np.array_equal(shown.scores, np.take_along_axis(scores, expected, axis=1))


def test_scores_apart_by_rounding_errors_are_equal_and_come_by_position() -> None:
    scores = np.array([[0.2, 0.5, 0.5 + 2e-7, 0.5 - 2e-7, 0.1]], dtype=np.float32)
    assert best_texts(scores, k=2).items.tolist() == [[1, 2]]
    assert best_texts(scores, k=3).items.tolist() == [[1, 2, 3]]


def test_the_moment_shown_is_the_segment_nearest_to_a_sentence() -> None:
    rng = np.random.default_rng(6)
    texts, clips = two_level(rng, 9, most_parts=3), two_level(rng, 7, most_parts=4)
    spans = np.stack([np.arange(len(clips.parts)), np.arange(len(clips.parts)) + 1.0], axis=1)
    shown = best_clips(texts.wholes @ clips.wholes.T, texts, clips, spans=spans, k=20)
    assert shown.spans is not None
    assert shown.items.shape == (9, 7)
    for text, row in enumerate(shown.items):
        sentences = texts.parts[texts.offsets[text] : texts.offsets[text + 1]]
        for place, clip in enumerate(row):
            first, last = clips.offsets[clip], clips.offsets[clip + 1]
            best = first + (sentences @ clips.parts[first:last].T).max(axis=0).argmax()
            assert shown.spans[text, place].tolist() == [best, best + 1]


def test_blocks_joined_are_the_whole() -> None:
    scores = np.random.default_rng(0).normal(size=(11, 8)).astype(np.float32)
    whole = best_texts(scores, k=3)
    joined = join_best_items([best_texts(scores[:4], k=3), best_texts(scores[4:], k=3)])
    assert joined is not None and joined.spans is None
    assert np.array_equal(joined.items, whole.items)
    assert np.array_equal(joined.scores, whole.scores)
    assert join_best_items([]) is None
