"""Moments in one video: Charades-STA, TACoS, ActivityNet Captions, as 2D-TAN scores them.

Predictions are records {qid, pred_relevant_windows: [[start, end, ..], ..]}, best first. The qid of
a Charades line is its number from 0, or VIDEO#K; of a sentence of the JSON files VIDEO_K. K counts
the sentences of a video from 0.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from ...data_manifests.cards.scoring_rules import MomentRules
from ...data_manifests.cards.spans import reaches, span_iou, suppress
from ...data_manifests.core.faults import excerpt
from .files import (
    FileFaults,
    PredictionError,
    is_finite,
    read_annotations,
    read_csv,
    read_json,
    read_lines,
    records_of,
)

SIZES: Final = ("fps", "num_frames", "duration")
"""What the JSON files say of a video."""
LENGTHS: Final = ("id", "length")
"""Columns of Charades_v1_*.csv; seconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrueMoments:
    """The moments of a split, as 2D-TAN takes them from the official files."""

    spans: dict[str, np.ndarray]
    """Qid -> (2,) seconds, cut to the video."""
    left_out: tuple[str, ...] = ()
    """Qids whose moment ends where it starts, or before: no query, whether predicted or not."""
    notes: tuple[str, ...] = ()
    """What a reader of the numbers has to know."""


def score_moments(
    predictions: Path, annotations: Path, rules: MomentRules, *, nms: float | None = None
) -> dict[str, Any]:
    """Percent with two digits: R@K at each IoU of the rules, and mIoU of the first.

    nms: spans that overlap a better one more than this are left out before R@5. None: the file is
    scored as it is, since whoever wrote it has applied the rules' nms_iou (2D-TAN does so here).
    """
    moments = read_moments(annotations)
    truth = moments.spans
    faults = FileFaults(predictions)
    lines = line_names(annotations) if annotations.suffix == ".txt" else {}
    content = records_of(read_json(predictions, faults=faults), predictions)
    predicted = faults.index([_by_line(record, lines) for record in content], "qid")
    for qid in moments.left_out:
        predicted.pop(qid, None)
    faults.match(predicted, truth, what="qid")
    windows = {}
    for qid, record in predicted.items():
        where = f"qid {qid}, pred_relevant_windows"
        windows[qid] = faults.numbers(record.get("pred_relevant_windows"), where=where, width=2)
        if record.get("pred_relevant_windows") == []:
            faults.add(f"{where}: empty")
    faults.raise_if_any()
    best = np.array(
        [best_overlaps(windows[qid], span, rules, nms=nms) for qid, span in truth.items()]
    )
    scores = {
        f"R@{k},IoU={threshold}": np.mean(reaches(best[:, column], threshold, rules.iou_comparison))
        for column, k in enumerate(rules.recall_ks)
        for threshold in rules.iou_thresholds
    } | {"mIoU": best[:, rules.recall_ks.index(1)].mean()}
    numbers = {name: float(f"{100 * value:.2f}") for name, value in scores.items()}
    return numbers | ({"notes": list(moments.notes)} if moments.notes else {})


def best_overlaps(
    windows: np.ndarray, span: np.ndarray, rules: MomentRules, *, nms: float | None
) -> list[float]:
    """The largest IoU of the first K windows (n, 2) with the span (2,), for each K."""
    kept = windows if nms is None else windows[suppress(windows, threshold=nms)]
    ious = span_iou(kept, span, denominator=rules.iou_denominator)
    return [float(ious[:k].max()) for k in rules.recall_ks]


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


def read_moments(path: Path) -> TrueMoments:
    """Of charades_sta_*.txt, or of a JSON of {video: {timestamps, sentences, ..}}."""
    truth = _charades_moments(path) if path.suffix == ".txt" else _json_moments(path)
    if not truth.spans:
        raise PredictionError(f"{path}: expected moments, got none")
    return truth


def _charades_moments(path: Path) -> TrueMoments:
    """Ends are cut at the lengths of Charades_v1_*.csv, where it lies beside the lines."""
    lengths = path.with_name(path.stem.replace("charades_sta", "Charades_v1") + ".csv")
    durations = _charades_lengths(lengths) if lengths.is_file() else {}
    faults, spans = FileFaults(path), {}
    for number, line in enumerate(read_lines(path)):
        span = _line_span(line)
        if span is None:
            wanted = "VIDEO START END##SENTENCE"
            faults.add(f"line {number + 1}: expected {wanted}, got {excerpt(line)}")
        else:
            span[1] = min(span[1], durations.get(line.split(" ")[0], np.inf))
            spans[str(number)] = span
    faults.raise_if_any()
    note = f"moments are not cut at the ends of their videos: {lengths.name} is not beside the file"
    left_out = tuple(qid for qid, span in spans.items() if span[0] >= span[1])
    return TrueMoments(
        spans={qid: span for qid, span in spans.items() if span[0] < span[1]},
        left_out=left_out,
        notes=() if durations else (note,),
    )


def _charades_lengths(path: Path) -> dict[str, float]:
    """Video -> seconds."""
    faults, lengths = FileFaults(path), {}
    for number, row in enumerate(read_csv(path, LENGTHS), start=1):
        try:
            lengths[row["id"]] = float(row["length"])
        except ValueError:
            faults.add(f"record {number}, length: expected seconds, got {excerpt(row['length'])}")
    faults.raise_if_any()
    return lengths


def _json_moments(path: Path) -> TrueMoments:
    """Moments are cut to the video's duration. TACoS counts frames; its fps makes them seconds."""
    content: Any = read_json(path)
    if not isinstance(content, dict):
        raise PredictionError(f"{path}: expected an object of videos")
    faults, spans, left_out = FileFaults(path), {}, []
    for video, record in content.items():
        if not isinstance(record, dict):
            faults.add(f"video {video}: expected an object, got {excerpt(record)}")
            continue
        moment_pairs = faults.numbers(record.get("timestamps"), where=f"video {video}", width=2)
        sizes = {"fps": 1.0, "num_frames": sys.float_info.max} | record
        wrong = [name for name in SIZES if not _is_size(sizes.get(name, 1.0))]
        for name in wrong:
            problem = f"expected a number > 0, got {excerpt(record[name])}"
            faults.add(f"video {video}, {name}: {problem}")
        if wrong:
            continue
        fps = sizes["fps"]
        duration = sizes.get("duration", sizes["num_frames"] / fps)
        for number, (start, end) in enumerate(moment_pairs):
            qid = f"{video}_{number}"
            if start >= end:
                left_out.append(qid)
            else:
                spans[qid] = np.array([max(start / fps, 0.0), min(end / fps, duration)])
    faults.raise_if_any()
    return TrueMoments(spans=spans, left_out=tuple(left_out))


def _is_size(value: Any) -> bool:
    return is_finite(value) and value > 0


def _line_span(line: str) -> np.ndarray | None:
    """(2,) seconds of a line of charades_sta_*.txt; None where they cannot be read."""
    try:
        _, start, end = line.split("##")[0].split()
        span = np.array([float(start), float(end)])
    except ValueError:
        return None
    return span if np.isfinite(span).all() else None


def score_didemo(predictions: Path, annotations: Path, rules: MomentRules) -> dict[str, float]:
    """Shares with six digits; a list of rankings in the annotations' order, or records
    {annotation_id, predictions: [[0, 1], ..]}."""
    assert rules.chunks is not None
    candidates, best = rules.chunks.candidates(), rules.chunks.best_annotators
    wanted = f"expected each of the {len(candidates)} moments once"
    faults = FileFaults(predictions)
    truth = read_annotations(annotations, "annotation_id")
    truth_faults = FileFaults(annotations)
    for name, record in truth.items():
        times = record["times"]
        if not isinstance(times, list) or not times:
            where = f"annotation_id {name}, times"
            truth_faults.add(f"{where}: expected annotators' moments, got {excerpt(times)}")
    truth_faults.raise_if_any()
    content = records_of(read_json(predictions, faults=faults), predictions)
    if content and isinstance(content[0], list):
        if len(content) != len(truth):
            faults.add(f"expected {len(truth)} rankings, one per annotation, got {len(content)}")
        rankings = dict(zip(truth, content, strict=False))
    else:
        records = faults.index(content, "annotation_id")
        faults.match(records, truth, what="annotation_id")
        rankings = {name: record.get("predictions") for name, record in records.items()}
    values = []
    for name, ranking in rankings.items():
        pairs = faults.numbers(ranking, where=f"annotation_id {name}", width=2)
        ordered = [(i, j) for i, j in pairs.tolist()]
        if len(pairs) and sorted(ordered) != candidates:
            faults.add(f"annotation_id {name}: {wanted}")
        elif len(pairs) and name in truth:
            values.append(annotator_values(ordered, truth[name]["times"], best=best))
        elif ranking == []:
            faults.add(f"annotation_id {name}: {wanted}, got none")
    faults.raise_if_any()
    ranks, ious = np.array(values).T
    numbers = {f"rank@{k}": np.mean(ranks <= k) for k in rules.recall_ks} | {"mIoU": ious.mean()}
    return {name: round(float(number), 6) for name, number in numbers.items()}


def annotator_values(
    ranking: Sequence[tuple[float, float]], times: list[Any], *, best: int
) -> tuple[float, float]:
    """The means of the best annotators' 1-based ranks, and of the first moment's best IoUs."""
    ranks = sorted(ranking.index((int(i), int(j))) + 1 for i, j in times)
    whole = np.array([0.0, 1.0])  # chunks are inclusive: [i, j] is the span from i to j + 1
    ious = span_iou(np.array(times) + whole, np.array(ranking[0]) + whole, denominator="hull")
    return float(np.mean(ranks[:best])), float(np.mean(np.sort(ious)[-best:]))
