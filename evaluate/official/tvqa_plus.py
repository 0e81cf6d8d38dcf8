"""TVQA+'s scores: answers, their spans, both together, and the boxes of words (Lei et al. 2020)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from ...data_manifests.cards.scoring_rules import ANSWER_MOMENT_IOU
from ...data_manifests.cards.spans import span_iou
from ...data_manifests.core.faults import excerpt
from ..scores.metrics import box_precision
from .files import (
    FileFaults,
    PredictionError,
    is_option,
    read_annotations,
    read_json,
)
from .formats import NUM_OPTIONS

BOX_IOU: Final = 0.5
"""From which on a box is found."""
ANSWERED_AND_FOUND: Final = "ans_span_joint_acc@.5"
VOCABULARY: Final = "word2idx.json"
UNKNOWN: Final = "<unk>"
"""The vocabulary's entry for the words that it lacks, which do not count."""

Boxes = dict[str, dict[str, list[list[float]]]]
"""Word -> picture -> boxes."""


def score_tvqa_plus(predictions: Path, annotations: Path) -> dict[str, float]:
    """Shares, unrounded as the official scorer prints them: qa_acc, miou, ASA and overall_map.

    Predictions are {"ts_answer": {qid: [[start, end], index]}} and, for overall_map, "bbox":
    {VIDEO_QID_FRAME: [[word, score, [left, top, right, bottom]]]}: the scorer's own form. The
    scorer's word2idx.json beside the annotations says which words count, and their order.
    """
    truth = read_annotations(annotations, "qid")
    gold = _true_spans(dict(sorted(truth.items())), annotations)
    faults = FileFaults(predictions)
    content = read_json(predictions, faults=faults)
    if not isinstance(content, dict) or not isinstance(content.get("ts_answer"), dict):
        raise PredictionError(f"{predictions}: expected an object with ts_answer")
    spans, right, num_options = [], [], NUM_OPTIONS["tvqa"]
    # In the order of the ids' text, in which the official scorer sums up.
    for qid in sorted(faults.match(content["ts_answer"], truth, what="qid")):
        pair = content["ts_answer"][qid]
        if not (isinstance(pair, list) and len(pair) == 2):
            faults.add(f"qid {qid}: expected [[start, end], answer index], got {excerpt(pair)}")
            continue
        if not is_option(pair[1], num_options=num_options):
            faults.add_wrong_option(pair[1], where=f"qid {qid}", num_options=num_options)
        spans.append(faults.numbers([pair[0]], where=f"qid {qid}", width=2))
        right.append(pair[1] == int(truth[qid]["answer_idx"]))
    boxes = _predicted_boxes(content.get("bbox", {}), faults)
    faults.raise_if_any()
    ious = span_iou(np.concatenate(spans), gold, denominator="hull")
    scores = {
        "qa_acc": float(np.mean(right)),
        "miou": float(ious.mean()),
        ANSWERED_AND_FOUND: float(np.mean(np.array(right) & (ious >= ANSWER_MOMENT_IOU))),
    }
    if "bbox" in content:
        scores["overall_map"] = grounding_map(boxes, *_true_boxes(truth, _known(annotations)))
    return scores


def grounding_map(predicted: Boxes, truth: Boxes, pictures: list[str]) -> float:
    """Mean AP over the words of the truth.

    pictures: those that have a true box, in the annotations' order; others are left out.
    """
    precisions = []
    for word, boxes in truth.items():
        word_boxes = predicted.get(word, {})
        precisions.append(
            box_precision(
                {
                    picture: np.array(word_boxes[picture])
                    for picture in pictures
                    if picture in word_boxes
                },
                {picture: np.array(several) for picture, several in boxes.items()},
                threshold=BOX_IOU,
            )
        )
    return float(np.mean(precisions))


def _true_spans(truth: dict[str, Any], path: Path) -> np.ndarray:
    """(queries, 2) seconds; PredictionError for what is none."""
    faults = FileFaults(path)
    spans = [faults.numbers([q["ts"]], where=f"qid {qid}, ts", width=2) for qid, q in truth.items()]
    faults.raise_if_any()
    return np.concatenate(spans)


def _predicted_boxes(content: Any, faults: FileFaults) -> Boxes:
    boxes_of_words: Boxes = {}
    if not isinstance(content, dict):
        faults.add(f"bbox: expected an object of pictures, got {excerpt(content)}")
        return boxes_of_words
    for picture, boxes in content.items():
        if not isinstance(boxes, list):
            faults.add(f"bbox {picture}: expected a list of boxes, got {excerpt(boxes)}")
            continue
        for number, box in enumerate(boxes, start=1):
            where = f"bbox {picture}, box {number}"
            if not _is_box(box):
                wanted = "[word, score, [left, top, right, bottom]]"
                faults.add(f"{where}: expected {wanted}, got {excerpt(box)}")
                continue
            values = faults.numbers([[*box[2], box[1]]], where=where, width=5)
            if len(values):
                boxes_of_words.setdefault(str(box[0]), {}).setdefault(picture, []).append(
                    list(values[0])
                )
    return boxes_of_words


def _is_box(value: Any) -> bool:
    """Whether it is a list of the right length; its numbers are another question."""
    if not (isinstance(value, list) and len(value) == 3 and isinstance(value[0], str)):
        return False
    return isinstance(value[2], list) and len(value[2]) == 4


def _known(annotations: Path) -> dict[str, int] | None:
    """Word -> number, of the scorer's vocabulary; None where it is not at hand."""
    path = annotations.with_name(VOCABULARY)
    return {**read_json(path)} if path.is_file() else None


def _true_boxes(truth: dict[str, Any], known: dict[str, int] | None) -> tuple[Boxes, list[str]]:
    """The boxes of known words, these in the vocabulary's order, and the pictures that have any."""
    boxes_of_words: Boxes = {}
    pictures: dict[str, None] = {}
    for qid, record in truth.items():
        for frame, boxes in record["bbox"].items():
            picture = f"{record['vid_name']}_{int(qid)}_{int(frame):05d}"
            for box in boxes:
                word, left, top = _word(box["label"]), box["left"], box["top"]
                if known is not None and (word not in known or word == UNKNOWN):
                    continue
                corners = [left, top, left + box["width"], top + box["height"]]
                boxes_of_words.setdefault(word, {}).setdefault(picture, []).append(corners)
                pictures[picture] = None
    words = boxes_of_words if known is None else sorted(boxes_of_words, key=known.__getitem__)
    return {word: boxes_of_words[word] for word in words}, list(pictures)


def _word(label: str) -> str:
    return label.replace("\u2019", "'").replace("\u2018", "'").lower()
