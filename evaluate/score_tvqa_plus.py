"""TVQA+'s scores: answers, their spans, both together, and the boxes of words (Lei et al. 2020)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from .average_precision import box_precision
from .prediction_files import FileFaults, PredictionError, read_json, records_of
from .spans import overlaps

THRESHOLD: Final = 0.5
ANSWERED_AND_FOUND: Final = "ans_span_joint_acc@.5"

Boxes = dict[str, dict[str, list[list[float]]]]
"""Word -> picture -> boxes."""


def score_tvqa_plus(predictions: Path, annotations: Path) -> dict[str, float]:
    """Shares, unrounded as the official scorer prints them: qa_acc, miou, ASA and overall_map.

    Predictions are {"ts_answer": {qid: [[start, end], index]}} and, for overall_map, "bbox":
    {VIDEO_QID_FRAME: [[word, score, [left, top, right, bottom]]]}: the scorer's own form.
    """
    truth_faults = FileFaults(annotations)
    truth = truth_faults.index(records_of(read_json(annotations), annotations), "qid")
    truth_faults.raise_if_any()
    content = read_json(predictions)
    if not isinstance(content, dict) or not isinstance(content.get("ts_answer"), dict):
        raise PredictionError(f"{predictions}: expected an object with ts_answer")
    faults = FileFaults(predictions)
    qids = faults.match(content["ts_answer"], truth, what="qid")
    spans, right = [], []
    for qid in qids:
        pair = content["ts_answer"][qid]
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], int)):
            faults.add(f"qid {qid}: expected [[start, end], answer index]")
            continue
        spans.append(faults.numbers([pair[0]], where=f"qid {qid}", width=2))
        right.append(pair[1] == int(truth[qid]["answer_idx"]))
    boxes = _predicted_boxes(content.get("bbox", {}), faults)
    faults.raise_if_any()
    gold = np.array([truth[qid]["ts"] for qid in qids], dtype=np.float64)
    ious = overlaps(np.concatenate(spans), gold, denominator="hull")
    scores = {
        "qa_acc": float(np.mean(right)),
        "miou": float(ious.mean()),
        ANSWERED_AND_FOUND: float(np.mean(np.array(right) & (ious >= THRESHOLD))),
    }
    if "bbox" in content:
        scores["overall_map"] = grounding_map(boxes, _true_boxes(truth))
    return scores


def grounding_map(predicted: Boxes, truth: Boxes) -> float:
    """Mean AP over the words of the truth; pictures without any true box are left out."""
    pictures = list(dict.fromkeys(picture for boxes in truth.values() for picture in boxes))
    precisions = []
    for word, boxes in truth.items():
        own = predicted.get(word, {})
        precisions.append(
            box_precision(
                {picture: np.array(own[picture]) for picture in pictures if picture in own},
                {picture: np.array(several) for picture, several in boxes.items()},
                threshold=THRESHOLD,
            )
        )
    return float(np.mean(precisions))


def _predicted_boxes(content: Any, faults: FileFaults) -> Boxes:
    found: Boxes = {}
    for picture, boxes in content.items():
        for number, box in enumerate(boxes, start=1):
            where = f"bbox {picture}, box {number}"
            if not (isinstance(box, list) and len(box) == 3 and isinstance(box[2], list)):
                faults.add(f"{where}: expected [word, score, [left, top, right, bottom]]")
                continue
            values = faults.numbers([[*box[2], box[1]]], where=where, width=5)
            if len(values):
                found.setdefault(_word(box[0]), {}).setdefault(picture, []).append(list(values[0]))
    return found


def _true_boxes(truth: dict[str, Any]) -> Boxes:
    found: Boxes = {}
    for qid, record in truth.items():
        for frame, boxes in record["bbox"].items():
            picture = f"{record['vid_name']}_{int(qid)}_{int(frame):05d}"
            for box in boxes:
                left, top = box["left"], box["top"]
                corners = [left, top, left + box["width"], top + box["height"]]
                found.setdefault(_word(box["label"]), {}).setdefault(picture, []).append(corners)
    return found


def _word(label: str) -> str:
    return label.replace("\u2019", "'").replace("\u2018", "'").lower()
