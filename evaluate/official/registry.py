"""Which scorer a dataset has; its numbers as lines and as a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from ...data_manifests.cards.card import card_names, load_card
from ...data_manifests.cards.scoring_rules import (
    CaptionRule,
    MomentRules,
    RetrievalRules,
    TiePolicy,
)
from ...data_manifests.core.atomic_write import atomic_write
from ...data_manifests.core.errors import UserError
from .answers import (
    score_activitynet_qa,
    score_choices_of,
    score_next_qa,
    score_open_ended,
    score_violin,
    score_vlep,
)
from .files import PredictionError
from .moments import score_didemo, score_moments
from .qvhighlights import score_qvhighlights
from .retrieval import score_matrix
from .tvqa_plus import score_tvqa_plus
from .tvr import score_tvr

Scorer = Callable[[Path, Path], dict[str, Any]]
MomentScorer = Callable[[Path, Path, MomentRules], dict[str, Any]]
DEFAULT_SPLIT: Final = "val"
VIOLIN_FILES: Final = (
    "violin_{split}.jsonl",
    "violin_{split}_release.jsonl",
    "violin_annotation.json",
)
MSRVTT_MC_FILES: Final = (
    "{split}.jsonl",
    "msrvtt_retrieval_mc_{split}.jsonl",
    "msrvtt_mc_{split}.jsonl",
    "mc_{split}.jsonl",
)
RETRIEVAL_OPTIONS: Final = ("ties", "captions", "lower-median")
_WRONG_FILE_ERRORS: Final = (LookupError, TypeError, AttributeError, ValueError, OverflowError)
"""What a scorer comes upon in an official file of another dataset; predictions are checked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetScorer:
    """How a dataset's predictions are scored."""

    score: Scorer
    """From the predictions' and the annotations' file to the official numbers."""
    annotations: tuple[str, ...]
    """Names that the file of a split has in a folder, with {split} in them; none: the folder."""
    options: tuple[str, ...] = ()
    """Of the command, those that change these numbers."""


def dataset_scorers(
    dataset: str,
    rules: RetrievalRules,
    *,
    nms: float | None,
    vocabulary: Path | None,
    split: str | None = None,
) -> dict[str, DatasetScorer]:
    """By name; with that of `dataset`, where this is a card of retrieval."""

    def matrix(predictions: Path, annotations: Path) -> dict[str, Any]:
        return score_matrix(predictions, annotations, rules)

    def violin(predictions: Path, annotations: Path) -> dict[str, Any]:
        return score_violin(predictions, annotations, split=split or DEFAULT_SPLIT)

    def moments_of(card: str) -> Scorer:
        return lambda predictions, annotations: score_moments(
            predictions, annotations, moment_rules(card), nms=nms
        )

    def by_rules(scorer: MomentScorer, card: str) -> Scorer:
        return lambda predictions, annotations: scorer(predictions, annotations, moment_rules(card))

    def open_ended(predictions: Path, annotations: Path) -> dict[str, Any]:
        return score_open_ended(predictions, annotations, vocabulary=vocabulary)

    no_options: tuple[str, ...] = ()
    didemo = by_rules(score_didemo, "didemo-moments")
    qvhighlights = by_rules(score_qvhighlights, "qvhighlights")
    # Files other than ClipBERT's name the video, and give questions no id.
    msrvtt_mc = score_choices_of("answer", "msrvtt_choice", numbered_with="video")
    tvqa = score_choices_of("answer_idx", "tvqa")
    of_moments, of_words = ("nms",), ("vocabulary",)
    table: dict[str, tuple[Scorer, str | tuple[str, ...], tuple[str, ...]]] = {
        "activitynet-moments": (moments_of("activitynet-moments"), "{split}.json", of_moments),
        "activitynet-qa": (score_activitynet_qa, "{split}_a.json", no_options),
        "charades-sta": (moments_of("charades-sta"), "charades_sta_{split}.txt", of_moments),
        "didemo": (didemo, "{split}_data.json", no_options),
        "didemo-moments": (didemo, "{split}_data.json", no_options),
        "msrvtt": (matrix, "MSRVTT_JSFUSION_{split}.csv", RETRIEVAL_OPTIONS),
        "msrvtt-mc": (msrvtt_mc, MSRVTT_MC_FILES, no_options),
        "msrvtt-qa": (open_ended, "{split}_qa.json", of_words),
        "msvd": (matrix, "captions_msvd.json", RETRIEVAL_OPTIONS),
        "msvd-qa": (open_ended, "{split}_qa.json", of_words),
        "next-qa": (score_next_qa, "{split}.csv", no_options),
        "qvhighlights": (qvhighlights, "highlight_{split}_release.jsonl", no_options),
        "tacos": (moments_of("tacos"), "{split}.json", of_moments),
        "tvqa": (tvqa, "tvqa_{split}.jsonl", no_options),
        "tvqa-plus": (score_tvqa_plus, "tvqa_plus_{split}.json", no_options),
        "tvr": (by_rules(score_tvr, "tvr"), "tvr_{split}_release.jsonl", no_options),
        "violin": (violin, VIOLIN_FILES, no_options),
        "vlep": (score_vlep, "vlep_{split}_release.jsonl", no_options),
    }
    scorers = {
        name: DatasetScorer(
            score=score,
            annotations=(files,) if isinstance(files, str) else files,
            options=options,
        )
        for name, (score, files, options) in table.items()
    }
    card_scorer = _card_scorer(dataset, rules, split) if dataset in card_names() else None
    return scorers if card_scorer is None else {**scorers, dataset: card_scorer}


def retrieval_rules(
    dataset: str,
    *,
    ties: TiePolicy | None,
    captions: CaptionRule | None,
    lower_median: bool | None,
) -> RetrievalRules:
    """The rules of the card with that name, or the default ones, with what is given in place."""
    card = load_card(dataset) if dataset in card_names() else None
    rules = RetrievalRules() if card is None or card.retrieval is None else card.retrieval
    given: dict[str, Any] = {"ties": ties, "several_captions": captions}
    if lower_median is not None:
        given["median"] = "lower" if lower_median else "mean"
    return replace(rules, **{name: value for name, value in given.items() if value is not None})


def moment_rules(card: str) -> MomentRules:
    """The rules of a card of moments."""
    rules = load_card(card).moments
    assert rules is not None
    return rules


def _card_scorer(name: str, rules: RetrievalRules, split: str | None) -> DatasetScorer | None:
    """Of a card whose texts are whole clips': a matrix against the folder of its official files."""
    card = load_card(name)
    if card.retrieval is None or card.queries == "each_sentence":
        return None

    def score(predictions: Path, annotations: Path) -> dict[str, Any]:
        return score_matrix(predictions, annotations, rules, card=card, split=split)

    return DatasetScorer(score=score, annotations=(), options=RETRIEVAL_OPTIONS)


def check_options(scorer: DatasetScorer, given: Sequence[str]) -> None:
    """Raise UserError for options of the command that another kind of dataset has."""
    odd = ", ".join(f"--{name}" for name in given if name not in scorer.options)
    if odd:
        valid = ", ".join(f"--{name}" for name in scorer.options) or "none of them"
        raise UserError(f"{odd} changes nothing about this dataset's numbers, which take {valid}")


def score_predictions(
    scorer: DatasetScorer, predictions: Path, annotations: Path, *, split: str | None
) -> dict[str, Any]:
    """The official numbers; `annotations` is the split's file, or the folder that has it.

    Raises PredictionError with every fault of a file.
    """
    path = annotations
    if annotations.is_dir() and scorer.annotations:
        names = [name.format(split=split or DEFAULT_SPLIT) for name in scorer.annotations]
        path = next((annotations / name for name in names if (annotations / name).is_file()), path)
        if path is annotations:
            raise PredictionError(
                f"{annotations}: it has no {' or '.join(names)}; choose the split with --split, or "
                f"give the file with --annotations"
            )
    elif not path.is_file() and not path.is_dir():
        raise PredictionError(f"{path}: no such file; give it with --annotations")
    if not predictions.is_file():
        raise PredictionError(f"{predictions}: no such file; give it with --predictions")
    try:
        # Spans of 1e308 seconds overlap with nothing, whatever their length comes to.
        with np.errstate(over="ignore", invalid="ignore"):
            return scorer.score(predictions, path)
    except _WRONG_FILE_ERRORS as error:
        raise PredictionError(
            f"{path}: not the annotations that this dataset has ({type(error).__name__}: {error})"
        ) from error


def score_lines(scores: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """A line per number, with the names of its groups before it."""
    for name, value in scores.items():
        if isinstance(value, dict):
            yield from score_lines(value, f"{prefix}{name} ")
        else:
            text = ", ".join(value) if isinstance(value, list) else value
            yield f"{prefix + name:44} {text}"


def write_scores(scores: dict[str, Any], folder: Path) -> None:
    """Write scores.json into the folder, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps(scores, indent=2) + "\n"
    atomic_write(folder / "scores.json", content)
