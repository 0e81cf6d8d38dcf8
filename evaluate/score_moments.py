"""Moments in one video: Charades-STA, TACoS, ActivityNet Captions, as 2D-TAN scores them.

Predictions are records {qid, pred_relevant_windows: [[start, end, ..], ..]}, best first. The qid of
a Charades line is its number from 0, or VIDEO#K; of a sentence of the JSON files VIDEO_K. K counts
the sentences of a video from 0.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..data_manifests.faults import shown
from .prediction_files import (
    FileFaults,
    PredictionError,
    is_finite,
    read_json,
    read_lines,
    records_of,
)
from .spans import overlaps, reaches, suppress

THRESHOLDS: Final = (0.3, 0.5, 0.7)
KS: Final = (1, 5)


def score_moments(
    predictions: Path, annotations: Path, *, nms: float | None = None
) -> dict[str, float]:
    """Percent with two digits: R@K at IoU > threshold over the union, and mIoU of the first.

    nms: spans that overlap a better one more than this are left out before R@5; 2D-TAN always does.
    """
    truth = read_moments(annotations)
    faults = FileFaults(predictions)
    lines = line_names(annotations) if annotations.suffix == ".txt" else {}
    content = records_of(read_json(predictions, faults=faults), predictions)
    found = faults.index([_by_line(record, lines) for record in content], "qid")
    faults.match(found, truth, what="qid")
    windows = {}
    for qid, record in found.items():
        where = f"qid {qid}, pred_relevant_windows"
        windows[qid] = faults.numbers(record.get("pred_relevant_windows"), where=where, width=2)
        if record.get("pred_relevant_windows") == []:
            faults.add(f"{where}: empty")
    faults.raise_if_any()
    best = np.array([best_overlaps(windows[qid], span, nms=nms) for qid, span in truth.items()])
    scores = {
        f"R@{k},IoU={threshold}": np.mean(reaches(best[:, column], threshold, ">"))
        for column, k in enumerate(KS)
        for threshold in THRESHOLDS
    } | {"mIoU": best[:, 0].mean()}
    return {name: float(f"{100 * value:.2f}") for name, value in scores.items()}


def best_overlaps(windows: np.ndarray, span: np.ndarray, *, nms: float | None) -> list[float]:
    """The largest IoU of the first K windows (n, 2) with the span (2,), for each K."""
    kept = windows if nms is None else windows[suppress(windows, threshold=nms)]
    ious = overlaps(kept, span, denominator="union")
    return [float(ious[:k].max()) for k in KS]


def _by_line(record: Any, lines: dict[str, str]) -> Any:
    """The record with the number of the line in place of VIDEO#K."""
    qid = record.get("qid") if isinstance(record, dict) else None
    return {**record, "qid": lines[qid]} if isinstance(qid, str) and qid in lines else record


def line_names(path: Path) -> dict[str, str]:
    """VIDEO#K -> number of the line, of charades_sta_*.txt."""
    names, counts = {}, Counter[str]()
    for number, line in enumerate(read_lines(path)):
        video = line.split(" ")[0]
        names[f"{video}#{counts[video]}"] = str(number)
        counts[video] += 1
    return names


def read_moments(path: Path) -> dict[str, np.ndarray]:
    """Qid -> (2,) seconds, of charades_sta_*.txt or a JSON of {video: {timestamps, sentences}}.

    TACoS counts frames; its fps makes them seconds.
    """
    faults, truth = FileFaults(path), {}
    if path.suffix == ".txt":
        for number, line in enumerate(read_lines(path)):
            span = _line_span(line)
            if span is None:
                wanted = "VIDEO START END##SENTENCE"
                faults.add(f"line {number + 1}: expected {wanted}, got {shown(line)}")
            else:
                truth[str(number)] = span
        faults.raise_if_any()
        return _some(truth, path)
    content: Any = read_json(path)
    if not isinstance(content, dict):
        raise PredictionError(f"{path}: expected an object of videos")
    for video, record in content.items():
        if not isinstance(record, dict):
            faults.add(f"video {video}: expected an object, got {shown(record)}")
            continue
        spans = faults.numbers(record.get("timestamps"), where=f"video {video}", width=2)
        fps = record.get("fps", 1.0)
        if not (is_finite(fps) and fps > 0):
            faults.add(f"video {video}, fps: expected a number > 0, got {shown(fps)}")
            continue
        for number, span in enumerate(spans / fps):
            truth[f"{video}_{number}"] = span
    faults.raise_if_any()
    return _some(truth, path)


def _line_span(line: str) -> np.ndarray | None:
    """(2,) seconds of a line of charades_sta_*.txt; None where they cannot be read."""
    try:
        _, start, end = line.split("##")[0].split()
        span = np.array([float(start), float(end)])
    except ValueError:
        return None
    return span if np.isfinite(span).all() else None


def _some(truth: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    if not truth:
        raise PredictionError(f"{path}: expected moments, got none")
    return truth
