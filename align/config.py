"""The settings of a run: one tree of frozen dataclasses, standard library only."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

HeadName = Literal["identity", "linear", "mlp", "residual", "temporal", "attention"]
CLIP_HEADS: tuple[HeadName, ...] = ("temporal", "attention")
"""Those that see the segments of a clip together."""
LossName = Literal["info_nce", "sigmoid", "hinge"]
WeakPooling = Literal["max", "softmax"]
TokenInteraction = Literal["max", "weighted"]
ValidationMetric = Literal[
    "mean",
    "global_recall_at_1",
    "segment_recall_at_1",
    "token_recall_at_1",
    "choice_accuracy",
    "answer_accuracy",
    "moment_recall_at_1",
]
TaskName = Literal["choice", "answer", "moment"]
Precision = Literal["float32", "medium"]
DeviceName = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadConfig:
    """What stands between a cached feature and the shared space."""

    name: HeadName = "residual"
    """identity (nothing trained), linear, mlp, or residual (starts as the identity, exactly). For
    videos also temporal (a transformer over the segments of a clip) and attention (residual, and
    the clip gets its segments, pooled by attention), which start as the identity, too."""
    width: int | None = None
    """Width of the shared space; null keeps the feature width. Equal for video and text."""
    hidden: int | None = None
    """Hidden width of all but identity and linear; null takes the feature width."""
    layers: int = 1
    """temporal: layers of the transformer."""
    dropout: float = 0.0
    """Share of hidden units dropped while training, in [0, 1)."""
    alpha: float = 1.0
    """Of residual, temporal, attention: weight of what is added, in units of the feature's norm."""

    def __post_init__(self) -> None:
        for name, value in (("width", self.width), ("hidden", self.hidden)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1 or null, got {value}")
        if self.layers < 1:
            raise ValueError(f"layers must be at least 1, got {self.layers}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        if self.alpha <= 0:
            raise ValueError(f"alpha must be > 0, got {self.alpha}")


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadsConfig:
    """One head for videos and one for texts, or one of each for each level."""

    video: HeadConfig = field(default_factory=HeadConfig)
    """Of clip and segment features."""
    text: HeadConfig = field(default_factory=HeadConfig)
    """Of text features."""
    separate_levels: bool = False
    """Whether clips and segments, and the texts of the two levels, have heads of their own, made
    alike. By default both levels share theirs."""

    def __post_init__(self) -> None:
        if self.text.name in CLIP_HEADS:
            raise ValueError(
                f"text.name is {self.text.name}, which looks at the segments of a clip, and texts "
                f"have none: choose identity, linear, mlp or residual"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class LossConfig:
    """The total is the sum of the terms, each times its weight; a term without weight is left out.

    docs/method.md has the formulas.
    """

    name: LossName = "info_nce"
    """How a term makes one number of its pairs: info_nce (a softmax over the batch), sigmoid (each
    pair a yes or a no, with a learnt bias), or hinge (a margin between cosines)."""
    global_weight: float = 1.0
    """Of whole clips with their global texts."""
    segment_weight: float = 1.0
    """Of segments with the texts of their spans."""
    in_clip_weight: float = 0.0
    """Of the logistic term that tells a text's segments from the others of their clip."""
    weak_segment_weight: float = 0.0
    """Of clips with their global texts again, by the segments that match a text best: segments
    learn without spans."""
    weak_pooling: WeakPooling = "max"
    """Those segments: the best one, or the mean of all cosines weighted by their softmax."""
    weak_temperature: float = 0.07
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
    overlap_iou: float = 0.3
    """Segments that overlap a text's span by more than this are no negatives of that text."""
    temperature: float = 0.07
    """At the start; its inverse, the logit scale, is learnt and stays at or below 100."""
    margin: float = 0.2
    """hinge: how far a positive's cosine is to be ahead of a negative's."""
    hardest_from_epoch: int | None = None
    """hinge: from this epoch on (the first is 1) only the hardest negative counts; null: never."""

    def __post_init__(self) -> None:
        weights = ("global_weight", "segment_weight", "in_clip_weight", "weak_segment_weight")
        for name in (
            *weights,
            "token_weight",
            "in_clip_negative_weight",
            "cross_clip_negative_weight",
        ):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be >= 0 and finite, got {getattr(self, name)}")
        if self.segment_weight > 0 and not (
            self.in_clip_negative_weight or self.cross_clip_negative_weight
        ):
            raise ValueError(
                "in_clip_negative_weight and cross_clip_negative_weight are both 0: the segment "
                "level has no negatives; to leave it out set segment_weight to 0"
            )
        if not 0 <= self.overlap_iou <= 1:
            raise ValueError(f"overlap_iou must be in [0, 1], got {self.overlap_iou}")
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
    def trains_on_global_texts(self) -> bool:
        """Whether a term with a weight pairs whole clips with their texts."""
        return self.global_weight > 0 or self.weak_segment_weight > 0

    @property
    def trains_on_segment_texts(self) -> bool:
        """Whether a term with a weight pairs segments with the texts of their spans."""
        return self.segment_weight > 0 or self.in_clip_weight > 0


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskConfig:
    """Tasks beside the levels: the total has each task's loss times its weight, 0 leaves it out.

    Retrieval needs no task: the levels' own terms are its loss. docs/method.md has the formulas.
    """

    choice_weight: float = 0.0
    """Of multiple-choice questions."""
    answer_weight: float = 0.0
    """Of open-ended questions, by a head that chooses among the training split's answers."""
    moment_weight: float = 0.0
    """Of where texts start and end in their clips, by a head on similarities with segments."""
    items_per_clip: int = 4
    """Questions of a kind, and texts with a moment, that a clip brings to a batch at most."""
    choice_global_weight: float = 0.5
    """a in a * global + (1 - a) * segment, the score of an option while training."""
    answers_most_frequent: int | None = None
    """Vocabulary of the answers: that many of the training split's; null takes all."""
    answers_min_count: int = 1
    """Vocabulary of the answers: only those that occur as often in the training split."""
    answer_hidden: int | None = None
    """Hidden width of the answers' head; null takes the width of the shared space."""
    answer_dropout: float = 0.0
    """Share of its hidden units dropped while training, in [0, 1)."""

    def __post_init__(self) -> None:
        for name in ("choice_weight", "answer_weight", "moment_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be >= 0 and finite, got {getattr(self, name)}")
        for name in ("items_per_clip", "answers_most_frequent", "answers_min_count"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}")
        if self.answer_hidden is not None and self.answer_hidden < 1:
            raise ValueError(f"answer_hidden must be at least 1 or null, got {self.answer_hidden}")
        if not 0 <= self.choice_global_weight <= 1:
            raise ValueError(
                f"choice_global_weight must be in [0, 1], got {self.choice_global_weight}"
            )
        if not 0 <= self.answer_dropout < 1:
            raise ValueError(f"answer_dropout must be in [0, 1), got {self.answer_dropout}")

    @property
    def weights(self) -> dict[TaskName, float]:
        """Of the tasks that are trained."""
        weights: dict[TaskName, float] = {
            "choice": self.choice_weight,
            "answer": self.answer_weight,
            "moment": self.moment_weight,
        }
        return {name: weight for name, weight in weights.items() if weight > 0}


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimiserConfig:
    """AdamW with linear warm-up and cosine decay to zero."""

    epochs: int = 30
    """Passes over the clips of the training split, at most (see validation.patience_epochs)."""
    batch_clips: int = 128
    """Clips in a batch; each brings some of its global texts and all its segments and their texts.
    Batches are made equal, so they may be a little smaller."""
    texts_per_clip: int = 1
    """Global texts that a clip brings to a batch at most, drawn anew each time. Several at once
    share the encoding of their clip, and an epoch shows so many more of them."""
    learning_rate: float = 1e-3
    """At the end of the warm-up."""
    weight_decay: float = 0.05
    """Of weight matrices only: never of biases, norms and the logit scale."""
    warmup_epochs: float = 1.0
    """Length of the linear warm-up, in epochs."""
    max_gradient_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    ema_decay: float | None = None
    """Validate and keep an exponential moving average of the weights, that decays so much with each
    step (0.99 looks back about a hundred steps); null: the weights themselves."""

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs must be at least 1, got {self.epochs}")
        if self.batch_clips < 2:
            raise ValueError(
                f"batch_clips must be at least 2 (a clip's negatives are the others in its "
                f"batch), got {self.batch_clips}"
            )
        if self.texts_per_clip < 1:
            raise ValueError(f"texts_per_clip must be at least 1, got {self.texts_per_clip}")
        for name, value in (
            ("learning_rate", self.learning_rate),
            ("max_gradient_norm", self.max_gradient_norm),
        ):
            if value <= 0:
                raise ValueError(f"{name} must be > 0, got {value}")
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be in [0, 1) or null, got {self.ema_decay}")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay must be >= 0, got {self.weight_decay}")
        if not 0 <= self.warmup_epochs <= self.epochs:
            raise ValueError(
                f"warmup_epochs must be between 0 and epochs ({self.epochs}), "
                f"got {self.warmup_epochs}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationConfig:
    """Which number chooses the weights that are kept. Test data never does."""

    metric: ValidationMetric = "mean"
    """Recall is of text to clip, by level; moments count as found from an IoU of 0.5. mean: over
    the levels and tasks that are trained and that the validation split has queries for."""
    every_epochs: int = 1
    """Validate after each that many epochs (and before the first one, and after the last)."""
    patience_epochs: int | None = 10
    """Stop after that many epochs without a better metric; null never stops early."""

    def __post_init__(self) -> None:
        if self.every_epochs < 1:
            raise ValueError(f"every_epochs must be at least 1, got {self.every_epochs}")
        if self.patience_epochs is not None and self.patience_epochs < 1:
            raise ValueError(
                f"patience_epochs must be at least 1 or null, got {self.patience_epochs}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Which part of the cache is used for what."""

    train_split: str = "train"
    """Trained on."""
    validation_split: str | None = "val"
    """Chooses the weights; null trains all epochs and keeps the last weights."""
    segments: str | None = None
    """Rule of the segments, as named in the cache; null takes the cache's first one."""
    frames_per_clip: int = 64
    """Token level: frames of a clip at most, evenly spread over a longer one. At one frame a second
    that is all of a minute; the time of a step and the memory grow with it."""
    partial_clips: Literal["include", "leave_out"] = "include"
    """Clips whose video was cut short: they have features of what there was."""
    memory_gib: float | None = None
    """GiB of memory that the features of a run may take: larger ones are read through a memory map
    of a file, with the same numbers. null: what is free, less what reading them takes."""

    def __post_init__(self) -> None:
        if self.frames_per_clip < 1:
            raise ValueError(f"frames_per_clip must be at least 1, got {self.frames_per_clip}")
        if self.memory_gib is not None and not 0 <= self.memory_gib < math.inf:
            raise ValueError(f"memory_gib must be >= 0 and finite, got {self.memory_gib}")
        if self.train_split == self.validation_split:
            raise ValueError(
                f"validation_split must not be the training split ({self.train_split!r}): use "
                f"another split, or null to train without validation"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """One training: heads on the frozen features of a cache."""

    heads: HeadsConfig = field(default_factory=HeadsConfig)
    """What is trained."""
    losses: LossConfig = field(default_factory=LossConfig)
    """On which levels."""
    tasks: TaskConfig = field(default_factory=TaskConfig)
    """And on which tasks."""
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    """How."""
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    """What is best."""
    data: DataConfig = field(default_factory=DataConfig)
    """On what."""
    seed: int = 0
    """Of the first weights, the order of the clips, the choice of texts, and dropout."""
    precision: Precision = "float32"
    """Of matrix products: float32, or medium, which multiplies in bfloat16 where the hardware does
    so natively, and adds up in float32: faster there, with other last digits."""
    device: DeviceName = "auto"
    """auto takes a GPU when there is one."""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed must be >= 0, got {self.seed}")
        if not (
            self.losses.trains_on_global_texts
            or self.losses.trains_on_segment_texts
            or self.losses.token_weight > 0
            or self.tasks.weights
        ):
            raise ValueError("all weights of losses and tasks are 0: nothing to train on")
        for metric, needed, is_trained in (
            ("global_recall_at_1", "losses.global_weight", self.losses.trains_on_global_texts),
            ("segment_recall_at_1", "losses.segment_weight", self.losses.trains_on_segment_texts),
            ("token_recall_at_1", "losses.token_weight", self.losses.token_weight > 0),
            ("choice_accuracy", "tasks.choice_weight", self.tasks.choice_weight > 0),
            ("answer_accuracy", "tasks.answer_weight", self.tasks.answer_weight > 0),
            ("moment_recall_at_1", "tasks.moment_weight", self.tasks.moment_weight > 0),
        ):
            if self.validation.metric == metric and not is_trained:
                raise ValueError(
                    f"validation.metric is {metric}, but that is not trained ({needed} is 0)"
                )
