"""Ranks: exact, whatever the blocks and the order, with ties against us."""

from __future__ import annotations

import numpy as np
import pytest

from mlalign.data_manifests.cards.scoring_rules import Direction
from mlalign.evaluate.config import SegmentScoreConfig
from mlalign.evaluate.scores import ranks as ranks_module
from mlalign.evaluate.scores.ranks import (
    SCORE_RESOLUTION,
    num_reaching,
    ranks_in_lists,
    ranks_of_correct,
)
from mlalign.evaluate.scores.similarity import retrieval_ranks
from mlalign.evaluate.scores.vectors import TwoLevelVectors
from mlalign.extract.cache.ragged import Ragged, offsets_of

MAX = SegmentScoreConfig()


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    vectors = rng.normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def two_level(rng: np.random.Generator, num: int, *, width: int = 16) -> TwoLevelVectors:
    offsets = np.concatenate([[0], np.cumsum(rng.integers(1, 5, size=num))])
    wholes, parts = unit(rng, num, width), unit(rng, int(offsets[-1]), width)
    return TwoLevelVectors(wholes=wholes, parts=parts, offsets=offsets)


def loop_ranks(scores: np.ndarray, correct: list[list[int]]) -> list[int]:
    """The definition, as loops: wrong items that score at least as high as the best right one."""
    ranks = []
    for row, right in zip(scores, correct, strict=True):
        best = max(row[item] for item in right)
        wrong = [item for item in range(len(row)) if item not in right]
        ranks.append(sum(row[item] >= best - SCORE_RESOLUTION for item in wrong))
    return ranks


def loop_scores(texts: TwoLevelVectors, clips: TwoLevelVectors, weight: float) -> np.ndarray:
    scores = np.zeros((len(texts), len(clips)))
    for t in range(len(texts)):
        for c in range(len(clips)):
            best = [
                max(
                    float(np.float64(sentence) @ np.float64(segment))
                    for segment in clips.parts[clips.offsets[c] : clips.offsets[c + 1]]
                )
                for sentence in texts.parts[texts.offsets[t] : texts.offsets[t + 1]]
            ]
            whole = float(np.float64(texts.wholes[t]) @ np.float64(clips.wholes[c]))
            scores[t, c] = weight * whole + (1 - weight) * sum(best) / len(best)
    return scores


def test_rank_is_the_number_of_better_or_equal_others() -> None:
    scores = np.array([[0.9, 0.5, 0.7], [0.1, 0.1, 0.3], [0.2, 0.2, 0.2]], dtype=np.float32)
    found = ranks_of_correct(scores, Ragged.of([[2], [0], [1]]))
    assert found.ranks.tolist() == [1, 2, 2]
    assert found.tied.tolist() == [False, True, True]


def test_the_best_of_several_right_items_counts_and_the_others_do_not() -> None:
    scores = np.array([[0.9, 0.8, 0.8, 0.1]], dtype=np.float32)
    assert ranks_of_correct(scores, Ragged.of([[1, 2]])).ranks.tolist() == [1]
    assert ranks_of_correct(scores, Ragged.of([[0, 1, 3]])).ranks.tolist() == [0]
    assert not ranks_of_correct(scores, Ragged.of([[1, 2]])).tied.any()


def test_equal_scores_rank_last() -> None:
    scores = np.full((4, 7), 0.25, dtype=np.float32)
    found = ranks_of_correct(scores, Ragged.singles(np.arange(4)))
    assert found.ranks.tolist() == [6] * 4
    assert found.tied.all()


def test_ranks_do_not_depend_on_the_order_of_items() -> None:
    rng = np.random.default_rng(0)
    scores, truth = rng.normal(size=(30, 20)), rng.integers(0, 20, 30)
    order = rng.permutation(20)
    mixed = ranks_of_correct(scores[:, order], Ragged.singles(np.argsort(order)[truth]))
    assert np.array_equal(mixed.ranks, ranks_of_correct(scores, Ragged.singles(truth)).ranks)


@pytest.mark.parametrize("cached_scores", [1, 1000, 2**18])
@pytest.mark.parametrize("by_item", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (40, 64), (7, 1000), (600, 65)])
def test_counts_are_those_of_whole_rows_whatever_lies_side_by_side(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], by_item: bool, cached_scores: int
) -> None:
    """Also of more than 255 items, which do not fit in the byte that they are first counted in."""
    monkeypatch.setattr(ranks_module, "CACHED_SCORES", cached_scores)
    rng = np.random.default_rng(4)
    scores = rng.integers(0, 9, shape).astype(np.float32)
    scores = np.asarray(scores, order="F" if by_item else "C")
    low, high = rng.integers(0, 9, (2, len(scores))).astype(np.float32)
    expected = np.stack(
        [(scores >= low[:, None]).sum(axis=1), (scores > high[:, None]).sum(axis=1)]
    )
    assert np.array_equal(num_reaching(scores, low, high), expected)
    half = len(scores) // 2 + 1
    assert np.array_equal(num_reaching(scores[:half], low[:half], high[:half]), expected[:, :half])


@pytest.mark.parametrize("direction", ["text_to_clip", "clip_to_text"])
def test_blockwise_ranks_agree_with_loops(direction: Direction) -> None:
    rng = np.random.default_rng(1)
    texts, clips = two_level(rng, 23), two_level(rng, 9)
    owner = np.concatenate([np.arange(9), rng.integers(0, 9, 14)])
    correct = Ragged.singles(owner)
    if direction == "clip_to_text":
        correct = Ragged.of([np.flatnonzero(owner == clip) for clip in range(9)])
    lists = np.split(correct.values, correct.offsets[1:-1])
    weights = [1.0, 0.0, 0.3]
    found = retrieval_ranks(
        texts, clips, correct, direction=direction, weights=weights, segment_score=MAX
    )
    for ranks, weight in zip(found, weights, strict=True):
        scores = loop_scores(texts, clips, weight)
        scores = scores if direction == "text_to_clip" else scores.T
        assert ranks.ranks.tolist() == loop_ranks(scores, [list(right) for right in lists])


@pytest.mark.parametrize("direction", ["text_to_clip", "clip_to_text"])
def test_blocks_of_any_size_give_the_same_ranks(direction: Direction) -> None:
    rng = np.random.default_rng(2)
    texts, clips = two_level(rng, 40), two_level(rng, 40)
    correct = Ragged.singles(np.arange(40))
    expected = None
    for block_bytes in (1, 3000, 20_000, 10**9):
        found = retrieval_ranks(
            texts,
            clips,
            correct,
            direction=direction,
            weights=[1.0, 0.0, 0.5],
            segment_score=MAX,
            block_bytes=block_bytes,
        )
        ranks = np.stack([one.ranks for one in found])
        expected = ranks if expected is None else expected
        assert np.array_equal(ranks, expected)


def test_duplicates_tie_wherever_they_stand_in_the_matrix() -> None:
    """A float32 product gives equal pairs slightly unequal scores; that must not decide a rank."""
    rng = np.random.default_rng(3)
    wholes = np.repeat(unit(rng, 1, 512), 1003, axis=0)
    items = TwoLevelVectors(wholes=wholes, parts=wholes, offsets=np.arange(1004))
    vectors = unit(rng, 50, 512)
    queries = TwoLevelVectors(wholes=vectors, parts=vectors, offsets=np.arange(51))
    for ranks in retrieval_ranks(
        queries,
        items,
        Ragged.singles(np.arange(50) * 20),
        direction="text_to_clip",
        weights=[1.0, 0.0, 0.7],
        segment_score=MAX,
    ):
        assert (ranks.ranks == 1002).all() and ranks.tied.all()


def test_an_empty_list_of_right_items_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one element"):
        ranks_of_correct(np.zeros((3, 4)), Ragged.of([[0], [], [1]]))


@pytest.mark.parametrize("resolution", [0.0, 0.25])
def test_scores_at_the_resolution_are_level_and_those_beyond_it_are_not(resolution: float) -> None:
    scores = np.array([[0.5 + resolution, 0.5, 0.5 - resolution, 0.9, 0.1]])
    expected = {"against": 3.0, "mean": 2.0, "first": 2.0}
    for ties, rank in expected.items():
        found = ranks_of_correct(
            scores, Ragged.singles(np.array([1])), ties=ties, resolution=resolution
        )
        assert found.ranks.tolist() == [rank] and found.tied.tolist() == [True]


def test_ranks_in_lists_agree_with_ranks_of_correct() -> None:
    rng = np.random.default_rng(5)
    counts = rng.integers(1, 7, 50)
    lists = Ragged(values=rng.integers(0, 4, counts.sum()).astype("f4"), offsets=offsets_of(counts))
    is_right = rng.random(counts.sum()) < 0.4
    is_right[lists.offsets[:-1]] = True
    found = ranks_in_lists(lists.values, is_right, lists.offsets)
    for query, scores in enumerate(map(lists.__getitem__, range(50))):
        right = np.flatnonzero(is_right[slice(*lists.offsets[query : query + 2])])
        alone = ranks_of_correct(scores[None], Ragged.of([right]))
        assert found.ranks[query] == alone.ranks[0] and found.tied[query] == alone.tied[0]
