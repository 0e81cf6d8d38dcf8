"""Spans in seconds: how much they overlap, which of them suppress others."""

from __future__ import annotations

import numpy as np

from .scoring_rules import IouComparison, IouDenominator


def span_iou(
    spans: np.ndarray, truth: np.ndarray, *, denominator: IouDenominator = "union"
) -> np.ndarray:
    """IoU of spans (..., 2) with truth (..., 2), broadcast; 0 where the denominator is 0.

    union: the seconds in either (QVHighlights, 2D-TAN). hull: from the first start to the last end
    (TVR, TVQA+), which is the same for spans that meet; for others both IoUs are 0.
    """
    start = np.maximum(spans[..., 0], truth[..., 0])
    inner = np.maximum(0, np.minimum(spans[..., 1], truth[..., 1]) - start)
    if denominator == "hull":
        first = np.minimum(spans[..., 0], truth[..., 0])
        whole = np.maximum(spans[..., 1], truth[..., 1]) - first
    else:
        lengths = (spans[..., 1] - spans[..., 0]) + (truth[..., 1] - truth[..., 0])
        whole = lengths - inner
    return np.asarray(np.divide(inner, whole, out=np.zeros_like(whole), where=whole > 0))


def reaches(
    ious: np.ndarray, threshold: float | np.floating | np.ndarray, comparison: IouComparison
) -> np.ndarray:
    """Whether each IoU is enough: `>=` in TVR and QVHighlights, `>` in the 2D-TAN family."""
    return ious >= threshold if comparison == ">=" else ious > threshold


def suppress(spans: np.ndarray, *, threshold: float, max_spans: int | None = None) -> np.ndarray:
    """Indices of the spans (n, 2), best first, whose IoU with no kept one before is > threshold.

    Of spans without length the first is kept (2D-TAN).
    max_spans: how many are kept; None: all.
    """
    is_empty = spans[:, 0] == spans[:, 1]
    kept: list[int] = []
    for index, span in enumerate(spans):
        if len(kept) == max_spans:
            break
        is_another_empty = is_empty[index] and is_empty[kept].any()
        ious = span_iou(spans[kept], span)
        if not is_another_empty and (ious <= threshold).all():
            kept.append(index)
    return np.array(kept, dtype=np.int64)
