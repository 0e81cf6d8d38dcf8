"""The numbers that choose a run's weights, and the best weights so far."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from ...extract.cache.split_features import SplitFeatures
from ..config import RunConfig
from ..data.split import TrainingDataError
from ..model.model import AlignmentModel, cpu_weights
from ..runs.callbacks import Callback, ValidationReport
from .recall import ValidationSplit, load_validation_split, validate
from .tasks import (
    TASK_METRICS,
    TaskValidation,
    load_task_validation,
    task_metrics,
)

# N = clips, S = segments, Q = queries, R = sentences of the queries

REQUIRED_DATA: Final = {
    "recall_at_1": "texts",
    "fused_recall_at_1": "texts without a span",
    "global_recall_at_1": "texts without a span",
    "segment_recall_at_1": "texts",
    "token_recall_at_1": "texts without a span",
    "choice_accuracy": "multiple-choice questions with known answers",
    "answer_accuracy": "open-ended questions with answers of the vocabulary",
    "moment_recall_at_1": "texts with a span",
}
"""What a split must have to give a metric."""


def measured_metrics(levels: ValidationSplit, tasks: TaskValidation | None) -> list[str]:
    """The metrics that a split can give."""
    names = []
    if levels.queries is not None:
        names += ["global_recall_at_1", "fused_recall_at_1"]
        names += [] if levels.tokens is None else ["token_recall_at_1"]
    if levels.queries is not None or levels.segment_queries is not None:
        names += ["segment_recall_at_1", "recall_at_1"]
    return names + ([] if tasks is None else [TASK_METRICS[task] for task in tasks.items.by_clip])


def score_metrics(measured: Collection[str], config: RunConfig) -> tuple[str, ...]:
    """The metrics whose mean chooses the weights, of those that the split can give.

    Raises TrainingDataError when it cannot give the one that was asked for, or none of them.
    """
    metric = config.validation.metric
    wanted: list[str] = [metric]
    if metric == "mean":
        losses = config.losses
        is_trained = losses.global_weight > 0 or losses.has_segment_term
        levels = ["recall_at_1"] if is_trained else []
        wanted = levels + [TASK_METRICS[task] for task in config.tasks.weights]
    names = tuple(name for name in wanted if name in measured)
    if not names:
        needed = "; ".join(f"{REQUIRED_DATA[name]} for {name}" for name in wanted)
        raise TrainingDataError(
            f"the validation split lacks {needed}: choose another validation.metric or "
            f"data.validation_split, or null to train without validation"
        )
    return names


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationData:
    """A validation split for the levels and for the tasks."""

    levels: ValidationSplit
    """Queries of both."""
    tasks: TaskValidation | None
    """None where no task is trained, or the split has nothing for those that are."""


def load_validation_data(
    split: SplitFeatures, *, config: RunConfig, answers: Sequence[str], device: torch.device
) -> ValidationData:
    """Put a split on the device. answers: the vocabulary of open-ended questions.

    Raises TrainingDataError when its features are not finite.
    """
    return ValidationData(
        levels=load_validation_split(
            split, device=device, with_tokens=config.losses.token_weight > 0
        ),
        tasks=load_task_validation(split, config=config.tasks, answers=answers, device=device),
    )


class Validator:
    """Validates, and keeps the first weights that reached the highest score."""

    def __init__(self, config: RunConfig, split: ValidationData) -> None:
        """Raises TrainingDataError when the split cannot give the metric that was asked for."""
        self._split, self._tasks = split.levels, split.tasks
        self._names = score_metrics(measured_metrics(self._split, self._tasks), config)
        self._num_epochs = config.optimiser.epochs
        self._best_score = -math.inf
        self.best_epoch = 0
        self.best_metrics: dict[str, float] = {}
        self.best_weights: dict[str, Tensor] = {}

    def state(self) -> dict[str, Any]:
        """What the best so far is, as numbers, dicts and tensors."""
        return {
            "score": self._best_score,
            "epoch": self.best_epoch,
            "metrics": dict(self.best_metrics),
            "weights": dict(self.best_weights),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self._best_score, self.best_epoch = float(state["score"]), int(state["epoch"])
        self.best_metrics, self.best_weights = dict(state["metrics"]), dict(state["weights"])

    def validate(
        self, model: AlignmentModel, *, epoch: int, step: int, callbacks: Sequence[Callback]
    ) -> bool:
        """Measure, remember, call the callbacks; True when one of them asks to stop."""
        metrics = validate(model, self._split)
        if self._tasks is not None:
            metrics |= task_metrics(model, self._tasks)
        score = sum(metrics[name] for name in self._names) / len(self._names)
        if score > self._best_score:
            self._best_score, self.best_epoch, self.best_metrics = score, epoch, metrics
            self.best_weights = cpu_weights(model)
        report = ValidationReport(
            epoch=epoch,
            num_epochs=self._num_epochs,
            step=step,
            metrics=metrics,
            score=score,
            best_epoch=self.best_epoch,
        )
        return any([callback.on_validation(report) for callback in callbacks])
