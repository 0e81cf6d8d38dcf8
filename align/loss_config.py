"""The settings of the losses: which levels and tasks are trained, and how."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

LossName = Literal["info_nce", "sigmoid", "hinge"]
GlobalFrom = Literal["parts", "pooled"]
WeakPooling = Literal["max", "softmax"]
TokenInteraction = Literal["max", "weighted"]
QuestionSpans = Literal["use", "ignore"]
TaskName = Literal["choice", "answer", "moment"]
TASK_NAMES: tuple[TaskName, ...] = ("choice", "answer", "moment")


@dataclass(frozen=True, kw_only=True, slots=True)
class LevelsConfig:
    """How the global level is made."""

    global_from: GlobalFrom = "parts"
    """parts: a clip is made of its segments, and a text of its sentences; pooled: a clip is its
    clip feature, and a text its text feature."""
    path: bool | None = None
    """parts: whether the vectors of the segment level are a part of the global ones, too, without
    gradient. null: where the segment level is trained on spans or on sentences."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LossConfig:
    """The total is the sum of the terms, each times its weight; a term without weight is left out.

    docs/method.md has the formulas.
    """

    name: LossName | str = "info_nce"
    """How a term makes one number of its pairs: info_nce (a softmax over the batch), sigmoid (each
    pair a yes or a no, with a learnt bias), or hinge (a margin between cosines). Your own:
    the name given to `register_loss`, or module:attribute."""
    global_weight: float = 1.0
    """Of whole clips with their global texts."""
    segment_weight: float = 1.0
    """Of segments with the texts of their spans."""
    in_clip_weight: float = 0.0
    """Of the logistic term that tells a text's segments from the others of their clip."""
    weak_segment_weight: float | None = None
    """Of clips with their global texts again, by late interaction: each sentence of a text with
    the segments that match it best. Segments learn without spans. null: 1 where no text has a span
    and most global texts have several sentences, else 0."""
    weak_pooling: WeakPooling = "softmax"
    """Those segments: the mean of all cosines weighted by their softmax, or the best one, which
    learns late where it learns at all."""
    weak_temperature: float = 0.1
    """Of that softmax; smaller is nearer to the best segment."""
    token_weight: float = 0.0
    """Of clips with their global texts once more, by the words and frames that match best. The
    cache must keep frames and tokens."""
    token_interaction: TokenInteraction = "max"
    """max: words and frames count alike; weighted: by weights that are learnt of each."""
    in_clip_negative_weight: float = 1.0
    """Segment level: of negatives from the same clip."""
    cross_clip_negative_weight: float = 1.0
    """Segment level: of negatives from other clips."""
    temperature: float = 0.07
    """At the start; its inverse, the logit scale, is learnt and stays at or below 100."""
    margin: float = 0.2
    """hinge: how far a positive's cosine is to be ahead of a negative's."""
    hardest_from_epoch: int | None = None
    """hinge: from this epoch on (the first is 1) only the hardest negative counts; null: never."""

    def __post_init__(self) -> None:
        for name in (
            "global_weight",
            "segment_weight",
            "in_clip_weight",
            "weak_segment_weight",
            "token_weight",
            "in_clip_negative_weight",
            "cross_clip_negative_weight",
        ):
            weight = getattr(self, name)
            if weight is not None and not 0 <= weight < math.inf:
                raise ValueError(f"{name} must be >= 0 and finite, got {weight}")
        if self.segment_weight > 0 and not (
            self.in_clip_negative_weight or self.cross_clip_negative_weight
        ):
            raise ValueError(
                "in_clip_negative_weight and cross_clip_negative_weight are both 0: the segment "
                "level has no negatives; to leave it out set segment_weight to 0"
            )
        if self.weak_temperature <= 0:
            raise ValueError(f"weak_temperature must be > 0, got {self.weak_temperature}")
        if self.temperature < 0.01:
            raise ValueError(
                f"temperature must be at least 0.01 (a logit scale of 100), got {self.temperature}"
            )
        if not 0 < self.margin <= 2:
            raise ValueError(f"margin must be in (0, 2], the range of cosines, got {self.margin}")
        if self.hardest_from_epoch is not None and self.hardest_from_epoch < 1:
            raise ValueError(
                f"hardest_from_epoch must be at least 1 or null, got {self.hardest_from_epoch}"
            )

    @property
    def has_segment_term(self) -> bool:
        """Whether a term with a weight teaches the segment level: of spans, of sentences, or of
        frames and words."""
        weights = (self.segment_weight, self.in_clip_weight, self.weak_segment_weight)
        return any(weight is None or weight > 0 for weight in (*weights, self.token_weight))

    @property
    def trains_on_spans(self) -> bool:
        """Whether a term with a weight pairs segments with the texts of their spans."""
        return self.segment_weight > 0 or self.in_clip_weight > 0


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskConfig:
    """Tasks beside the levels: the total has each task's loss times its weight, 0 leaves it out.

    Retrieval needs no task: the levels' own terms are its loss. docs/method.md has the formulas.
    """

    choice_weight: float = 1.0
    """Of multiple-choice questions."""
    answer_weight: float = 1.0
    """Of open-ended questions, by a head that chooses among the training split's answers."""
    moment_weight: float = 1.0
    """Of where texts start and end in their clips, by a head on similarities with segments."""
    items_per_clip: int = 4
    """Questions of a kind, and texts with a moment, that a clip brings to a batch at most."""
    question_spans: QuestionSpans = "ignore"
    """Whether a question that has a span (TVQA) is asked of the segments of its span (use), in
    training, validation and evaluation, or of its whole clip (ignore): only the latter finds its
    place by itself. It holds for the heads of questions, not for scores by similarity."""
    choice_dropout: float = 0.2
    """Share of hidden units of the adapters of multiple choice dropped while training."""
    answers_most_frequent: int | None = None
    """Vocabulary of the answers: that many of the training split's; null takes all."""
    answers_min_count: int = 1
    """Vocabulary of the answers: only those that occur as often in the training split."""
    answer_hidden: int = 96
    """Width of the answers' transformer; a multiple of 4."""
    answer_dropout: float = 0.1
    """Share of its units dropped while training."""

    def __post_init__(self) -> None:
        for name in ("choice_weight", "answer_weight", "moment_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be >= 0 and finite, got {getattr(self, name)}")
        for name in ("items_per_clip", "answers_most_frequent", "answers_min_count"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}")
        if self.answer_hidden < 4 or self.answer_hidden % 4:
            raise ValueError(f"answer_hidden must be a multiple of 4, got {self.answer_hidden}")
        for name in ("choice_dropout", "answer_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")

    @property
    def weights(self) -> dict[TaskName, float]:
        """Of the tasks that are trained."""
        weights: dict[TaskName, float] = {
            "choice": self.choice_weight,
            "answer": self.answer_weight,
            "moment": self.moment_weight,
        }
        return {name: weight for name, weight in weights.items() if weight > 0}
