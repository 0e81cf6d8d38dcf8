"""QVHighlights' scores: mAP and R1 of moments by their length, mAP and HIT@1 of highlights.

After Lei et al. 2021 and their standalone_eval. A query without a predicted window is an error
here; the official scorer leaves it out of the mean, which flatters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from ...data_manifests.cards.scoring_rules import MomentRules
from ...data_manifests.cards.spans import reaches, span_iou
from ..scores.metrics import (
    RANGES,
    THRESHOLDS,
    highlight_precision,
    window_precisions_of,
    windows_in_range,
)
from .files import FileFaults, read_annotations, read_json, records_of

CLIP_SECONDS: Final = 2
MENDED_CLIPS: Final = 2
"""Scores too many or too few that are cut or taken for 0, as the official scorer does with any."""
LEVELS: Final = {"Fair": 2, "Good": 3, "VeryGood": 4}


def score_qvhighlights(predictions: Path, annotations: Path, rules: MomentRules) -> dict[str, Any]:
    """Percent with two digits, in the structure that the official scorer prints."""
    faults = FileFaults(predictions)
    truth = read_annotations(annotations, "qid")
    predicted = faults.index(records_of(read_json(predictions, faults=faults), predictions), "qid")
    known = set(faults.match(predicted, truth, what="qid"))
    # In the predictions' order, in which the official scorer sums up: it decides the last bit.
    qids = [qid for qid in predicted if qid in known]
    parts = ("pred_relevant_windows", "pred_saliency_scores")
    fields = [part for part in parts if any(part in record for record in predicted.values())]
    if not fields:
        faults.add(f"expected {' or '.join(parts)} in every record")
    values: dict[str, dict[str, np.ndarray]] = {field: {} for field in fields}
    for qid in qids:
        for field in fields:
            width = 3 if field == parts[0] else None
            where = f"qid {qid}, {field}"
            value = faults.numbers(predicted[qid].get(field), where=where, width=width)
            values[field][qid] = value
            num_clips = int(truth[qid]["duration"] / CLIP_SECONDS)
            if predicted[qid].get(field) == []:
                faults.add(f"{where}: empty")
            elif width is None and len(value) and abs(len(value) - num_clips) > MENDED_CLIPS:
                faults.add(f"{where}: expected {num_clips} scores, got {len(value)}")
    faults.raise_if_any()
    scores: dict[str, Any] = {}
    if parts[0] in values:
        scores |= _moment_scores(values[parts[0]], _true_windows(truth, annotations), rules)
    if parts[1] in values:
        scores |= _highlight_scores(values[parts[1]], truth)
    scores |= _mended(values.get(parts[1], {}), truth)
    return {"brief": _brief(scores, rules)} | dict(sorted(scores.items()))


def saliency(record: dict[str, Any]) -> np.ndarray:
    """(clips, annotators): the annotators' 0 to 4 of every 2-second clip, 0 where none is given."""
    full = np.zeros((int(record["duration"] / CLIP_SECONDS), 3))
    if record["relevant_clip_ids"]:
        full[np.array(record["relevant_clip_ids"])] = np.array(record["saliency_scores"])
    return full


def _true_windows(truth: dict[str, Any], path: Path) -> dict[str, np.ndarray]:
    """By query (m, 2) seconds; PredictionError for what is none."""
    faults, windows = FileFaults(path), {}
    for qid, record in truth.items():
        where = f"qid {qid}, relevant_windows"
        windows[qid] = faults.numbers(record["relevant_windows"], where=where, width=2)
    faults.raise_if_any()
    return windows


def _moment_scores(
    windows_of: dict[str, np.ndarray], truth: dict[str, np.ndarray], rules: MomentRules
) -> dict[str, Any]:
    scores = {}
    for name in RANGES:
        predictions, truths, firsts = [], [], []
        for qid, predicted in windows_of.items():
            windows = windows_in_range(truth[qid], name)
            if len(windows):
                predictions.append(predicted[: rules.num_predictions])
                truths.append(windows)
                firsts.append(_first_overlap(predicted[0, :2], windows))
        if not predictions:
            continue
        by_threshold = window_precisions_of(predictions, truths).mean(axis=0)
        reached = reaches(np.array(firsts)[:, None], THRESHOLDS, rules.iou_comparison)
        names = [str(float(value)) for value in THRESHOLDS]
        mean_ap = {key: _percent(ap) for key, ap in zip(names, by_threshold, strict=True)}
        scores[name] = {
            "MR-mAP": mean_ap | {"average": _percent(by_threshold.mean())},
            "MR-R1": dict(zip(names, map(_percent, reached.mean(axis=0)), strict=True)),
        }
    return scores


def _first_overlap(window: np.ndarray, truth: np.ndarray) -> float:
    """IoU of a window (2,) with the nearest true one; over the hull, which is the same but for the
    last bit, as the official scorer counts here."""
    nearest = truth[int(span_iou(window, truth).argmax())]
    return float(span_iou(window, nearest, denominator="hull"))


def _highlight_scores(scores_of: dict[str, np.ndarray], truth: dict[str, Any]) -> dict[str, Any]:
    scores = {}
    for name, lowest in LEVELS.items():
        values = [
            highlight_values(predicted, saliency(truth[qid]) >= lowest)
            for qid, predicted in scores_of.items()
        ]
        precisions, hits = zip(*values, strict=True)
        scores[f"HL-min-{name}"] = {
            "HL-mAP": _percent(np.mean(precisions)),
            "HL-Hit1": _percent(np.mean(hits)),
        }
    return scores


def highlight_values(predicted: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, bool]:
    """(annotators,) AP of each, and whether the best clip is right for any of them (HIT@1).

    predicted: (n,) a score for each 2-second clip.   right: (clips, annotators) bool.
    """
    fitted = np.zeros(len(right))
    fitted[: len(predicted)] = predicted[: len(right)]
    best = int(predicted.argmax())
    precisions = np.array([highlight_precision(one, fitted) for one in right.T])
    return precisions, best < len(right) and bool(right[best].any())


def _mended(predicted: dict[str, np.ndarray], truth: dict[str, Any]) -> dict[str, list[str]]:
    odd = [qid for qid, value in predicted.items() if len(value) != len(saliency(truth[qid]))]
    note = f"{len(odd)} queries with up to {MENDED_CLIPS} clips' scores too many or too few: "
    return {"notes": [f"{note}cut, or 0: {', '.join(odd[:5])}"]} if odd else {}


def _brief(scores: dict[str, Any], rules: MomentRules) -> dict[str, float]:
    brief = {
        f"MR-{name}-mAP": scores[name]["MR-mAP"]["average"] for name in RANGES if name in scores
    }
    if "full" in scores:
        full = scores["full"]
        brief |= {f"MR-full-mAP@{value}": full["MR-mAP"][value] for value in ("0.5", "0.75")}
        brief |= {
            f"MR-full-R1@{value}": full["MR-R1"][str(value)] for value in rules.iou_thresholds
        }
    brief = dict(sorted(brief.items()))
    for level in LEVELS:
        for key, value in scores.get(f"HL-min-{level}", {}).items():
            brief[f"HL-min-{level}-{key.removeprefix('HL-')}"] = value
    return brief


def _percent(share: Any) -> float:
    return float(f"{100 * float(share):.2f}")
