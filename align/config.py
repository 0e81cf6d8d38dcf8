"""The settings of a run: one tree of frozen dataclasses, standard library only."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from .head_config import HeadsConfig
from .loss_config import LevelsConfig, LossConfig, TaskConfig

ValidationMetric = Literal[
    "mean",
    "recall_at_1",
    "fused_recall_at_1",
    "global_recall_at_1",
    "segment_recall_at_1",
    "token_recall_at_1",
    "choice_accuracy",
    "answer_accuracy",
    "moment_recall_at_1",
]
Precision = Literal["float32", "medium"]
DeviceName = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimiserConfig:
    """AdamW with linear warm-up and cosine decay to zero."""

    epochs: int = 60
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
    max_gradient_norm: float = 100.0
    """The gradients of each level and of each task are scaled down to this norm by themselves, so
    that none takes another's share: a safety net, which few steps should meet."""
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
    """Recall is of text to clip; moments count as found from an IoU of 0.5. recall_at_1: the mean
    of the recalls by the global, the segment and the fused score (at the best of a few weights),
    which is measured alike whichever levels are trained. mean: over recall_at_1, where a level is
    trained, and the accuracies of the trained tasks."""
    every_epochs: int = 1
    """Validate after each that many epochs (and before the first one, and after the last)."""
    patience_epochs: int | None = None
    """Stop after that many epochs without a better metric; null never stops early: the last epochs,
    at a low learning rate, are often the best."""

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
    levels: LevelsConfig = field(default_factory=LevelsConfig)
    """How the global level is made."""
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
        losses, tasks = self.losses, self.tasks
        if not (losses.global_weight > 0 or losses.has_segment_term or tasks.weights):
            raise ValueError("all weights of losses and tasks are 0: nothing to train on")
        if self.heads.video.name == "attention" and self.levels.global_from == "pooled":
            raise ValueError(
                "heads.video.name is attention, which weighs the segments that a clip is made of, "
                "but levels.global_from is pooled: choose parts, or another head"
            )
        for metric, needed, is_trained in (
            ("token_recall_at_1", "losses.token_weight", losses.token_weight > 0),
            ("choice_accuracy", "tasks.choice_weight", tasks.choice_weight > 0),
            ("answer_accuracy", "tasks.answer_weight", tasks.answer_weight > 0),
            ("moment_recall_at_1", "tasks.moment_weight", tasks.moment_weight > 0),
        ):
            if self.validation.metric == metric and not is_trained:
                raise ValueError(
                    f"validation.metric is {metric}, but that is not trained ({needed} is 0)"
                )

    @property
    def trains_segment_level(self) -> bool:
        """Whether a level or task with a weight reads segments one by one."""
        return self.losses.has_segment_term or bool(self.tasks.weights)
