"""Clip search through indexes: exact where it promises so, and what approximation costs."""

from __future__ import annotations

import numpy as np
import pytest

from mlalign.data_manifests.core.errors import UserError
from mlalign.evaluate.config import EvaluationConfig, IndexConfig, SegmentScoreConfig
from mlalign.evaluate.indexes.clip_search import ClipSearch
from mlalign.evaluate.indexes.effect import index_effect, segment_recall
from mlalign.evaluate.indexes.index import (
    CachedIndex,
    build_index,
    index_digest,
    load_or_build_index,
    nearest,
    ready_to_search,
)
from mlalign.evaluate.scores.similarity import fuse, level_scores
from mlalign.evaluate.scores.vectors import TwoLevelVectors
from mlalign.extract.cache.ragged import Ragged


def vectors(seed: int, num: int, *, width: int = 16) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(num, width)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def corpus(seed: int, num: int, *, most_parts: int = 6) -> TwoLevelVectors:
    counts = np.random.default_rng(seed).integers(1, most_parts + 1, size=num)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return TwoLevelVectors(
        wholes=vectors(seed + 1, num), parts=vectors(seed + 2, int(offsets[-1])), offsets=offsets
    )


def single_texts(queries: np.ndarray) -> TwoLevelVectors:
    return TwoLevelVectors(wholes=queries, parts=queries, offsets=np.arange(len(queries) + 1))


def search(clips: TwoLevelVectors, score: SegmentScoreConfig | None = None) -> ClipSearch:
    return ClipSearch(
        clips,
        clip_index=build_index(clips.wholes),
        segment_index=build_index(clips.parts),
        segment_score=score or SegmentScoreConfig(),
    )


@pytest.mark.parametrize("weight", [0.0, 1.0])
@pytest.mark.parametrize("candidates", [1, 7, 1000])
def test_the_scores_of_one_level_are_searched_exactly(weight: float, candidates: int) -> None:
    clips, queries = corpus(0, 150), vectors(9, 300)
    found = search(clips).search(single_texts(queries), k=5, weight=weight, candidates=candidates)
    every = level_scores(single_texts(queries), clips, config=SegmentScoreConfig())
    scores = fuse(*every, weight=weight)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    assert np.array_equal(found.clips, expected)
    assert np.allclose(found.scores, np.take_along_axis(scores, expected, 1), atol=1e-6)


def test_texts_of_several_sentences_are_searched_as_they_are_scored() -> None:
    clips, texts = corpus(3, 60), corpus(4, 20, most_parts=4)
    found = search(clips).search(texts, k=60, weight=0.4, candidates=60)
    scores = fuse(*level_scores(texts, clips, config=SegmentScoreConfig()), weight=0.4)
    expected = np.argsort(-scores, axis=1, kind="stable")
    assert np.array_equal(found.clips, expected)
    assert np.allclose(found.scores, np.take_along_axis(scores, expected, 1), atol=1e-6)
    for text in range(20):
        sentences = texts.slice(text, text + 1).parts
        for clip, segment in zip(found.clips[text], found.segments[text], strict=True):
            own = slice(clips.offsets[clip], clips.offsets[clip + 1])
            best = (clips.parts[own] @ sentences.T).max(axis=1)
            assert segment == clips.offsets[clip] + best.argmax()


@pytest.mark.parametrize("candidates", [1, 7])
def test_the_global_score_of_texts_of_several_sentences_is_searched_exactly(
    candidates: int,
) -> None:
    clips, texts = corpus(3, 60), corpus(4, 300, most_parts=4)
    found = search(clips).search(texts, k=5, weight=1.0, candidates=candidates)
    scores = texts.wholes @ clips.wholes.T
    assert np.array_equal(found.clips, np.argsort(-scores, axis=1, kind="stable")[:, :5])
    assert np.allclose(found.scores, -np.sort(-scores, axis=1)[:, :5], atol=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_a_clip_is_missed_only_when_it_is_near_no_sentence_and_not_the_whole(
    weight: float,
) -> None:
    clips, texts, candidates = corpus(3, 60), corpus(4, 40, most_parts=4), 4
    found = search(clips).search(texts, k=4, weight=weight, candidates=candidates)
    for text in range(len(texts)):
        own = texts.slice(text, text + 1)
        late = np.array(
            [
                [max(sentence @ part for part in clips.slice(c, c + 1).parts) for c in range(60)]
                for sentence in own.parts
            ]
        )
        whole = clips.wholes @ own.wholes[0]
        near = {int(clip) for row in late for clip in np.argsort(-row)[:candidates]}
        if weight > 0:
            near |= {int(clip) for clip in np.argsort(-whole)[:candidates]}
        scores = weight * whole + (1 - weight) * late.mean(axis=0)
        best = max(near, key=lambda clip: scores[clip])
        assert scores[found.clips[text, 0]] >= scores[best] - 1e-6
        assert found.scores[text] == pytest.approx(scores[found.clips[text]], abs=1e-5)


@pytest.mark.parametrize("pooling", ["max", "top_mean", "softmax"])
def test_with_every_clip_a_candidate_all_scores_are_exact(pooling: str) -> None:
    clips, queries = corpus(3, 60), vectors(4, 20)
    config = SegmentScoreConfig(pooling=pooling)
    found = search(clips, config).search(single_texts(queries), k=60, weight=0.4, candidates=60)
    scores = fuse(*level_scores(single_texts(queries), clips, config=config), weight=0.4)
    assert np.array_equal(found.clips, np.argsort(-scores, axis=1, kind="stable"))


def test_the_moment_is_the_nearest_segment_of_the_clip() -> None:
    clips, queries = corpus(5, 40), vectors(6, 10)
    found = search(clips).search(single_texts(queries), k=3, weight=0.5)
    for query, row_clips, row_segments in zip(queries, found.clips, found.segments, strict=True):
        for clip, segment in zip(row_clips, row_segments, strict=True):
            first, last = clips.offsets[clip], clips.offsets[clip + 1]
            assert segment == first + np.argmax(clips.parts[first:last] @ query)


def test_fewer_clips_than_asked_for_are_padded() -> None:
    found = search(corpus(7, 3)).search(single_texts(vectors(8, 2)), k=5, weight=0.5)
    assert (found.clips[:, :3] >= 0).all()
    assert (found.clips[:, 3:] == -1).all() and np.isneginf(found.scores[:, 3:]).all()


def test_no_queries_give_no_rows() -> None:
    found = search(corpus(7, 3)).search(single_texts(vectors(8, 0)), k=5, weight=0.5)
    assert found.clips.shape == (0, 5)


def test_a_clip_of_many_near_segments_does_not_crowd_out_the_others() -> None:
    """All the nearest segments are of one clip; the second clip is found all the same."""
    query = np.eye(4, dtype=np.float32)[:1]
    parts = np.concatenate([np.repeat(query, 50, axis=0), np.eye(4, dtype=np.float32)[1:2]])
    clips = TwoLevelVectors(wholes=parts[[0, 50]], parts=parts, offsets=np.array([0, 50, 51]))
    assert search(clips).search(
        single_texts(query), k=2, weight=0.0, candidates=2
    ).clips.tolist() == [[0, 1]]


def test_an_index_is_kept_and_read_again_when_the_vectors_are_the_same(tmp_path) -> None:
    rows, config = vectors(1, 400), IndexConfig(factory="IVF8,SQ8", search="nprobe=8")
    first, second = (load_or_build_index(rows, config, cache=tmp_path) for _ in range(2))
    assert first.build_seconds > 0 and second.build_seconds == 0
    assert first.path == second.path and second.num_bytes == second.path.stat().st_size
    queries = vectors(2, 20)
    for one, two in zip(
        *(nearest(kept.index, queries, 5) for kept in (first, second)), strict=True
    ):
        assert np.array_equal(one, two)
    assert load_or_build_index(vectors(3, 400), config, cache=tmp_path).build_seconds > 0


def test_a_damaged_index_file_is_built_again(tmp_path) -> None:
    rows, config = vectors(1, 100), IndexConfig(factory="HNSW8")
    path = load_or_build_index(rows, config, cache=tmp_path).path
    path.write_bytes(path.read_bytes()[:200])
    again = load_or_build_index(rows, config, cache=tmp_path)
    assert again.build_seconds > 0
    assert load_or_build_index(rows, config, cache=tmp_path).build_seconds == 0


def test_a_cache_that_cannot_be_written_is_searched_all_the_same(tmp_path) -> None:
    (tmp_path / "indexes").write_text("a file in the way")
    kept = load_or_build_index(vectors(1, 100), IndexConfig(factory="HNSW8"), cache=tmp_path)
    assert kept.path is None and kept.index.ntotal == 100


def test_a_large_index_file_is_mapped(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("mlalign.evaluate.indexes.index.MAPPED_BYTES", 0)
    rows, config = vectors(1, 300), IndexConfig(factory="IVF4,Flat", search="nprobe=4")
    built, mapped = (load_or_build_index(rows, config, cache=tmp_path) for _ in range(2))
    assert mapped.build_seconds == 0
    one, two = (nearest(kept.index, vectors(2, 9), 3)[1] for kept in (built, mapped))
    assert np.array_equal(one, two)


def test_the_digest_tells_vectors_and_kinds_apart_but_not_search_parameters() -> None:
    rows = vectors(1, 10)
    changed = rows.copy()
    changed[3, 4] += 1e-6
    flat, ivf = IndexConfig(), IndexConfig(factory="IVF1,Flat")
    digests = [index_digest(rows, flat), index_digest(rows, ivf), index_digest(changed, flat)]
    assert len(set(digests)) == 3
    assert index_digest(rows, IndexConfig(factory="IVF1,Flat", search="nprobe=1")) == digests[1]


def test_search_parameters_of_another_kind_are_a_clear_error() -> None:
    config = IndexConfig(factory="Flat", search="nprobe=8")
    with pytest.raises(UserError, match=r"'Flat' does not take the search parameters 'nprobe=8'"):
        ready_to_search(build_index(vectors(1, 5)), config)


def test_malformed_search_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="NAME=NUMBER"):
        IndexConfig(search="nprobe")


def test_an_exact_index_misses_nothing_and_a_coarse_one_something() -> None:
    rows, queries = vectors(1, 2000, width=32), vectors(2, 50, width=32)

    def recall(config: IndexConfig) -> float:
        index = ready_to_search(build_index(rows, config), config)
        kept = CachedIndex(index=index, config=config, path=None, num_bytes=0, build_seconds=0)
        return segment_recall(rows, queries, kept)

    assert recall(IndexConfig()) == 100
    one_probe, four = (IndexConfig(factory="IVF16,Flat", search=f"nprobe={n}") for n in (1, 8))
    assert recall(one_probe) < recall(four) < 100
    assert recall(IndexConfig(factory="IVF16,Flat", search="nprobe=16")) == 100


def test_duplicates_stand_in_for_each_other_in_the_recall() -> None:
    rows = np.repeat(vectors(1, 3), 20, axis=0)
    kept = CachedIndex(
        index=build_index(rows[::-1].copy()),
        config=IndexConfig(),
        path=None,
        num_bytes=0,
        build_seconds=0,
    )
    assert segment_recall(rows[::-1].copy(), rows[:1], kept) == 100


def test_the_effect_on_recall_is_that_of_brute_force(tmp_path) -> None:
    clips, texts = corpus(11, 80), single_texts(vectors(12, 40))
    correct = Ragged.of([[i, i + 1] for i in range(40)])
    config = EvaluationConfig(index=IndexConfig(factory="IVF4,Flat", search="nprobe=4"))
    effect = index_effect(texts, clips, correct, weight=0.0, config=config, cache=tmp_path)
    scores = level_scores(texts, clips, config=config.segment_score)[1]
    best = np.argsort(-scores, axis=1)
    for k in (1, 5, 10):
        expected = np.mean([bool({i, i + 1} & set(best[i, :k].tolist())) for i in range(40)])
        assert effect.exact[f"R@{k}"] == pytest.approx(100 * expected)
    assert effect.approximate == effect.exact and effect.segment_recall_at_10 == 100
