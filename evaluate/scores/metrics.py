"""Metrics as per-query values, whose mean or median is the metric: of 0-based ranks, and the
interpolated average precision of ranked windows, boxes and highlight clips (QVHighlights).

Keeping the values of each query is what makes intervals and paired tests possible.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from ...data_manifests.cards.spans import span_iou


def recall_at(ranks: np.ndarray, k: int) -> np.ndarray:
    """R@K in percent is the mean of these: 100 where a right item is among the first K, else 0.

    ranks: any shape, 0 is first; halves where ties rank at their mean, of which 0.5 is not first,
    while 4.5 is among the first five (CE).   Returns float64 of that shape.
    """
    return np.where(ranks <= 0 if k == 1 else ranks < k, 100.0, 0.0)


def reciprocal_rank(ranks: np.ndarray) -> np.ndarray:
    """MRR, from 0 to 1, is the mean of these: 1 / (rank + 1)."""
    return 1.0 / (ranks + 1.0)


def one_based(ranks: np.ndarray) -> np.ndarray:
    """Mean rank MnR and median rank MdR are the mean and the median of these: first is 1.

    The median of an even number of queries is the mean of the middle two (numpy's, not torch's).
    """
    return ranks + 1.0


def discounted_gain(ranks: np.ndarray, k: int = 10) -> np.ndarray:
    """nDCG@K, from 0 to 1, for one right item each: 1 / log2(rank + 2) among the first K, else 0.

    The ideal gain of one right item is 1 (Jarvelin and Kekalainen 2002).
    """
    return np.where(ranks < k, 1.0 / np.log2(ranks + 2.0), 0.0)


def discounted_gains(places: np.ndarray, offsets: np.ndarray, k: int = 10) -> np.ndarray:
    """(Q,) nDCG@K of queries with several right items: their gains over those of the first places.

    places: 0-based, of all right items, queries end to end.   offsets: (Q + 1,), of the queries.
    """
    gains = np.add.reduceat(discounted_gain(places, k), offsets[:-1])
    ideal = np.cumsum(discounted_gain(np.arange(k), k))
    return np.asarray(gains / ideal[np.minimum(np.diff(offsets), k) - 1])


def average_precisions(places: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(Q,) whose mean is mAP, from 0 to 1: the mean over right items of the precision at each.

    places: 0-based, of all right items, queries end to end and best first.   offsets: (Q + 1,).
    """
    counts = np.diff(offsets)
    num_hits = np.arange(len(places)) - np.repeat(offsets[:-1], counts) + 1
    return np.asarray(np.add.reduceat(num_hits / (places + 1.0), offsets[:-1]) / counts)


def median_rank(ranks: np.ndarray, *, lower: bool) -> float:
    """MdR from 1: numpy's mean of the middle two, or torch's lower one (CLIP4Clip)."""
    if lower:
        return float(np.sort(ranks)[(len(ranks) - 1) // 2]) + 1.0
    return float(np.median(ranks)) + 1.0


def geometric_mean(values: np.ndarray) -> np.ndarray:
    """Of R@1, R@5 and R@10 along the last axis, as CE reports it; 0 where one of them is 0."""
    return np.asarray(np.prod(values, axis=-1) ** (1.0 / values.shape[-1]))


THRESHOLDS: Final = np.array([0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95])
RANGES: Final = {"full": (-np.inf, np.inf), "long": (30, 150), "middle": (10, 30), "short": (0, 10)}
"""Seconds (low, high] of the truth's windows that count; the whole of it for full."""
SINGLE: Final = (0.5, 0.75)
"""Thresholds whose mAP is reported alone, too."""


def interpolated_area(hits: np.ndarray, num_right: int) -> float:
    """Area under the interpolated precision-recall curve (PASCAL VOC 2011).

    hits: (n,) bool, best first.   num_right: right answers that there are, at least 1.
    Each found one adds 1 / num_right times the best precision at its recall or a higher one; summed
    by steps of recall, the last one to 1, as the official scorers do to the last bit.
    """
    num_hits = np.cumsum(hits)
    recall = np.concatenate([[0.0], num_hits / num_right, [1.0]])
    precision = np.append(num_hits / np.arange(1, len(hits) + 1), 0.0)
    best_after = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.diff(recall)
    return float((steps * best_after)[steps != 0].sum())


def window_precisions(
    predicted: np.ndarray, truth: np.ndarray, thresholds: np.ndarray
) -> np.ndarray:
    """(thresholds,) AP of one query's windows, as QVHighlights computes it.

    predicted: (n, 3) start, end, score, sorted here by score (stable).   truth: (m, 2).
    A window takes the free truth with the largest IoU, when that is >= the threshold.
    """
    ordered = predicted[np.argsort(-predicted[:, 2], kind="stable")]
    ious = span_iou(ordered[:, None, :2], truth[None])
    precisions = np.empty(len(thresholds))
    for number, threshold in enumerate(thresholds):
        free = np.ones(len(truth), dtype=bool)
        hits = np.zeros(len(ordered), dtype=bool)
        for window, row in enumerate(ious):
            candidates = np.where(free & (row >= threshold), row, -1.0)
            # The last of equal ones, as the official scorer's reversed order has it.
            best = len(row) - 1 - int(candidates[::-1].argmax())
            hits[window] = candidates[best] >= threshold
            free[best] &= not hits[window]
        precisions[number] = interpolated_area(hits, len(truth))
    return precisions


def windows_in_range(windows: np.ndarray, name: str) -> np.ndarray:
    """Those of the windows (m, 2) whose length is in the range."""
    low, high = RANGES[name]
    lengths = windows[:, 1] - windows[:, 0]
    return np.asarray(windows[(lengths > low) & (lengths <= high)])


def window_precisions_of(
    predicted: Sequence[np.ndarray], windows: Sequence[np.ndarray]
) -> np.ndarray:
    """(Q, thresholds) average precision of each query.

    predicted: (n, 3) start, end and score.   windows: (m, 2), m > 0.
    """
    return np.array(
        [
            window_precisions(query_windows, truth, THRESHOLDS)
            for query_windows, truth in zip(predicted, windows, strict=True)
        ]
    ).reshape(len(predicted), len(THRESHOLDS))


def window_metrics(precisions: np.ndarray) -> dict[str, np.ndarray]:
    """mAP over all thresholds and mAP at some, (Q,) each in percent."""
    metrics = {"mAP": 100.0 * precisions.mean(axis=1)}
    for threshold in SINGLE:
        column = int(np.flatnonzero(THRESHOLDS == threshold)[0])
        metrics[f"mAP@{threshold:g}"] = 100.0 * precisions[:, column]
    return metrics


def highlight_precision(is_right: np.ndarray, scores: np.ndarray) -> float:
    """AP of one annotator's highlight clips: (clips,) bool and (clips,) predicted scores.

    The mean of the interpolated precision over the distinct recalls: clips of equal score are one
    step, so a tied step with several right clips counts once. 0 without any right clip, 1 without
    any wrong one (QVHighlights).
    """
    if is_right.all() or not is_right.any():
        return float(is_right[0])
    order = np.argsort(-scores, kind="stable")
    last_of_step = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    num_hits = np.cumsum(is_right[order])[last_of_step]
    best_after = np.maximum.accumulate((num_hits / (last_of_step + 1))[::-1])[::-1]
    # From the last step on, as the official scorer sums up; the copy keeps numpy from turning back.
    return float(best_after[np.diff(num_hits, prepend=0) > 0][::-1].copy().mean())


def box_precision(
    predicted: dict[str, np.ndarray], truth: dict[str, np.ndarray], *, threshold: float = 0.5
) -> float:
    """AP of one word's boxes over all pictures (PASCAL VOC, TVQA+).

    predicted: picture -> (n, 5) left, top, right, bottom, score.   truth: picture -> (m, 4).
    Pixels are whole: widths count both ends, and right and bottom are moved out by one. A box
    belongs to the truth with the largest IoU; a second box of the same truth is wrong. Equal scores
    are in the reverse of the pictures' order.
    """
    scores, hits = [], []
    for picture, boxes in predicted.items():
        right = truth.get(picture, np.zeros((0, 4)))
        taken = set()
        for box in boxes[boxes[:, 4].argsort()[::-1]]:
            ious = _box_overlaps(box[:4], right)
            best = int(ious.argmax()) if len(ious) else -1
            is_match = best >= 0 and bool(ious[best] >= threshold)
            hits.append(is_match and best not in taken)
            scores.append(box[4])
            if is_match:
                taken.add(best)
    order = np.argsort(np.array(scores))[::-1].astype(np.int64)
    num_right = sum(len(boxes) for boxes in truth.values())
    return interpolated_area(np.array(hits, dtype=bool)[order], num_right)


def _box_overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(m,) IoU of a box (4,) with others (m, 4), in float32 as the official scorer's."""
    # One for VOC's moved corner, one for the whole pixel: the official scorer adds both.
    moved = np.array([0, 0, 1, 1], dtype=np.float32)
    box, others = box.astype(np.float32) + moved, others.astype(np.float32) + moved
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    inner = np.clip(high - low + 1, 0, None).prod(axis=1)
    sizes = (others[:, 2:] - others[:, :2] + 1).prod(axis=1)
    union = (box[2:] - box[:2] + 1).prod() + sizes - inner
    return np.asarray(inner / union)
