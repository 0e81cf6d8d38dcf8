"""Answers to questions: multiple choice with its groups, closed vocabularies, true or false."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from ...data_manifests.cards.card import ImporterName
from ...data_manifests.core.faults import excerpt
from .files import (
    FileFaults,
    PredictionError,
    answers_of,
    is_option,
    read_annotations,
    read_csv,
    read_json,
    read_lines,
)
from .formats import NUM_OPTIONS

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
    answers = _indices(annotations, rows, "answer", num_options=NUM_OPTIONS["next_qa"])
    # Official files carry the truth along as "answer", which is no prediction.
    fields = ("prediction",)
    right = _right(
        predictions, answers, key="video_qid", fields=fields, num_options=NUM_OPTIONS["next_qa"]
    )
    types = {name: next_qa_type(row["type"]) for name, row in rows.items()}
    groups = {kind: [right[n] for n in rows if types[n] == kind] for kind in NEXT_QA_TYPES}
    groups |= {group: [right[n] for n in rows if types[n][0] == group] for group in "CTD"}
    groups["Acc"] = list(right.values())
    # Not 100 times the share, whose last bit decides whether 58.125 is printed as 58.12 or 58.13.
    return {
        name: float(f"{100.0 * sum(group) / len(group):.2f}")
        for name, group in groups.items()
        if group
    }


def next_qa_type(name: str) -> str:
    """Questions about before and after are one group: TP is TN."""
    return "TN" if name == "TP" else name


def score_activitynet_qa(predictions: Path, annotations: Path) -> dict[str, float]:
    """Shares with four digits: the three special types, free, all, and each free type.

    Free divides by the free questions; the official script slices its counts in the order in which
    types happen to appear, and on Python 3.7 or newer divides by others.
    """
    truth = read_annotations(annotations, "question_id")
    answers = _texts(annotations, truth)
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
    truth = read_annotations(annotations, "id")
    answers = _texts(annotations, truth)
    right = _right(predictions, answers, key="id")
    first = {name: str(record["question"]).split(" ")[0].lower() for name, record in truth.items()}
    scores = {
        word: _mean(right[n] for n in truth if first[n] == word)
        for word in sorted(set(first.values()))
    }
    scores["Acc"] = _mean(right.values())
    if vocabulary is not None:
        known = read_lines(vocabulary)
        scores["vocabulary coverage"] = vocabulary_coverage(answers.values(), known)
    return _percents(scores)


def score_vlep(predictions: Path, annotations: Path) -> dict[str, float]:
    """Percent with two digits. The key is pred_ans, or the shipped script's pre_ans."""
    truth = read_annotations(annotations, "example_id")
    answers = _indices(annotations, truth, "answer", num_options=NUM_OPTIONS["vlep"])
    right = _right(
        predictions,
        answers,
        key="example_id",
        fields=("pred_ans", "pre_ans"),
        num_options=NUM_OPTIONS["vlep"],
    )
    return _percents({"qa_acc": _mean(right.values())})


def score_violin(predictions: Path, annotations: Path, *, split: str = "val") -> dict[str, float]:
    """Percent with two digits of statements rightly called true (1) or false (0).

    annotations: VALUE's jsonl, or violin_annotation.json, of which the split's statements count:
    CLIP-K-0 is the true one of pair K, CLIP-K-1 the false one.
    """
    if annotations.suffix == ".json":
        answers = _violin_statements(annotations, split)
    else:
        truth = read_annotations(annotations, "example_id")
        answers = _indices(annotations, truth, "answer", num_options=NUM_OPTIONS["violin"])
    right = _right(predictions, answers, key="example_id", num_options=NUM_OPTIONS["violin"])
    return _percents({"Acc": _mean(right.values())})


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


def score_choices_of(
    answer: str, importer: ImporterName, *, numbered_with: str | None = None
) -> Callable[[Path, Path], dict[str, float]]:
    """A scorer of {qid: option index} against records {qid, `answer`: index}, in percent.

    numbered_with: as in `read_annotations`.
    """
    num_options = NUM_OPTIONS[importer]

    def score(predictions: Path, annotations: Path) -> dict[str, float]:
        truth = read_annotations(annotations, "qid", numbered_with=numbered_with)
        answers = _indices(annotations, truth, answer, num_options=num_options)
        right = _right(predictions, answers, key="qid", num_options=num_options)
        return _percents({"Acc": _mean(right.values())})

    return score


def vocabulary_coverage(answers: Iterable[str], vocabulary: Iterable[str]) -> float:
    """Share of answers that the vocabulary has: the ceiling of exact match over all questions."""
    known = set(vocabulary)
    return _mean(answer in known for answer in answers) or 0.0


def _right(
    path: Path,
    truth: Mapping[str, int | str],
    key: str,
    fields: Iterable[str] = ("prediction", "answer", "pred"),
    *,
    num_options: int | None = None,
) -> dict[str, bool]:
    """Whether each question is answered as the truth has it; every fault of the file at once.

    num_options: of every question; None: answers are texts.
    """
    faults = FileFaults(path)
    named = " or ".join(fields)
    answers = answers_of(read_json(path, faults=faults), faults, key=key, fields=fields)
    for name in faults.match(answers, truth, what=key):
        value, where = answers[name], f"{key} {name} ({named})"
        if num_options is None:
            if not isinstance(value, str):
                faults.add(f"{where}: expected an answer's text, got {excerpt(value)}")
        elif not is_option(value, num_options=num_options):
            faults.add_wrong_option(value, where=where, num_options=num_options)
    faults.raise_if_any()
    return {name: answers[name] == value for name, value in truth.items()}


def _indices(
    path: Path, records: Mapping[str, Mapping[str, Any]], key: str, *, num_options: int
) -> dict[str, int]:
    """The right option of each record of the annotations, where some have it in quotes."""
    faults, indices = FileFaults(path), {}
    for name, record in records.items():
        value = record.get(key)
        index = int(value) if isinstance(value, str) and value.strip().isdecimal() else value
        if index is not None and is_option(index, num_options=num_options):
            indices[name] = index
        else:
            faults.add_wrong_option(value, where=f"{name}, {key}", num_options=num_options)
    faults.raise_if_any()
    return indices


def _texts(path: Path, records: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The right answer of each record of the annotations."""
    faults = FileFaults(path)
    for name, record in records.items():
        if not isinstance(record.get("answer"), str):
            faults.add(f"{name}, answer: expected a text, got {excerpt(record.get('answer'))}")
    faults.raise_if_any()
    return {name: record["answer"] for name, record in records.items()}


def _mean(values: Iterable[bool]) -> float | None:
    several = list(values)
    return sum(several) / len(several) if several else None


def _percents(scores: dict[str, float | None]) -> dict[str, float]:
    return {n: float(f"{100 * value:.2f}") for n, value in scores.items() if value is not None}
