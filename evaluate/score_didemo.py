"""DiDeMo's moments: ranks of 21 candidates against several annotators (Hendricks et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..data_manifests.faults import shown
from .prediction_files import FileFaults, read_annotations, read_json, records_of

NUM_CHUNKS: Final = 6
"""Of five seconds each; moments are inclusive pairs of them."""
BEST: Final = 3
"""Annotators that agree best, who count."""
CANDIDATES: Final = [(i, j) for i in range(NUM_CHUNKS) for j in range(i, NUM_CHUNKS)]


def score_didemo(predictions: Path, annotations: Path) -> dict[str, float]:
    """Shares with six digits; a list of rankings in the annotations' order, or records
    {annotation_id, predictions: [[0, 1], ..]}."""
    faults = FileFaults(predictions)
    truth = read_annotations(annotations, "annotation_id")
    truth_faults = FileFaults(annotations)
    for name, record in truth.items():
        times = record["times"]
        if not isinstance(times, list) or not times:
            where = f"annotation_id {name}, times"
            truth_faults.add(f"{where}: expected annotators' moments, got {shown(times)}")
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
        if len(pairs) and sorted(ordered) != CANDIDATES:
            faults.add(f"annotation_id {name}: expected each of the 21 moments once")
        elif len(pairs) and name in truth:
            values.append(annotator_values(ordered, truth[name]["times"]))
        elif ranking == []:
            faults.add(f"annotation_id {name}: expected each of the 21 moments once, got none")
    faults.raise_if_any()
    ranks, ious = np.array(values).T
    numbers = {"rank@1": np.mean(ranks <= 1), "rank@5": np.mean(ranks <= 5), "mIoU": ious.mean()}
    return {name: round(float(number), 6) for name, number in numbers.items()}


def annotator_values(
    ranking: Sequence[tuple[float, float]], times: list[Any], *, best: int = BEST
) -> tuple[float, float]:
    """The means of the best annotators' 1-based ranks, and of the first moment's best IoUs."""
    ranks = sorted(ranking.index((int(i), int(j))) + 1 for i, j in times)
    first, ious = ranking[0], []
    for i, j in times:
        inner = max(0, min(first[1], j) + 1 - max(first[0], i))
        ious.append(inner / (max(first[1], j) + 1 - min(first[0], i)))
    return float(np.mean(ranks[:best])), float(np.mean(sorted(ious)[-best:]))
