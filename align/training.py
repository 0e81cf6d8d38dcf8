"""One run while it is trained: its model, its numbers, the best it has been, when it ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..data_manifests.errors import UserError
from ..extract.store import SplitFeatures
from .batches import Batch, epoch_clips, make_batch, num_batches
from .callbacks import Callback, EarlyStopping, StepReport
from .config import RunConfig
from .model import AlignmentModel, build_model, cpu_weights
from .objective import loss_terms
from .optimiser import build_optimiser, learning_rate_factor
from .processes import agreed, average_gradients, num_processes, share_heads
from .task_items import answer_features, vocabulary
from .training_split import TrainingSplit, load_training_split
from .training_state import SavingClock
from .validation import Judge, JudgedSplit, load_judged_split


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
    """What a run is trained and judged on, on its device."""

    split: TrainingSplit
    """With the pairs of the terms that have a weight."""
    judged: JudgedSplit | None
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
    judged = None
    if validation is not None:
        judged = load_judged_split(validation, config=config, answers=answers, device=device)
    return TrainingData(split=split, judged=judged)


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
    """All that changes from step to step in a run.

    `run` trains it alone. Whoever trains several at once takes the steps, and tells each of them:
    `begin`, and for every epoch `begin_epoch`, of every step `next_learning_rate` and `report`,
    and `end_epoch`.
    """

    def __init__(
        self,
        config: RunConfig,
        model: AlignmentModel,
        data: TrainingData,
        *,
        callbacks: Sequence[Callback],
    ) -> None:
        """The state before the first step. model: on the device of the data.

        Raises TrainingDataError when the validation split lacks the metric that was asked for.
        """
        self.config = config
        self.model = model
        self.split = data.split
        self._device = data.split.device
        self._judge = None if data.judged is None else Judge(config, data.judged)
        settings = config.optimiser
        self.optimiser = build_optimiser(model, settings)
        self.averaged: AveragedModel | None = None
        """Of the weights, where their average is judged and kept."""
        if settings.ema_decay is not None:
            average = get_ema_multi_avg_fn(settings.ema_decay)  # type: ignore[no-untyped-call]
            self.averaged = AveragedModel(model, multi_avg_fn=average)
        if num_processes() > 1:
            share_heads(model)
        self._steps_per_epoch = num_batches(len(self.split.clips), batch_clips=settings.batch_clips)
        self.epoch = self.step = 0
        """Those that were begun; both count from 1."""
        self._stop = False
        self._watchers = list(callbacks)
        if self._judge is not None and config.validation.patience_epochs is not None:
            patience = config.validation.patience_epochs
            self._watchers.append(EarlyStopping(patience_epochs=patience))

    @property
    def is_over(self) -> bool:
        """Whether no epoch is left, or a watcher has asked to stop."""
        return self._stop or self.epoch >= self.config.optimiser.epochs

    @property
    def _shown(self) -> AlignmentModel:
        """The model that is judged and kept: the average of the weights, where there is one."""
        return self.model if self.averaged is None else cast(AlignmentModel, self.averaged.module)

    def state(self) -> dict[str, Any]:
        """A copy of all that changes, between two epochs."""
        content = {
            "epoch": self.epoch,
            "step": self.step,
            "stop": self._stop,
            "model": self.model.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "judge": None if self._judge is None else self._judge.state(),
            "random": torch.get_rng_state(),
        }
        if self._device.type == "cuda":
            content["cuda_random"] = torch.cuda.get_rng_state(self._device)
        return {name: _copied(value) for name, value in content.items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of the same settings and data."""
        self.epoch, self.step = int(state["epoch"]), int(state["step"])
        self._stop = bool(state["stop"])
        self.model.load_state_dict(state["model"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self._judge is not None:
            self._judge.load_state(state["judge"])
        torch.set_rng_state(state["random"])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_random"], self._device)

    def run(self, keep: Callable[[Mapping[str, Any]], None]) -> FitResult:
        """All epochs that are left; `keep` gets the state after some of them."""
        self.begin()
        clock = SavingClock()
        while not self.is_over:
            for clips, rng in self.begin_epoch():
                learning_rate = self.next_learning_rate()
                for group in self.optimiser.param_groups:
                    group["lr"] = learning_rate
                self.report(self._take_step(make_batch(self.split, clips, rng=rng)), learning_rate)
            self.end_epoch()
            if clock.is_due():
                keep(self.state())
                clock.restart()
        return self.result()

    def begin(self) -> None:
        """Before the first epoch, and before the first one of a run that goes on."""
        if self.epoch == 0:
            self._validate()

    def begin_epoch(self) -> Iterator[tuple[np.ndarray, np.random.Generator]]:
        """The clips of each of its batches, and the generator that draws what they bring to it."""
        self.epoch += 1
        return epoch_clips(
            self.split,
            batch_clips=self.config.optimiser.batch_clips,
            seed=self.config.seed,
            epoch=self.epoch,
        )

    def next_learning_rate(self) -> float:
        """Begin a step; the rate that it is to use."""
        self.step += 1
        settings = self.config.optimiser
        return settings.learning_rate * learning_rate_factor(
            self.step,
            warmup_steps=settings.warmup_epochs * self._steps_per_epoch,
            num_steps=settings.epochs * self._steps_per_epoch,
        )

    def report(self, numbers: dict[str, float], learning_rate: float) -> None:
        """End a step: tell the watchers. Raises NotFiniteError."""
        self._check_finite(numbers)
        report = StepReport(
            epoch=self.epoch,
            step=self.step,
            num_steps=self.config.optimiser.epochs * self._steps_per_epoch,
            learning_rate=learning_rate,
            numbers=numbers,
        )
        for watcher in self._watchers:
            watcher.on_step(report)

    def end_epoch(self) -> None:
        """Validate, where that is due."""
        is_last = self.epoch == self.config.optimiser.epochs
        if self.epoch % self.config.validation.every_epochs == 0 or is_last:
            self._validate()

    def _check_finite(self, numbers: Mapping[str, float]) -> None:
        """Raise NotFiniteError, naming the first term that is at fault rather than the total."""
        bad = [name for name, number in numbers.items() if not math.isfinite(number)]
        if bad:
            name = next((name for name in bad if name != "loss"), "loss")
            raise NotFiniteError(
                f"step {self.step} (epoch {self.epoch}): {name} is {numbers[name]}. Try a lower "
                f"optimiser.learning_rate or a longer optimiser.warmup_epochs"
            )

    def _take_step(self, batch: Batch) -> dict[str, float]:
        """One step of the optimiser; the loss terms, the logit scale, the norm before clipping."""
        model = self.model
        values = loss_terms(model, self.split, batch, config=self.config, epoch=self.epoch)
        values["logit_scale"] = model.logit_scale
        self.optimiser.zero_grad()
        torch.autograd.backward(values["loss"])
        average_gradients(model)
        values["gradient_norm"] = nn.utils.clip_grad_norm_(
            model.parameters(), self.config.optimiser.max_gradient_norm
        )
        self.optimiser.step()
        model.clamp_logit_scale()
        if self.averaged is not None:
            self.averaged.update_parameters(model)
        # One transfer for all numbers: on a GPU each costs a wait.
        numbers: list[float] = torch.stack([value.detach() for value in values.values()]).tolist()
        return dict(zip(values, numbers, strict=True))

    def _validate(self) -> None:
        if self._judge is not None:
            stop = self._judge.validate(
                self._shown, epoch=self.epoch, step=self.step, watchers=self._watchers
            )
            self._stop = agreed(stop, self._device)

    def result(self) -> FitResult:
        """What is left of a run that is over."""
        judge, model = self._judge, self._shown
        last_weights = cpu_weights(model)
        if judge is not None:
            model.load_state_dict(judge.best_weights)
        return FitResult(
            model=model.cpu().eval(),
            last_weights=last_weights,
            best_epoch=self.epoch if judge is None else judge.best_epoch,
            metrics={} if judge is None else judge.best_metrics,
            num_epochs=self.epoch,
            num_steps=self.step,
        )


def _copied(value: Any) -> Any:
    """A copy of tensors in dicts and lists. (`copy.deepcopy` would copy, for a tensor that is part
    of a larger one, the whole of that.)"""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {name: _copied(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(item) for item in value)
    return value
