"""Which scorer a dataset has; its numbers as lines and as a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data_manifests.whole_files import write_whole
from .prediction_files import PredictionError
from .score_answers import (
    score_activitynet_qa,
    score_choices_of,
    score_next_qa,
    score_open_ended,
    score_violin,
    score_vlep,
)
from .score_didemo import score_didemo
from .score_matrix import RetrievalRules, score_matrix
from .score_moments import score_moments
from .score_qvhighlights import score_qvhighlights
from .score_tvqa_plus import score_tvqa_plus
from .score_tvr import score_tvr

Scorer = Callable[[Path, Path], dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetScorer:
    """How a dataset's predictions are scored."""

    score: Scorer
    """From the predictions' and the annotations' file to the official numbers."""
    annotations: str
    """The file of a split in a folder of annotations, with {split} in it."""


def dataset_scorers(
    rules: RetrievalRules, *, nms: float | None, vocabulary: Path | None
) -> dict[str, DatasetScorer]:
    """All datasets there are, by name."""

    def matrix(predictions: Path, annotations: Path) -> dict[str, Any]:
        return score_matrix(predictions, annotations, rules)

    def moments(predictions: Path, annotations: Path) -> dict[str, Any]:
        return score_moments(predictions, annotations, nms=nms)

    def open_ended(predictions: Path, annotations: Path) -> dict[str, Any]:
        return score_open_ended(predictions, annotations, vocabulary=vocabulary)

    found: dict[str, tuple[Scorer, str]] = {
        "activitynet-moments": (moments, "{split}.json"),
        "activitynet-qa": (score_activitynet_qa, "{split}_a.json"),
        "charades-sta": (moments, "charades_sta_{split}.txt"),
        "didemo": (score_didemo, "{split}_data.json"),
        "msrvtt": (matrix, "MSRVTT_JSFUSION_{split}.csv"),
        "msrvtt-mc": (score_choices_of("answer"), "{split}.jsonl"),
        "msrvtt-qa": (open_ended, "{split}_qa.json"),
        "msvd": (matrix, "captions_msvd.json"),
        "msvd-qa": (open_ended, "{split}_qa.json"),
        "next-qa": (score_next_qa, "{split}.csv"),
        "qvhighlights": (score_qvhighlights, "highlight_{split}_release.jsonl"),
        "tacos": (moments, "{split}.json"),
        "tvqa": (score_choices_of("answer_idx"), "tvqa_{split}.jsonl"),
        "tvqa-plus": (score_tvqa_plus, "tvqa_plus_{split}.json"),
        "tvr": (score_tvr, "tvr_{split}_release.jsonl"),
        "violin": (score_violin, "violin_{split}.jsonl"),
        "vlep": (score_vlep, "vlep_{split}_release.jsonl"),
    }
    return {
        name: DatasetScorer(score=score, annotations=file) for name, (score, file) in found.items()
    }


def score_predictions(
    scorer: DatasetScorer, predictions: Path, annotations: Path, *, split: str
) -> dict[str, Any]:
    """The official numbers; `annotations` is the split's file, or the folder that has it.

    Raises PredictionError with every fault of a file.
    """
    chosen = annotations / scorer.annotations.format(split=split)
    path = chosen if annotations.is_dir() else annotations
    if not path.is_file():
        raise PredictionError(f"{path}: no such file; give it with --annotations")
    if not predictions.is_file():
        raise PredictionError(f"{predictions}: no such file; give it with --predictions")
    try:
        return scorer.score(predictions, path)
    except (KeyError, TypeError, AttributeError) as error:
        raise PredictionError(
            f"{path}: not the annotations that this dataset has ({type(error).__name__}: {error})"
        ) from error


def score_lines(scores: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """A line per number, with the names of its groups before it."""
    for name, value in scores.items():
        if isinstance(value, dict):
            yield from score_lines(value, f"{prefix}{name} ")
        else:
            said = ", ".join(value) if isinstance(value, list) else value
            yield f"{prefix + name:44} {said}"


def write_scores(scores: dict[str, Any], folder: Path) -> None:
    """Write scores.json into the folder, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps(scores, indent=2) + "\n"
    write_whole(folder / "scores.json", lambda path: path.write_text(content, encoding="utf-8"))
