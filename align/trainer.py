"""The training: from the features of a cache to the heads of a run."""

from __future__ import annotations

import copy
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..data_manifests.errors import SettingsError, UserError
from ..extract.store import FeatureStore, SplitFeatures
from .batches import Batch, epoch_batches, load_training_split, num_batches
from .callbacks import (
    Callback,
    EarlyStopping,
    MetricsWriter,
    ProgressBar,
    StepReport,
)
from .checkpoint import RunSummary, begin_run, finish_run, refuse_finished_run
from .config import DeviceName, Precision, RunConfig
from .events import EventsWriter
from .model import AlignmentModel, build_model, cpu_weights
from .objective import loss_terms
from .optimiser import build_optimiser, learning_rate_factor
from .processes import (
    agreed,
    average_gradients,
    is_first_process,
    num_processes,
    share_heads,
    wait_for_all,
)
from .split_memory import splits_of_run
from .task_items import answer_features, vocabulary
from .training_state import SavedState, drop_state, load_state, save_state
from .validation import Judge, load_judged_split

MATMUL_PRECISION: Final[Mapping[Precision, str]] = {"float32": "highest", "medium": "medium"}
SAVE_EVERY_SECONDS: Final = 10.0
"""Between two savings of the state, so that short epochs do not spend their time on it."""


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


def align(cache: Path, out: Path, config: RunConfig) -> RunSummary:
    """Train the heads that `config` describes on the features of a cache; leave a run folder.

    An unfinished run of the same settings in `out` is finished, with the numbers that it would have
    had. Raises CacheError (no such cache, split or rule), SettingsError, TrainingDataError,
    NotFiniteError, and RunError when `out` already holds a finished run, or an unfinished one of
    other settings or of another cache.
    """
    refuse_finished_run(out)
    with splits_of_run(FeatureStore.open(cache), config.data, out) as (train, validation):
        return align_on(out, config, train=train, validation=validation)


def align_on(
    out: Path,
    config: RunConfig,
    *,
    train: SplitFeatures,
    validation: SplitFeatures | None,
    quiet: bool = False,
) -> RunSummary:
    """`align` on splits that are there already. quiet: without progress on stderr.

    Of several processes the first one writes.
    """
    started = time.perf_counter()
    refuse_finished_run(out)
    saved = load_state(out, config, cache_key=train.cache_key)
    wait_for_all()  # before the first one writes
    before = saved.wall_seconds if saved else 0.0
    if is_first_process():
        result = _fit_into(
            out, config, train=train, validation=validation, saved=saved, quiet=quiet
        )
    else:
        resume_from = saved.training if saved else None
        result = fit(config, train=train, validation=validation, resume_from=resume_from)
    summary = RunSummary(
        path=out,
        cache_key=train.cache_key,
        feature_width=train.clip_features.shape[1],
        text_feature_width=train.text_features.shape[1],
        segment_rule=train.segment_rule,
        num_train_clips=len(train.clip_ids),
        num_failed_clips=train.num_failed_clips,
        num_partial_clips=train.num_partial_clips,
        leaves_out_partial_clips=config.data.partial_clips == "leave_out",
        num_validation_clips=0 if validation is None else len(validation.clip_ids),
        best_epoch=result.best_epoch,
        num_epochs=result.num_epochs,
        num_steps=result.num_steps,
        num_parameters=sum(parameter.numel() for parameter in result.model.parameters()),
        metrics=result.metrics,
        logit_scale=result.model.logit_scale.item(),
        wall_seconds=before + time.perf_counter() - started,
    )
    if is_first_process():
        finish_run(out, model=result.model, last_weights=result.last_weights, summary=summary)
        drop_state(out)
    return summary


def _fit_into(
    out: Path,
    config: RunConfig,
    *,
    train: SplitFeatures,
    validation: SplitFeatures | None,
    saved: SavedState | None,
    quiet: bool,
) -> FitResult:
    """`fit`, with its numbers, events and states in the run folder."""
    started = time.perf_counter()
    before = saved.wall_seconds if saved else 0.0
    with (
        begin_run(out, config, metrics_bytes=saved.metrics_bytes if saved else 0) as metrics_file,
        EventsWriter(out, first_step=int(saved.training["step"]) + 1 if saved else 1) as events,
    ):
        progress = ProgressBar(sys.stderr, label=out.name)
        watchers: list[Callback] = [MetricsWriter(metrics_file), events]
        watchers += [] if quiet else [progress]

        def keep(training: Mapping[str, Any]) -> None:
            metrics_file.flush()
            state = SavedState(
                training=training,
                cache_key=train.cache_key,
                metrics_bytes=metrics_file.tell(),
                wall_seconds=before + time.perf_counter() - started,
            )
            save_state(out, state)

        try:
            return fit(
                config,
                train=train,
                validation=validation,
                callbacks=watchers,
                resume_from=saved.training if saved else None,
                keep=keep,
            )
        finally:
            progress.close()


def fit(
    config: RunConfig,
    *,
    train: SplitFeatures,
    validation: SplitFeatures | None,
    callbacks: Sequence[Callback] = (),
    resume_from: Mapping[str, Any] | None = None,
    keep: Callable[[Mapping[str, Any]], None] = lambda state: None,
) -> FitResult:
    """Train on one split and keep the weights that are best on another (the last without one).

    resume_from: a state that `keep` was given by a training of the same arguments; it goes on from
    there, with the same numbers on one machine and number of threads as if it had never stopped.
    Changes no global state. Raises SettingsError, TrainingDataError, NotFiniteError.
    """
    device = _device(config.device)
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        _matmul_precision(config.precision),
    ):
        torch.manual_seed(config.seed)
        training = Training(config, train=train, validation=validation, device=device)
        if resume_from is not None:
            training.load_state(resume_from)
        return training.run(callbacks, keep)


class Training:
    """All that changes from step to step, and what it is trained on."""

    def __init__(
        self,
        config: RunConfig,
        *,
        train: SplitFeatures,
        validation: SplitFeatures | None,
        device: torch.device,
    ) -> None:
        """The state before the first step. Raises SettingsError, TrainingDataError."""
        self._config = config
        self._device = device
        self._model = untrained_model(config, train).to(device)
        answers = self._model.answers
        self._split = load_training_split(train, config=config, device=device, answers=answers)
        self._judge = None
        if validation is not None:
            judged = load_judged_split(validation, config=config, answers=answers, device=device)
            self._judge = Judge(config, judged)
        settings = config.optimiser
        self._optimiser = build_optimiser(self._model, settings)
        self._averaged: AveragedModel | None = None
        if settings.ema_decay is not None:
            average = get_ema_multi_avg_fn(settings.ema_decay)  # type: ignore[no-untyped-call]
            self._averaged = AveragedModel(self._model, multi_avg_fn=average)
        if num_processes() > 1:
            share_heads(self._model)
        self._steps_per_epoch = num_batches(
            len(self._split.clips), batch_clips=settings.batch_clips
        )
        self._epoch = self._step = 0
        self._stop = False

    @property
    def _shown(self) -> AlignmentModel:
        """The model that is judged and kept: the average of the weights, where there is one."""
        return (
            self._model if self._averaged is None else cast(AlignmentModel, self._averaged.module)
        )

    def state(self) -> dict[str, Any]:
        """A copy of all that changes, between two epochs."""
        content = {
            "epoch": self._epoch,
            "step": self._step,
            "stop": self._stop,
            "model": self._model.state_dict(),
            "averaged": None if self._averaged is None else self._averaged.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "judge": None if self._judge is None else self._judge.state(),
            "random": torch.get_rng_state(),
        }
        if self._device.type == "cuda":
            content["cuda_random"] = torch.cuda.get_rng_state(self._device)
        return copy.deepcopy(content)

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of the same settings and data."""
        self._epoch, self._step = int(state["epoch"]), int(state["step"])
        self._stop = bool(state["stop"])
        self._model.load_state_dict(state["model"])
        if self._averaged is not None:
            self._averaged.load_state_dict(state["averaged"])
        self._optimiser.load_state_dict(state["optimiser"])
        if self._judge is not None:
            self._judge.load_state(state["judge"])
        torch.set_rng_state(state["random"])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_random"], self._device)

    def run(
        self, callbacks: Sequence[Callback], keep: Callable[[Mapping[str, Any]], None]
    ) -> FitResult:
        """All epochs that are left; `keep` gets the state after some of them."""
        config, settings = self._config, self._config.optimiser
        watchers = list(callbacks)
        if self._judge is not None and config.validation.patience_epochs is not None:
            watchers.append(EarlyStopping(patience_epochs=config.validation.patience_epochs))
        if self._epoch == 0:
            self._validate(watchers)
        kept_at = time.monotonic()
        while self._epoch < settings.epochs and not self._stop:
            self._epoch += 1
            self._train_epoch(watchers)
            is_last = self._epoch == settings.epochs
            if self._epoch % config.validation.every_epochs == 0 or is_last:
                self._validate(watchers)
            if time.monotonic() - kept_at >= SAVE_EVERY_SECONDS:
                keep(self.state())
                kept_at = time.monotonic()
        return self._result()

    def _train_epoch(self, watchers: Sequence[Callback]) -> None:
        settings = self._config.optimiser
        num_steps = settings.epochs * self._steps_per_epoch
        for batch in epoch_batches(
            self._split,
            batch_clips=settings.batch_clips,
            seed=self._config.seed,
            epoch=self._epoch,
        ):
            self._step += 1
            learning_rate = settings.learning_rate * learning_rate_factor(
                self._step,
                warmup_steps=settings.warmup_epochs * self._steps_per_epoch,
                num_steps=num_steps,
            )
            for group in self._optimiser.param_groups:
                group["lr"] = learning_rate
            numbers = self._take_step(batch)
            self._check_finite(numbers)
            report = StepReport(
                epoch=self._epoch,
                step=self._step,
                num_steps=num_steps,
                learning_rate=learning_rate,
                numbers=numbers,
            )
            for watcher in watchers:
                watcher.on_step(report)

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
        """One step of the optimiser; the loss terms, the logit scale, the norm before clipping."""
        model = self._model
        values = loss_terms(model, self._split, batch, config=self._config, epoch=self._epoch)
        values["logit_scale"] = model.logit_scale
        self._optimiser.zero_grad()
        torch.autograd.backward(values["loss"])
        average_gradients(model)
        values["gradient_norm"] = nn.utils.clip_grad_norm_(
            model.parameters(), self._config.optimiser.max_gradient_norm
        )
        self._optimiser.step()
        model.clamp_logit_scale()
        if self._averaged is not None:
            self._averaged.update_parameters(model)
        # One transfer for all numbers: on a GPU each costs a wait.
        numbers: list[float] = torch.stack([value.detach() for value in values.values()]).tolist()
        return dict(zip(values, numbers, strict=True))

    def _validate(self, watchers: Sequence[Callback]) -> None:
        if self._judge is not None:
            stop = self._judge.validate(
                self._shown, epoch=self._epoch, step=self._step, watchers=watchers
            )
            self._stop = agreed(stop, self._device)

    def _result(self) -> FitResult:
        judge, model = self._judge, self._shown
        last_weights = cpu_weights(model)
        if judge is not None:
            model.load_state_dict(judge.best_weights)
        return FitResult(
            model=model.cpu().eval(),
            last_weights=last_weights,
            best_epoch=self._epoch if judge is None else judge.best_epoch,
            metrics={} if judge is None else judge.best_metrics,
            num_epochs=self._epoch,
            num_steps=self._step,
        )


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


@contextmanager
def _matmul_precision(precision: Precision) -> Iterator[None]:
    """Set how exact matrix products are while the block runs."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(MATMUL_PRECISION[precision])
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def uses_gpu(name: DeviceName) -> bool:
    """Whether a run of this device trains on a GPU; SettingsError where there is none to have."""
    return _device(name).type == "cuda"


def _device(name: DeviceName) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingsError("device is cuda, but torch sees no GPU here: use --set device=cpu")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)
