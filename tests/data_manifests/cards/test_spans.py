"""Overlaps by both denominators, both comparisons, and suppression."""

from __future__ import annotations

import numpy as np

from mlalign.data_manifests.cards.spans import reaches, span_iou, suppress
from mlalign.evaluate.scores.metrics import (
    box_precision,
    highlight_precision,
    window_precisions,
)


def test_hull_and_union_are_one_for_spans_that_meet_and_zero_for_others() -> None:
    rng = np.random.default_rng(0)
    spans, truth = np.sort(rng.uniform(0, 9, (2, 200, 2)), axis=2)
    union = span_iou(spans, truth)
    assert np.allclose(union, span_iou(spans, truth, denominator="hull"))
    for (a, b), (c, d), iou in zip(spans, truth, union, strict=True):
        inner = max(0.0, min(b, d) - max(a, c))
        assert np.isclose(iou, inner / (b - a + d - c - inner))


def test_a_span_of_no_length_overlaps_nothing() -> None:
    empty = np.array([2.0, 2.0])
    assert span_iou(empty, empty, denominator="hull") == 0
    assert span_iou(empty, empty) == 0


def test_exactly_the_threshold_counts_with_at_least_and_not_with_above() -> None:
    iou = span_iou(np.array([0.0, 5.0]), np.array([0.0, 10.0]))
    assert reaches(iou, 0.5, ">=") and not reaches(iou, 0.5, ">")


def test_suppression_keeps_the_better_of_two_that_overlap() -> None:
    spans = np.array([[0, 10], [1, 10], [20, 30], [0, 4]], dtype=float)
    assert suppress(spans, threshold=0.5).tolist() == [0, 2, 3]
    assert suppress(spans, threshold=0.3).tolist() == [0, 2]


def test_average_precision_of_windows_by_hand() -> None:
    """Score order is wrong, right, right: precision 0, 1/2, 2/3, interpolated 2/3 at both."""
    truth = np.array([[0, 10], [20, 30]], dtype=float)
    predicted = np.array([[0, 10, 0.2], [50, 60, 0.9], [20, 30, 0.5]])
    assert np.allclose(window_precisions(predicted, truth, np.array([0.5, 0.95])), 2 / 3)
    # A second window on the same truth is wrong.
    twice = np.array([[0, 10, 0.9], [0, 10, 0.8]])
    assert np.allclose(window_precisions(twice, truth, np.array([0.5])), 1 / 2)


def test_tied_highlight_clips_are_one_step() -> None:
    right = np.array([True, False, True, False])
    assert highlight_precision(right, np.array([4.0, 3.0, 2.0, 1.0])) == (1 + 2 / 3) / 2
    assert highlight_precision(right, np.zeros(4)) == 1 / 2
    assert highlight_precision(~right & right, np.arange(4.0)) == 0
    assert highlight_precision(right | ~right, np.arange(4.0)) == 1


def test_a_second_box_of_the_same_truth_is_wrong() -> None:
    box = [10.0, 10, 50, 50]
    predicted = {"a": np.array([[*box, 0.9], [*box, 0.8]]), "b": np.array([[*box, 0.7]])}
    truth = {"a": np.array([box]), "b": np.array([box])}
    assert np.isclose(box_precision(predicted, truth), (1 + 2 / 3) / 2)


def test_highlight_precision_agrees_with_a_loop_over_thresholds() -> None:
    """The mean over distinct recalls of the best precision at that recall or a higher one."""
    rng = np.random.default_rng(2)
    for _ in range(200):
        right = rng.permutation(np.arange(12) < rng.integers(1, 12))
        scores = rng.integers(0, 6, 12).astype(float)
        points = []
        for threshold in np.unique(scores):
            chosen = scores >= threshold
            points.append((right[chosen].sum() / right.sum(), right[chosen].mean()))
        recalls = {recall for recall, _ in points if recall > 0}
        best = [max(p for r, p in points if r >= recall) for recall in recalls]
        assert np.isclose(highlight_precision(right, scores), np.mean(best))
