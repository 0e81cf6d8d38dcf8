"""The rules that numbers are made by: declared here once, for cards, evaluation and scorers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

Direction = Literal["text_to_clip", "clip_to_text"]
TiePolicy = Literal["against", "mean", "first"]
CaptionRule = Literal["captions", "clips"]
MedianRule = Literal["mean", "lower"]
IouComparison = Literal[">", ">="]
IouDenominator = Literal["union", "hull"]

SPANS: Final = "spans"
"""The segment rule that cuts clips by the spans of their texts."""
ANSWER_MOMENT_IOU: Final = 0.5
"""IoU over the hull from which on (>=) the moment of an answer is found, for ASA (TVQA+)."""
RETRIEVAL_METRICS: Final = re.compile(r"R@\d+|MdR|MnR|MRR|mAP|nDCG@10|Rsum|geometric mean")
MOMENT_METRICS: Final = re.compile(r"R@\d+|Rank@\d+|mIoU|mAP|HL mAP|HIT@1")
QUESTION_METRICS: Final = re.compile(r"accuracy|temporal mIoU|ASA|grounding mAP")
"""What each kind of task is measured by."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrievalRules:
    """What decides the numbers of retrieval."""

    directions: tuple[Direction, ...] = ("text_to_clip", "clip_to_text")
    """Which way to search."""
    recall_ks: tuple[int, ...] = (1, 5, 10)
    """The K of R@K."""
    several_captions: CaptionRule = "captions"
    """clip_to_text: the best own caption among all captions, or clips ranked by their best one."""
    median: MedianRule = "mean"
    """Of an even number of ranks: the mean of the middle two, or the lower one, but of clip_to_text
    the mean (CLIP4Clip)."""
    ties: TiePolicy = "against"
    """Where equal scores rank: all before the right one, at their mean, or in the given order."""

    def rule_faults(self) -> list[str]:
        """Everything that is wrong with these rules."""
        faults = []
        if not self.directions or len(set(self.directions)) < len(self.directions):
            faults.append(f"directions must name each direction once, got {self.directions}")
        return faults + _k_faults(self.recall_ks)


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrievalProtocol(RetrievalRules):
    """How a benchmark scores retrieval."""

    metrics: tuple[str, ...] = ("R@1", "R@5", "R@10", "MdR", "MnR")
    """What is usually reported."""

    def __post_init__(self) -> None:
        _raise_if_any([*self.rule_faults(), *_metric_faults(self.metrics, RETRIEVAL_METRICS)])


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

    def candidates(self) -> list[tuple[int, int]]:
        """First and last chunk of every run of chunks, in order."""
        return [(i, j) for i in range(self.number) for j in range(i, self.number)]


@dataclass(frozen=True, kw_only=True, slots=True)
class MomentRules:
    """What decides the numbers of moment retrieval."""

    recall_ks: tuple[int, ...] = (1, 5)
    """The K of R@K."""
    iou_thresholds: tuple[float, ...] = (0.3, 0.5, 0.7)
    """Overlaps that make a hit."""
    iou_comparison: IouComparison = ">="
    """Whether an overlap that equals the threshold is a hit (>=) or not (>)."""
    iou_denominator: IouDenominator = "union"
    """hull: from the earlier start to the later end, larger than the union of spans apart."""
    nms_iou: float | None = None
    """Of two predictions that overlap more, the lower one is dropped before scoring; null: none."""
    max_predictions: int | None = None
    """How many of a query's predictions count; null: the largest of recall_ks."""
    average_precision: bool = False
    """Whether mAP over the windows of a query is a metric, by their length, too (QVHighlights)."""
    chunks: Chunks | None = None
    """The candidates, where they are chunks (DiDeMo); null: spans of segments."""
    corpus: bool = False
    """Whether moments are searched in all clips of the split, too."""

    @property
    def num_predictions(self) -> int:
        """How many predictions of a query count."""
        return max(self.recall_ks) if self.max_predictions is None else self.max_predictions

    def rule_faults(self) -> list[str]:
        """Everything that is wrong with these rules."""
        faults = _k_faults(self.recall_ks)
        if self.nms_iou is not None and not 0 <= self.nms_iou <= 1:
            faults.append(f"nms_iou must be between 0 and 1, got {self.nms_iou}")
        if self.max_predictions is not None and self.max_predictions < 1:
            faults.append(f"max_predictions must be at least 1, got {self.max_predictions}")
        if not self.iou_thresholds or not all(0 < value <= 1 for value in self.iou_thresholds):
            faults.append(f"iou_thresholds must be in (0, 1], got {self.iou_thresholds}")
        return faults


@dataclass(frozen=True, kw_only=True, slots=True)
class MomentProtocol(MomentRules):
    """How a benchmark scores the retrieval of moments."""

    metrics: tuple[str, ...] = ("R@1", "R@5", "mIoU")
    """What is usually reported."""
    segments: str = "uniform:16"
    """The rule that cuts clips where an extraction is told none. Moments begin and end where
    segments do, so the rule must not know the true ones."""

    def __post_init__(self) -> None:
        faults = [*self.rule_faults(), *_metric_faults(self.metrics, MOMENT_METRICS)]
        if self.segments == SPANS:
            faults.append(
                f"segments is {SPANS}, the true moments themselves: choose a rule that does not "
                f"know them, such as uniform:16"
            )
        _raise_if_any(faults)


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
    """How a benchmark scores questions; those without a known answer are never counted."""

    metrics: tuple[str, ...] = ("accuracy",)
    """What is usually reported."""
    groups: tuple[TypeGroup, ...] = ()
    """Reported beside each type."""
    vocabulary: Vocabulary | None = None
    """Of open-ended questions; an answer outside counts as wrong."""
    moments: bool = False
    """Whether the moment of the answer is scored, too: mIoU over the hull, and ASA, the right
    answers whose moment is found (TVQA+)."""

    def __post_init__(self) -> None:
        _raise_if_any(_metric_faults(self.metrics, QUESTION_METRICS))


def _k_faults(recall_ks: tuple[int, ...]) -> list[str]:
    if not recall_ks or min(recall_ks) < 1:
        return [f"recall_ks must be numbers of at least 1, got {recall_ks}"]
    if 1 not in recall_ks:
        return [f"recall_ks must have 1, the K of comparisons, got {recall_ks}"]
    return []


def _metric_faults(metrics: Sequence[str], known: re.Pattern[str]) -> list[str]:
    """Metrics of another task."""
    others = [name for name in metrics if not known.fullmatch(name)]
    valid = known.pattern.replace(r"\d+", "K").replace("|", ", ")
    return [f"unknown metrics for this task: {', '.join(others)}; valid: {valid}"] if others else []


def _raise_if_any(faults: Sequence[str]) -> None:
    if faults:
        raise ValueError("; ".join(faults))
