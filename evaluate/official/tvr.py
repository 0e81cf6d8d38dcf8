"""TVR's scores: moments in a corpus (VCMR), in one video (SVMR), and videos (VR); How2R's too.

A query's score is the rank of its first right prediction, in the order of the file (Lei et al.
2020, standalone_eval). IoU and how many predictions count are the card's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from ...data_manifests.cards.scoring_rules import MomentRules
from ...data_manifests.cards.spans import reaches, span_iou
from ...data_manifests.core.faults import excerpt
from .files import FileFaults, PredictionError, is_finite, read_annotations, read_json

TASKS: Final = ("VCMR", "SVMR", "VR")
ANNOTATORS: Final = 2
"""Of DiDeMo's four or more, those whose span has to be met."""
NEVER: Final = 10**9
"""The rank of what is not there."""
TYPES: Final = ("v", "t", "vt")


def score_tvr(predictions: Path, annotations: Path, rules: MomentRules) -> dict[str, Any]:
    """Percent with two digits: {task: {"0.5-r1": ..}, task_by_type: {"v-0.5-r1": ..}}."""
    faults = FileFaults(predictions)
    content = read_json(predictions, faults=faults)
    tasks = [task for task in TASKS if isinstance(content, dict) and task in content]
    if not tasks or not isinstance(content.get("video2idx"), dict):
        raise PredictionError(
            f"{predictions}: expected an object with video2idx and one of {', '.join(TASKS)}"
        )
    queries = read_annotations(annotations, "desc_id")
    spans = _true_spans(queries, annotations)
    for name in sorted({q["vid_name"] for q in queries.values()} - set(content["video2idx"])):
        faults.add(f"video2idx: video {name} of the annotations is missing")
    videos = _video_indices(content["video2idx"], faults)
    moments = {task: _read_task(content[task], task, queries, faults) for task in tasks}
    faults.raise_if_any()
    right = {name: videos[query["vid_name"]] for name, query in queries.items()}
    types = np.array([query.get("type", "") for query in queries.values()])
    scores: dict[str, Any] = {}
    by_type: dict[str, Any] = {}
    for task in tasks:
        ranks = _ranks(task, moments[task], spans, right, rules=rules)
        scores[task] = _recalls(ranks, "", ks=rules.recall_ks)
        if set(types) <= set(TYPES):
            numbers: dict[str, Any] = {}
            for name in TYPES:
                rows = types == name
                if rows.any():
                    type_ranks = {key: rank[rows] for key, rank in ranks.items()}
                    numbers |= _recalls(type_ranks, f"{name}-", ks=rules.recall_ks)
            shares = " ".join(f"{name} {_percent(np.mean(types == name))}" for name in TYPES)
            by_type[f"{task}_by_type"] = numbers | {"desc_type_ratio": shares}
    return scores | by_type


def first_right(
    moments: np.ndarray,
    spans: np.ndarray,
    video: int,
    *,
    task: str,
    threshold: float,
    rules: MomentRules,
) -> int:
    """0-based rank of the first right prediction of one query, or NEVER.

    moments: (n, 3) float32 video, start, end.   spans: (annotators, 2) float32.
    """
    in_video = moments[:, 0] == video
    if task == "VR":
        right = in_video
    else:
        ious = span_iou(moments[:, None, 1:3], spans[None], denominator=rules.iou_denominator)
        is_met = reaches(ious, np.float32(threshold), rules.iou_comparison)
        num_needed = ANNOTATORS if len(spans) >= 4 else 1
        right = (is_met.sum(axis=1) >= num_needed) & in_video
        right = right[in_video] if task == "SVMR" else right
    return int(right.argmax()) if right.any() else NEVER


def _true_spans(queries: dict[str, Any], path: Path) -> dict[str, np.ndarray]:
    """By query (annotators, 2) float32 seconds; PredictionError for what is none."""
    faults, spans = FileFaults(path), {}
    for name, query in queries.items():
        several = query["ts"] if isinstance(query["ts"][0], list) else [query["ts"]]
        spans_of_query = faults.numbers(several, where=f"desc_id {name}, ts", width=2)
        spans[name] = spans_of_query.astype(np.float32)
    faults.raise_if_any()
    return spans


def _video_indices(video2idx: dict[str, Any], faults: FileFaults) -> dict[str, int]:
    """video2idx where every video has a number of its own; notes the others."""
    indices: dict[str, int] = {}
    owners: dict[int, str] = {}
    for name, index in video2idx.items():
        if not (isinstance(index, int) and is_finite(index) and index >= 0):
            faults.add(f"video2idx: {name}: expected an index from 0 on, got {excerpt(index)}")
        elif index in owners:
            faults.add(f"video2idx: {name} and {owners[index]} have the same index {index}")
        else:
            owners[index] = name
            indices[name] = index
    return indices


def _read_task(
    records: Any, task: str, queries: dict[str, Any], faults: FileFaults
) -> dict[str, np.ndarray]:
    if not isinstance(records, list):
        faults.add(f"{task}: expected a list of records")
        return {}
    by_id = faults.index(records, "desc_id")
    faults.match(by_id, queries, what=f"{task}: desc_id")
    moments = {}
    for name, record in by_id.items():
        where, rows = f"{task}: desc_id {name}, predictions", record.get("predictions")
        moments[name] = faults.numbers(rows, where=where, width=3)
        if rows == []:
            faults.add(f"{where}: empty")
    return moments


def _ranks(
    task: str,
    moments: dict[str, np.ndarray],
    spans: dict[str, np.ndarray],
    videos: dict[str, int],
    *,
    rules: MomentRules,
) -> dict[str, np.ndarray]:
    """By threshold the rank of every query; spans and videos: the right ones by query."""
    kinds = {"r": 0.0} if task == "VR" else {f"{value}-r": value for value in rules.iou_thresholds}
    ranks_of_kind: dict[str, list[int]] = {kind: [] for kind in kinds}
    for name, video in videos.items():
        cut = moments[name][: rules.num_predictions].astype(np.float32)
        for kind, threshold in kinds.items():
            rank = first_right(cut, spans[name], video, task=task, threshold=threshold, rules=rules)
            ranks_of_kind[kind].append(rank)
    return {kind: np.array(ranks) for kind, ranks in ranks_of_kind.items()}


def _recalls(ranks: dict[str, np.ndarray], prefix: str, *, ks: tuple[int, ...]) -> dict[str, float]:
    return {
        f"{prefix}{kind}{k}": _percent(np.mean(rank < k))
        for kind, rank in ranks.items()
        for k in ks
    }


def _percent(share: np.floating[Any]) -> float:
    return round(float(share) * 100, 2)
