"""Cards: what a benchmark is, where its official files are, and how its numbers are made."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from .errors import SettingsError
from .settings import load_settings

CARDS: Final = Path(__file__).parent / "datasets"
"""Where the cards that come with mlalign lie: NAME.yaml."""
SPANS: Final = "spans"
"""The segment rule that cuts clips by the spans of their texts."""
RETRIEVAL_METRICS: Final = re.compile(r"R@\d+|MdR|MnR|MRR|mAP|nDCG@10|Rsum|geometric mean")
MOMENT_METRICS: Final = re.compile(r"R@\d+|Rank@\d+|mIoU|mAP|HL mAP|HIT@1")
QUESTION_METRICS: Final = re.compile(r"accuracy|temporal mIoU|ASA|grounding mAP")
"""What each kind of task is measured by."""

Task = Literal["retrieval", "moments", "multiple_choice", "open_ended"]
Queries = Literal["each_caption", "given_caption", "paragraph", "each_sentence", "questions"]
ImporterName = Literal[
    "activitynet_captions",
    "activitynet_qa",
    "captions_csv",
    "charades_sta",
    "didemo",
    "how2qa",
    "how2r",
    "lsmdc",
    "lsmdc_choice",
    "moments_csv",
    "msrvtt",
    "msrvtt_choice",
    "msvd",
    "next_qa",
    "questions_csv",
    "qvhighlights",
    "tacos",
    "tvqa",
    "tvr",
    "vatex",
    "violin",
    "vlep",
    "xu_qa",
    "youcook2",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class OfficialFile:
    """One file (or folder) of the official annotations."""

    names: tuple[str, ...]
    """The names that users have it under; the first one there is read."""
    of: str = ""
    """What it holds, in a few words."""
    split: str | None = None
    """The split that it alone describes; null: several, or all."""
    needed: bool = True
    """Whether its split (without one: anything) cannot be built when it is missing."""
    instead: tuple[str, ...] = ()
    """The card's words for files that together say the same. A split does not need it where all of
    these are there that describe the split."""

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError("names must have at least one file name")


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitSize:
    """What the official files of a split give; null where that is not known or is nothing."""

    clips: int | None = None
    """Clips."""
    texts: int | None = None
    """Texts that are queries of the card's task: captions, paragraphs or sentences."""
    questions: int | None = None
    """Questions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrievalProtocol:
    """How retrieval is scored."""

    directions: tuple[Literal["text_to_clip", "clip_to_text"], ...] = (
        "text_to_clip",
        "clip_to_text",
    )
    """Which way to search."""
    metrics: tuple[str, ...] = ("R@1", "R@5", "R@10", "MdR", "MnR")
    """What is usually reported."""
    recall_ks: tuple[int, ...] = (1, 5, 10)
    """The K of R@K."""
    several_captions: Literal["captions", "clips"] = "captions"
    """clip_to_text: the best own caption among all captions, or clips ranked by their best one."""
    median: Literal["mean", "lower"] = "mean"
    """Of an even number of ranks: the mean of the middle two, or the lower one, but of clip_to_text
    the mean (CLIP4Clip)."""
    ties: Literal["against", "mean", "first"] = "against"
    """Where equal scores rank: all before the right one, at their mean, or in the given order."""

    def __post_init__(self) -> None:
        _check_metrics(self.metrics, RETRIEVAL_METRICS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunks:
    """Moments that are whole runs of chunks, each placed by several people (DiDeMo)."""

    seconds: float = 5.0
    """Of a chunk."""
    number: int = 6
    """Of the chunks from a clip's start; every run of them is a candidate (21 of 6)."""
    best_annotators: int = 3
    """People whose choices agree best with a prediction, over whom ranks and IoUs are averaged."""

    def __post_init__(self) -> None:
        if self.seconds <= 0 or self.number < 1 or self.best_annotators < 1:
            raise ValueError(
                f"expected seconds > 0, number and best_annotators of at least 1, got "
                f"{self.seconds}, {self.number} and {self.best_annotators}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class MomentProtocol:
    """How the retrieval of moments is scored."""

    metrics: tuple[str, ...] = ("R@1", "R@5", "mIoU")
    """What is usually reported."""
    recall_ks: tuple[int, ...] = (1, 5)
    """The K of R@K."""
    iou_thresholds: tuple[float, ...] = (0.3, 0.5, 0.7)
    """Overlaps that make a hit."""
    iou_comparison: Literal[">", ">="] = ">"
    """Whether an overlap that equals the threshold is a hit (>=)."""
    iou_denominator: Literal["union", "hull"] = "union"
    """hull: from the earlier start to the later end, larger than the union of spans apart."""
    nms_iou: float | None = None
    """Of two predictions that overlap more, the lower one is dropped before scoring; null: none."""
    max_predictions: int | None = None
    """How many of a query's predictions count; null: all."""
    corpus: bool = False
    """Whether the clip must be found, too."""
    average_precision: bool = False
    """Whether mAP over the windows of a query is a metric, by their length, too (QVHighlights)."""
    chunks: Chunks | None = None
    """The candidates, where they are chunks; null: spans of segments."""
    segments: str = "uniform:16"
    """The rule that cuts clips where an extraction is told none. Moments begin and end where
    segments do, so the rule must not know the true ones."""

    def __post_init__(self) -> None:
        _check_metrics(self.metrics, MOMENT_METRICS)
        if self.segments == SPANS:
            raise ValueError(
                f"segments is {SPANS}, the true moments themselves: choose a rule that does not "
                f"know them, such as uniform:16"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class TypeGroup:
    """Question types that are reported together."""

    name: str
    """Of the group."""
    types: tuple[str, ...]
    """As in the questions table."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Vocabulary:
    """Which answers of the training split an open-ended question may have."""

    most_frequent: int | None = None
    """That many of them; null: no bound."""
    min_count: int = 1
    """Only those that occur as often in training."""

    def of(self, answers: Sequence[str]) -> list[str]:
        """The answers that may be given, most frequent first. answers: of all training questions;
        equally frequent ones stay in their order."""
        counted = Counter(answers).most_common(self.most_frequent)
        return [answer for answer, count in counted if count >= self.min_count]


@dataclass(frozen=True, kw_only=True, slots=True)
class QuestionProtocol:
    """How questions are scored; questions without a known answer are never counted."""

    metrics: tuple[str, ...] = ("accuracy",)
    """What is usually reported."""
    groups: tuple[TypeGroup, ...] = ()
    """Reported beside each type."""
    vocabulary: Vocabulary | None = None
    """Of open-ended questions; an answer outside counts as wrong."""
    moments: bool = False
    """Whether the moment of the answer is scored, too: mIoU over the hull, and ASA, the right
    answers whose moment reaches IoU 0.5 (TVQA+)."""

    def __post_init__(self) -> None:
        _check_metrics(self.metrics, QUESTION_METRICS)


def _check_metrics(metrics: Sequence[str], known: re.Pattern[str]) -> None:
    """Raise ValueError for metrics of another task."""
    others = [name for name in metrics if not known.fullmatch(name)]
    if others:
        there = known.pattern.replace(r"\d+", "K").replace("|", ", ")
        raise ValueError(f"metrics has {', '.join(others)}, which this task has not: {there}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """Published numbers to compare with."""

    method: str
    """Whose they are, and under which conditions."""
    numbers: Mapping[str, float]
    """Metric to value, as published (percent unless the metric says otherwise)."""
    source: str
    """Where they were published."""
    checked: bool = False
    """Whether the numbers were read there; else they are from memory, and shown as such."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """One benchmark under one protocol."""

    name: str
    """As on the command line; a card's file is NAME.yaml."""
    title: str
    """For readers."""
    tasks: tuple[Task, ...]
    """What it measures."""
    importer: ImporterName
    """Which reader its official files have."""
    variant: str | None = None
    """Which of the importer's ways, where it has several."""
    files: Mapping[str, OfficialFile]
    """The official files by the importer's own word for each."""
    where: str
    """Where a user gets them, and the videos."""
    licence: str
    """Of annotations and videos, in a few words."""
    redistributable: bool = False
    """Whether the annotations may be passed on."""
    splits: Mapping[str, SplitSize]
    """The splits, with the sizes that `build` checks."""
    train_split: str | None = None
    """Trained on."""
    validation_split: str | None = None
    """Chooses weights and settings; null: the literature has none (see notes)."""
    test_split: str
    """Whose numbers are reported."""
    queries: Queries
    """How texts become queries: each caption, the one caption that a file gives, all sentences of a
    clip in file order as one paragraph, each sentence with its span, or none but questions."""
    retrieval: RetrievalProtocol | None = None
    """null: not scored."""
    moments: MomentProtocol | None = None
    """null: not scored."""
    questions: QuestionProtocol | None = None
    """null: not scored."""
    references: tuple[Reference, ...] = ()
    """Published numbers."""
    notes: tuple[str, ...] = ()
    """What a reader must know before comparing numbers."""

    def __post_init__(self) -> None:
        faults = []
        for setting in ("train_split", "validation_split", "test_split"):
            split = getattr(self, setting)
            if split is not None and split not in self.splits:
                faults.append(f"{setting} is {split!r}, but splits has {', '.join(self.splits)}")
        for word, file in self.files.items():
            if file.split is not None and file.split not in self.splits:
                faults.append(f"files.{word}.split is {file.split!r}, no split of the card")
            faults += [
                f"files.{word}.instead has {other!r}, no file of the card"
                for other in file.instead
                if other not in self.files
            ]
        wanted = {
            "retrieval": ("retrieval",),
            "moments": ("moments",),
            "questions": ("multiple_choice", "open_ended"),
        }
        for protocol, tasks in wanted.items():
            if (getattr(self, protocol) is None) == any(task in self.tasks for task in tasks):
                faults.append(f"the group {protocol} and the tasks {', '.join(self.tasks)} differ")
        if faults:
            raise ValueError("; ".join(faults))


def card_names() -> list[str]:
    """The cards that come with mlalign, sorted."""
    return sorted(path.stem for path in CARDS.glob("*.yaml"))


def load_card(name: str) -> Card:
    """The card of that name, or in that YAML file; SettingsError with all that is wrong with it."""
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        if name not in card_names():
            raise SettingsError(
                f"no card is called {name!r}; there are: {', '.join(card_names())}; "
                f"a card of your own is given as a file, NAME.yaml"
            )
        path = CARDS / f"{name}.yaml"
    card = load_settings(Card, path)
    if card.name != path.stem:
        raise SettingsError(f"{path}: expected name: {path.stem}, as the file, got {card.name!r}")
    return card
