"""Positive, negative and masked pairs, against loops over the definition."""

from __future__ import annotations

import numpy as np
import pytest

from mlalign.align.data.pairs import (
    normalised_words,
    overlapping_clips,
    pair_masks,
    span_pairs,
    word_ids,
)
from mlalign.data_manifests.cards.spans import span_iou
from mlalign.extract.cache.ragged import ragged_rows


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A  Dog.", "a dog"),
        ("a dog", "a dog"),
        ("it's\tTWO-tone!", "it s two tone"),
        ("Straße", "strasse"),
        ("犬が走る。", "犬が走る"),
        ("?!", "?!"),
        ("", ""),
    ],
)
def test_words_ignore_case_punctuation_and_blanks(text: str, words: str) -> None:
    assert normalised_words(text) == words


def test_word_ids_are_equal_exactly_for_equal_words() -> None:
    assert word_ids(["A dog.", "a cat", "a dog", "a  CAT!"]).tolist() == [0, 1, 0, 1]


def test_ragged_rows_follow_the_order_of_the_items() -> None:
    rows, positions = ragged_rows(np.array([0, 2, 3, 6]), np.array([2, 0]))
    assert rows.tolist() == [3, 4, 5, 0, 1]
    assert positions.tolist() == [0, 0, 0, 1, 1]


def test_ragged_rows_of_empty_items_are_empty() -> None:
    rows, positions = ragged_rows(np.array([0, 0, 0]), np.array([0, 1, 0]))
    assert rows.tolist() == positions.tolist() == []


@pytest.mark.parametrize(
    ("a", "b", "iou"),
    [((0, 2), (0, 2), 1), ((0, 2), (1, 3), 1 / 3), ((0, 1), (1, 2), 0), ((1, 1), (1, 1), 0)],
)
def test_span_iou(a: tuple[float, float], b: tuple[float, float], iou: float) -> None:
    assert span_iou(np.array([a], dtype=float), np.array([b], dtype=float))[0] == iou


def relations(
    text_span: tuple[float, float], segments: list[tuple[float, float]]
) -> tuple[list[bool], list[bool]]:
    pairs = span_pairs(
        text_spans=np.array([text_span], dtype=float),
        text_clips=np.array([0]),
        segment_spans=np.array(segments, dtype=float),
        segment_offsets=np.array([0, len(segments)]),
    )
    return pairs.positive.tolist(), pairs.related.tolist()


def test_the_segment_with_the_texts_span_is_its_positive() -> None:
    positive, related = relations((2.1, 4.7), [(0, 2.1), (2.1, 4.7), (4.7, 6)])
    assert positive == related == [False, True, False]


def test_without_its_own_segment_the_best_matching_ones_are_positive() -> None:
    assert relations((0, 4), [(0, 2), (2, 4), (4, 6)])[0] == [True, True, False]
    assert relations((1, 4.5), [(0, 4), (4, 8)])[0] == [True, False]


def test_a_text_that_no_segment_touches_has_no_positive() -> None:
    assert relations((8, 9), [(0, 2), (2, 4)]) == ([False, False], [False, False])


def test_segments_inside_a_span_are_positives_however_short() -> None:
    shots = relations((0, 8), [(0, 5), (5, 7), (7, 8), (8, 12)])
    assert shots == ([True, True, True, False], [True, True, True, False])
    windows = [(0, 2), (2, 4), (4, 6), (6, 8), (8, 10), (10, 12), (12, 13)]
    positive, related = relations((6, 13), [(float(a), float(b)) for a, b in windows])
    assert positive == related == [False] * 3 + [True] * 4


def test_segments_covered_by_more_than_a_tenth_are_left_alone() -> None:
    pieces = [(2.0 * k, 2.0 * k + 2) for k in range(16)]
    positive, related = relations((4.2, 15.4), pieces)
    assert [k for k in range(16) if positive[k]] == [2, 3, 4, 5, 6, 7]
    positive, related = relations((4.2, 14.6), pieces)
    assert [k for k in range(16) if positive[k]] == [2, 3, 4, 5, 6]
    assert [k for k in range(16) if related[k]] == [2, 3, 4, 5, 6, 7]
    assert relations((0, 4), [(0, 4), (3.7, 6.7)]) == ([True, False], [True, False])
    assert relations((0, 4), [(0, 4), (3.6, 6.6)])[1] == [True, True]


@pytest.mark.parametrize("seed", range(20))
def test_span_pairs_equal_loops_over_random_ragged_clips(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 6, size=7)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    spans = np.sort(rng.integers(0, 12, size=(counts.sum(), 2)), axis=1) + [0.0, 1.0]
    text_clips = rng.integers(0, 7, size=15)
    text_spans = np.sort(rng.integers(0, 12, size=(15, 2)), axis=1) + [0.0, 1.0]
    pairs = span_pairs(
        text_spans=text_spans,
        text_clips=text_clips,
        segment_spans=spans,
        segment_offsets=offsets,
    )
    for text, clip in enumerate(text_clips):
        mine = slice(pairs.text_offsets[text], pairs.text_offsets[text + 1])
        own = list(range(offsets[clip], offsets[clip + 1]))
        assert pairs.segments[mine].tolist() == own
        ious, covered = [], []
        for segment in own:
            shared = min(spans[segment, 1], text_spans[text, 1]) - max(
                spans[segment, 0], text_spans[text, 0]
            )
            lengths = np.diff(spans[segment])[0] + np.diff(text_spans[text])[0]
            ious.append(max(shared, 0) / (lengths - max(shared, 0)))
            covered.append(max(shared, 0) / np.diff(spans[segment])[0])
        best = [
            (iou == max(ious) and iou > 0) or share >= 0.5
            for iou, share in zip(ious, covered, strict=True)
        ]
        assert pairs.positive[mine].tolist() == best
        assert pairs.related[mine].tolist() == [
            b or share > 0.1 for b, share in zip(best, covered, strict=True)
        ]


@pytest.mark.parametrize("seed", range(20))
def test_overlapping_clips_equal_loops_over_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    videos = rng.integers(0, 3, size=12)
    starts = rng.integers(0, 10, size=12).astype(float)
    durations = rng.integers(1, 5, size=12).astype(float)
    found = overlapping_clips(videos, starts, durations)
    for clip in range(12):
        expected = {
            other
            for other in range(12)
            if other != clip
            and videos[other] == videos[clip]
            and min(starts[clip] + durations[clip], starts[other] + durations[other])
            > max(starts[clip], starts[other])
        }
        assert sorted(found[clip].tolist()) == sorted(expected)


def test_texts_with_equal_words_are_masked_in_other_rows() -> None:
    masks = pair_masks(
        num_rows=3,
        column_words=np.array([7, 7, 9]),
        positive=(np.array([0, 1, 2]), np.array([0, 1, 2])),
        related=(np.array([0, 1, 2]), np.array([7, 7, 9])),
    )
    assert masks.positive.tolist() == np.eye(3, dtype=bool).tolist()
    assert masks.negative.tolist() == [
        [False, False, True],
        [False, False, True],
        [True, True, False],
    ]


@pytest.mark.parametrize("seed", range(20))
def test_pair_masks_equal_loops_over_random_relations(seed: int) -> None:
    rng = np.random.default_rng(seed)
    num_rows, num_texts = rng.integers(1, 9, size=2)
    words = rng.integers(0, 5, size=num_texts)
    table = rng.random((num_rows, num_texts)) < 0.3
    extra = (rng.integers(0, num_rows, size=6), rng.integers(0, 8, size=6))
    rows, columns = np.nonzero(table)
    masks = pair_masks(
        num_rows=int(num_rows),
        column_words=words,
        positive=(rows, columns),
        related=(np.concatenate([rows, extra[0]]), np.concatenate([words[columns], extra[1]])),
    )
    for row in range(num_rows):
        known = {words[t] for t in range(num_texts) if table[row, t]}
        known |= {word for r, word in zip(*extra, strict=True) if r == row}
        for text in range(num_texts):
            assert masks.positive[row, text] == table[row, text]
            assert masks.negative[row, text] == (words[text] not in known)
