"""Answers to questions: multiple choice with its groups, closed vocabularies, true or false."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from ..data_manifests.faults import shown
from .prediction_files import (
    FileFaults,
    PredictionError,
    answers_of,
    read_csv,
    read_json,
    records_of,
)

NEXT_QA_TYPES: Final = ("CW", "CH", "TN", "TC", "DC", "DL", "DO")
ACTIVITYNET_TYPES: Final = ("Motion", "Spatial Relation", "Temporal Relation") + (
    "Yes/No",
    "Color",
    "Object",
    "Location",
    "Number",
    "Other",
)
VIOLIN_SPLITS: Final = {"validate": "val", "validation": "val", "dev": "val"}
"""Our word for a split of violin_annotation.json."""
FREE_TYPES: Final = range(3, 9)
"""All but motion, spatial and temporal: the free questions."""


def score_next_qa(predictions: Path, annotations: Path) -> dict[str, float]:
    """Percent with two digits: types with TP merged into TN, C, T, D, and all."""
    columns = ("video", "qid", "type", "answer")
    rows = {f"{row['video']}_{row['qid']}": row for row in read_csv(annotations, columns)}
    right = _right(
        predictions, {name: int(row["answer"]) for name, row in rows.items()}, key="video_qid"
    )
    types = {name: next_qa_type(row["type"]) for name, row in rows.items()}
    scores = {kind: _mean(right[n] for n in rows if types[n] == kind) for kind in NEXT_QA_TYPES}
    scores |= {group: _mean(right[n] for n in rows if types[n][0] == group) for group in "CTD"}
    return _percents(scores | {"Acc": _mean(right.values())})


def next_qa_type(name: str) -> str:
    """Questions about before and after are one group: TP is TN."""
    return "TN" if name == "TP" else name


def score_activitynet_qa(predictions: Path, annotations: Path) -> dict[str, float]:
    """Shares with four digits: the three special types, free, all, and each free type.

    Free divides by the free questions; the official script slices its counts in the order in which
    types happen to appear, and on Python 3.7 or newer divides by others.
    """
    truth = _records(annotations, "question_id")
    answers = {name: record["answer"] for name, record in truth.items()}
    right = _right(predictions, answers, key="question_id")
    kinds = {name: int(record["type"]) for name, record in truth.items()}
    by_type = {
        name: _mean(right[n] for n in truth if kinds[n] == kind)
        for kind, name in enumerate(ACTIVITYNET_TYPES)
    }
    by_type["Free"] = _mean(right[n] for n in truth if kinds[n] in FREE_TYPES)
    scores = by_type | {"All": _mean(right.values())}
    return {name: float(f"{value:.4f}") for name, value in scores.items() if value is not None}


def score_open_ended(
    predictions: Path, annotations: Path, *, vocabulary: Path | None = None
) -> dict[str, float]:
    """MSRVTT-QA and MSVD-QA: percent with two digits, by first word of the question, and all.

    vocabulary: a file with an answer in each line; how much of the truth it has is then said, too.
    """
    truth = _records(annotations, "id")
    answers = {name: record["answer"] for name, record in truth.items()}
    right = _right(predictions, answers, key="id")
    first = {name: str(record["question"]).split(" ")[0].lower() for name, record in truth.items()}
    scores = {
        word: _mean(right[n] for n in truth if first[n] == word)
        for word in sorted(set(first.values()))
    }
    scores["Acc"] = _mean(right.values())
    if vocabulary is not None:
        known = vocabulary.read_text(encoding="utf-8").splitlines()
        scores["vocabulary coverage"] = vocabulary_coverage(answers.values(), known)
    return _percents(scores)


def score_vlep(predictions: Path, annotations: Path) -> dict[str, float]:
    """Percent with two digits. The key is pred_ans, or the shipped script's pre_ans."""
    truth = _records(annotations, "example_id")
    answers = {name: int(record["answer"]) for name, record in truth.items()}
    fields = ("pred_ans", "pre_ans")
    return _percents({"qa_acc": _mean(_right(predictions, answers, "example_id", fields).values())})


def score_violin(predictions: Path, annotations: Path, *, split: str = "val") -> dict[str, float]:
    """Percent with two digits of statements rightly called true (1) or false (0).

    annotations: VALUE's jsonl, or violin_annotation.json, of which the split's statements count:
    CLIP-K-0 is the true one of pair K, CLIP-K-1 the false one.
    """
    if annotations.suffix == ".json":
        answers = _violin_statements(annotations, split)
    else:
        truth = _records(annotations, "example_id")
        answers = {name: int(record["answer"]) for name, record in truth.items()}
    return _percents({"Acc": _mean(_right(predictions, answers, key="example_id").values())})


def _violin_statements(path: Path, split: str) -> dict[str, int]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise PredictionError(f"{path}: expected an object of clips")
    answers = {
        f"{clip}-{number}-{place}": 1 - place
        for clip, entry in content.items()
        if VIOLIN_SPLITS.get(entry["split"], entry["split"]) == split
        for number, pair in enumerate(entry["statement"])
        for place in range(len(pair))
    }
    if not answers:
        raise PredictionError(f"{path}: no statements of split {split!r}; give it with --split")
    return answers


def score_choices_of(answer: str) -> Callable[[Path, Path], dict[str, float]]:
    """A scorer of {qid: option index} against records {qid, `answer`: index}, in percent."""

    def score(predictions: Path, annotations: Path) -> dict[str, float]:
        truth = _records(annotations, "qid")
        answers = {name: int(record[answer]) for name, record in truth.items()}
        return _percents({"Acc": _mean(_right(predictions, answers, key="qid").values())})

    return score


def vocabulary_coverage(answers: Iterable[str], vocabulary: Iterable[str]) -> float:
    """Share of answers that the vocabulary has: the ceiling of exact match over all questions."""
    known = set(vocabulary)
    return _mean(answer in known for answer in answers) or 0.0


def _right(
    path: Path,
    truth: dict[str, Any],
    key: str,
    fields: Iterable[str] = ("prediction", "answer", "pred"),
) -> dict[str, bool]:
    """Whether each question is answered as the truth has it; every fault of the file at once."""
    faults = FileFaults(path)
    named = " or ".join(fields)
    found = answers_of(read_json(path), faults, key=key, fields=fields)
    faults.match(found, truth, what=key)
    for name, value in found.items():
        kind = type(truth[name]) if name in truth else None
        if kind is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            wanted = "an answer's index" if kind is int else "an answer's text"
            faults.add(f"{key} {name} ({named}): expected {wanted}, got {shown(value)}")
    faults.raise_if_any()
    return {name: found[name] == value for name, value in truth.items()}


def _records(path: Path, key: str) -> dict[str, dict[str, Any]]:
    faults = FileFaults(path)
    found = faults.index(records_of(read_json(path), path), key)
    faults.raise_if_any()
    return found


def _mean(values: Iterable[bool]) -> float | None:
    several = list(values)
    return sum(several) / len(several) if several else None


def _percents(scores: dict[str, float | None]) -> dict[str, float]:
    return {n: float(f"{100 * value:.2f}") for n, value in scores.items() if value is not None}
