"""The loop over epochs and steps of one run: its model, optimiser, validation and stop."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..data_manifests.core.errors import UserError
from ..extract.cache.split_features import SplitFeatures
from .config import RunConfig
from .data.batches import Batch, epoch_batches, num_batches
from .data.split import TrainingSplit, load_training_split
from .data.task_items import answer_features, vocabulary
from .distributed import broadcast_from_first, num_processes, share_heads
from .model.model import AlignmentModel, build_model, cpu_weights
from .objective.objective import level_losses, loss_terms
from .optimiser import build_optimiser, learning_rate_factor, set_gradients
from .runs.callbacks import Callback, EarlyStopping, StepReport
from .runs.training_state import SavingClock
from .validation.validation import ValidationData, Validator, load_validation_data

PARTS_EVERY_STEPS: Final = 10
"""Steps from one record of segment_in_clip and segment_cross_clip to the next: they cost a second
evaluation of the segment loss, without gradient."""


class NotFiniteError(UserError):
    """The training has diverged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FitResult:
    """What a training leaves behind."""

    model: AlignmentModel
    """With the best weights, in eval mode, on the CPU."""
    last_weights: dict[str, Tensor]
    """The state after the last step, on the CPU."""
    best_epoch: int
    """Epochs behind the best weights; 0 is the state before training."""
    metrics: dict[str, float]
    """Of the validation of the best weights; empty without validation."""
    num_epochs: int
    """Epochs done."""
    num_steps: int
    """Steps done."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingData:
    """The splits of a run, on its device."""

    split: TrainingSplit
    """With the pairs of the terms that have a weight."""
    validation: ValidationData | None
    """None without validation."""


def load_training_data(
    train: SplitFeatures,
    validation: SplitFeatures | None,
    *,
    config: RunConfig,
    device: torch.device,
    answers: Sequence[str],
) -> TrainingData:
    """answers: the vocabulary of open-ended questions. Raises TrainingDataError, TaskDataError."""
    split = load_training_split(train, config=config, device=device, answers=answers)
    data = None
    if validation is not None:
        data = load_validation_data(validation, config=config, answers=answers, device=device)
    return TrainingData(split=split, validation=data)


def untrained_model(config: RunConfig, train: SplitFeatures) -> AlignmentModel:
    """The model before the first step, with the vocabulary of the split when answers are trained.

    Raises SettingsError when there is nothing to train in it.
    """
    answers = vocabulary(train, config.tasks) if config.tasks.answer_weight > 0 else []
    model = build_model(
        config,
        dim_video=train.clip_features.shape[1],
        dim_text=train.text_features.shape[1],
        answers=answers,
    )
    if answers:
        model.answer_features = torch.from_numpy(answer_features(train, answers))
    return model


class Training:
    """All that changes from step to step in a run."""

    def __init__(
        self,
        config: RunConfig,
        model: AlignmentModel,
        data: TrainingData,
    ) -> None:
        """The state before the first step. model: on the device of the data.

        Raises TrainingDataError when the validation split lacks the metric that was asked for.
        """
        self._config = config
        self._model = model
        self._split = data.split
        self._device = data.split.device
        self._validator = None if data.validation is None else Validator(config, data.validation)
        settings = config.optimiser
        self._optimiser = build_optimiser(model, settings)
        self._averaged: AveragedModel | None = None
        """Moving average of the weights; None where they are validated and kept themselves."""
        if settings.ema_decay is not None:
            average = get_ema_multi_avg_fn(settings.ema_decay)  # type: ignore[no-untyped-call]
            self._averaged = AveragedModel(model, multi_avg_fn=average)
        if num_processes() > 1:
            share_heads(model)
        self._steps_per_epoch = num_batches(
            len(self._split.clips), batch_clips=settings.batch_clips
        )
        self._epoch = self._step = 0
        """The current ones; both count from 1."""
        self._stop = False
        self._callbacks: list[Callback] = []

    @property
    def _evaluated_model(self) -> AlignmentModel:
        """The model to validate and keep: the average of the weights, where there is one."""
        if self._averaged is None:
            return self._model
        return cast(AlignmentModel, self._averaged.module)

    def state(self) -> dict[str, Any]:
        """A copy of all that changes, between two epochs."""
        content = {
            "epoch": self._epoch,
            "step": self._step,
            "stop": self._stop,
            "model": self._model.state_dict(),
            "averaged": None if self._averaged is None else self._averaged.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "judge": None if self._validator is None else self._validator.state(),
            "random": torch.get_rng_state(),
        }
        if self._device.type == "cuda":
            content["cuda_random"] = torch.cuda.get_rng_state(self._device)
        return copy.deepcopy(content)

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Resume from a state of the same settings and data."""
        self._epoch, self._step = int(state["epoch"]), int(state["step"])
        self._stop = bool(state["stop"])
        self._model.load_state_dict(state["model"])
        if self._averaged is not None:
            self._averaged.load_state_dict(state["averaged"])
        self._optimiser.load_state_dict(state["optimiser"])
        if self._validator is not None:
            self._validator.load_state(state["judge"])
        torch.set_rng_state(state["random"])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_random"], self._device)

    def run(
        self,
        keep: Callable[[Mapping[str, Any]], None] = lambda state: None,
        *,
        callbacks: Sequence[Callback] = (),
    ) -> FitResult:
        """All epochs that are left; `keep` gets the state after some of them."""
        settings, validation = self._config.optimiser, self._config.validation
        self._callbacks = list(callbacks)
        if self._validator is not None and validation.patience_epochs is not None:
            self._callbacks.append(EarlyStopping(patience_epochs=validation.patience_epochs))
        clock = SavingClock()
        if self._epoch == 0:
            self._validate()
        while not self._stop and self._epoch < settings.epochs:
            self._epoch += 1
            for batch in epoch_batches(
                self._split,
                batch_clips=settings.batch_clips,
                seed=self._config.seed,
                epoch=self._epoch,
            ):
                self._step += 1
                learning_rate = self._set_learning_rate()
                self._report(self._take_step(batch), learning_rate)
            if self._epoch % validation.every_epochs == 0 or self._epoch == settings.epochs:
                self._validate()
            if clock.is_due():
                keep(self.state())
                clock.restart()
        return self._result()

    def _set_learning_rate(self) -> float:
        """The learning rate of this step, which the optimiser has from now on."""
        settings = self._config.optimiser
        learning_rate = settings.learning_rate * learning_rate_factor(
            self._step,
            warmup_steps=settings.warmup_epochs * self._steps_per_epoch,
            num_steps=settings.epochs * self._steps_per_epoch,
        )
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate
        return learning_rate

    def _report(self, numbers: dict[str, float], learning_rate: float) -> None:
        """Report a step to the callbacks. Raises NotFiniteError."""
        self._check_finite(numbers)
        report = StepReport(
            epoch=self._epoch,
            step=self._step,
            num_steps=self._config.optimiser.epochs * self._steps_per_epoch,
            learning_rate=learning_rate,
            numbers=numbers,
        )
        for callback in self._callbacks:
            callback.on_step(report)

    def _check_finite(self, numbers: Mapping[str, float]) -> None:
        """Raise NotFiniteError, naming the first term that is at fault rather than the total."""
        bad = [name for name, number in numbers.items() if not math.isfinite(number)]
        if bad:
            name = next((name for name in bad if name != "loss"), "loss")
            raise NotFiniteError(
                f"step {self._step} (epoch {self._epoch}): {name} is {numbers[name]}. Try a lower "
                f"optimiser.learning_rate or a longer optimiser.warmup_epochs"
            )

    def _take_step(self, batch: Batch) -> dict[str, float]:
        """One step of the optimiser; the loss and its terms, the logit scales, and the norm of the
        gradient of each level and task before clipping.

        The two parts of the segment term are there in the first and then in every
        PARTS_EVERY_STEPS-th step.
        """
        model = self._model
        terms = loss_terms(
            model,
            self._split,
            batch,
            config=self._config,
            epoch=self._epoch,
            with_parts=self._step % PARTS_EVERY_STEPS == 1,
        )
        losses = level_losses(terms, self._config)
        loss = torch.stack(list(losses.values())).sum()
        values = {"loss": loss, **terms}
        values["logit_scale"] = model.of_global.scale.value
        if model.has_two_pairs:
            values["segment_logit_scale"] = model.of_segments.scale.value
        norms = set_gradients(model, losses, max_norm=self._config.optimiser.max_gradient_norm)
        values |= {f"gradient_norm_{level}": norm for level, norm in norms.items()}
        self._optimiser.step()
        model.clamp_logit_scales()
        if self._averaged is not None:
            self._averaged.update_parameters(model)
        # One transfer for all numbers: on a GPU each costs a wait.
        numbers: list[float] = torch.stack([value.detach() for value in values.values()]).tolist()
        return dict(zip(values, numbers, strict=True))

    def _validate(self) -> None:
        if self._validator is not None:
            stop = self._validator.validate(
                self._evaluated_model, epoch=self._epoch, step=self._step, callbacks=self._callbacks
            )
            self._stop = broadcast_from_first(stop, self._device)

    def _result(self) -> FitResult:
        """The result of a run that is over."""
        validator, model = self._validator, self._evaluated_model
        last_weights = cpu_weights(model)
        if validator is not None:
            model.load_state_dict(validator.best_weights)
        return FitResult(
            model=model.cpu().eval(),
            last_weights=last_weights,
            best_epoch=self._epoch if validator is None else validator.best_epoch,
            metrics={} if validator is None else validator.best_metrics,
            num_epochs=self._epoch,
            num_steps=self._step,
        )
