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

from .prediction_files import FileFaults, PredictionError, read_json, records_of
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
    records = [
        {**record, "qid": lines.get(record.get("qid"), record.get("qid"))}
        if isinstance(record, dict)
        else record
        for record in records_of(read_json(predictions), predictions)
    ]
    found = faults.index(records, "qid")
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


def line_names(path: Path) -> dict[Any, str]:
    """VIDEO#K -> number of the line, of charades_sta_*.txt."""
    names, counts = {}, Counter[str]()
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines()):
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
        for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines()):
            try:
                _, start, end = line.split("##")[0].split()
                truth[str(number)] = np.array([float(start), float(end)])
            except ValueError:
                faults.add(f"line {number + 1}: expected VIDEO START END##SENTENCE, got {line!r}")
        faults.raise_if_any()
        return truth
    content: Any = read_json(path)
    if not isinstance(content, dict):
        raise PredictionError(f"{path}: expected an object of videos")
    for video, record in content.items():
        spans = faults.numbers(record.get("timestamps"), where=f"video {video}", width=2)
        for number, span in enumerate(spans / float(record.get("fps", 1.0))):
            truth[f"{video}_{number}"] = span
    faults.raise_if_any()
    return truth
