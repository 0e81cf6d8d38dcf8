"""DiDeMo's moments: ranks of 21 candidates against several annotators (Hendricks et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...data_manifests.cards.scoring_rules import MomentRules
from ...data_manifests.cards.spans import span_iou
from ...data_manifests.core.faults import excerpt
from .files import FileFaults, read_annotations, read_json, records_of


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
