"""The training: from the features of a cache to the heads of a run."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..data_manifests.errors import SettingsError, UserError
from ..extract.store import FeatureStore, SplitFeatures
from .batches import Batch, TrainingSplit, epoch_batches, load_training_split, num_batches
from .callbacks import (
    Callback,
    EarlyStopping,
    MetricsWriter,
    ProgressBar,
    StepReport,
)
from .checkpoint import RunSummary, begin_run, finish_run, refuse_finished_run
from .config import DataConfig, DeviceName, RunConfig
from .model import AlignmentModel, build_model, cpu_weights
from .objective import loss_terms
from .optimiser import build_optimiser, learning_rate_factor
from .task_items import answer_features, vocabulary
from .validation import Judge


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

    Raises CacheError (no such cache, split or rule), SettingsError, TrainingDataError,
    NotFiniteError, and RunError when `out` already holds a finished run.
    """
    started = time.perf_counter()
    refuse_finished_run(out)
    store = FeatureStore.open(cache)
    train, validation = _read_splits(store, config.data)
    with begin_run(out, config) as metrics_file:
        progress = ProgressBar(sys.stderr, label=out.name)
        try:
            result = fit(
                config,
                train=train,
                validation=validation,
                callbacks=[MetricsWriter(metrics_file), progress],
            )
        finally:
            progress.close()
    summary = RunSummary(
        path=out,
        cache_key=store.key,
        feature_width=store.dim,
        text_feature_width=store.text_dim,
        segment_rule=train.segment_rule,
        num_train_clips=len(train.clip_ids),
        num_failed_clips=train.num_failed_clips,
        num_validation_clips=0 if validation is None else len(validation.clip_ids),
        best_epoch=result.best_epoch,
        num_epochs=result.num_epochs,
        num_steps=result.num_steps,
        metrics=result.metrics,
        logit_scale=result.model.logit_scale.item(),
        wall_seconds=time.perf_counter() - started,
    )
    finish_run(out, model=result.model, last_weights=result.last_weights, summary=summary)
    return summary


def _read_splits(
    store: FeatureStore, data: DataConfig
) -> tuple[SplitFeatures, SplitFeatures | None]:
    for name, split, way_out in (
        ("train_split", data.train_split, "one of these"),
        ("validation_split", data.validation_split, "one of these, or null to do without"),
    ):
        if split is not None and split not in store.splits:
            raise SettingsError(
                f"data.{name} is {split!r}, but the cache {store.path} has the splits "
                f"{', '.join(store.splits)}: use --set data.{name}=... with {way_out}"
            )
    train = store.split(data.train_split, segments=data.segments)
    if data.validation_split is None:
        return train, None
    return train, store.split(data.validation_split, segments=data.segments)


def fit(
    config: RunConfig,
    *,
    train: SplitFeatures,
    validation: SplitFeatures | None,
    callbacks: Sequence[Callback] = (),
) -> FitResult:
    """Train on one split and keep the weights that are best on another (the last without one).

    Changes no global state: the same arguments give the same numbers, on one machine and number
    of threads. Raises SettingsError, TrainingDataError, NotFiniteError.
    """
    device = _device(config.device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        return _fit(config, train, validation, callbacks, device)


def _fit(
    config: RunConfig,
    train: SplitFeatures,
    validation: SplitFeatures | None,
    callbacks: Sequence[Callback],
    device: torch.device,
) -> FitResult:
    model = untrained_model(config, train).to(device)
    split = load_training_split(train, config=config, device=device, answers=model.answers)
    judge = None
    if validation is not None:
        judge = Judge(config, validation, device, answers=model.answers)
    watchers = list(callbacks)
    if judge is not None and config.validation.patience_epochs is not None:
        watchers.append(EarlyStopping(patience_epochs=config.validation.patience_epochs))

    settings = config.optimiser
    steps_per_epoch = num_batches(len(split.clips), batch_clips=settings.batch_clips)
    num_steps = settings.epochs * steps_per_epoch
    optimiser = build_optimiser(model, settings)
    epoch, step = 0, 0
    stop = judge is not None and judge.validate(model, epoch=epoch, step=step, watchers=watchers)
    while epoch < settings.epochs and not stop:
        epoch += 1
        for batch in epoch_batches(
            split, batch_clips=settings.batch_clips, seed=config.seed, epoch=epoch
        ):
            step += 1
            learning_rate = settings.learning_rate * learning_rate_factor(
                step, warmup_steps=settings.warmup_epochs * steps_per_epoch, num_steps=num_steps
            )
            for group in optimiser.param_groups:
                group["lr"] = learning_rate
            numbers = _take_step(model, optimiser, split, batch, config=config, epoch=epoch)
            bad = [name for name, number in numbers.items() if not math.isfinite(number)]
            if bad:
                raise NotFiniteError(
                    f"step {step} (epoch {epoch}): {bad[0]} is {numbers[bad[0]]}. Try a lower "
                    f"optimiser.learning_rate or a longer optimiser.warmup_epochs"
                )
            report = StepReport(
                epoch=epoch,
                step=step,
                num_steps=num_steps,
                learning_rate=learning_rate,
                numbers=numbers,
            )
            for watcher in watchers:
                watcher.on_step(report)
        is_due = epoch % config.validation.every_epochs == 0 or epoch == settings.epochs
        if judge is not None and is_due:
            stop = judge.validate(model, epoch=epoch, step=step, watchers=watchers)

    last_weights = cpu_weights(model)
    if judge is not None:
        model.load_state_dict(judge.best_weights)
    return FitResult(
        model=model.cpu().eval(),
        last_weights=last_weights,
        best_epoch=epoch if judge is None else judge.best_epoch,
        metrics={} if judge is None else judge.best_metrics,
        num_epochs=epoch,
        num_steps=step,
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


def _take_step(
    model: AlignmentModel,
    optimiser: torch.optim.Optimizer,
    split: TrainingSplit,
    batch: Batch,
    *,
    config: RunConfig,
    epoch: int,
) -> dict[str, float]:
    """One step of the optimiser; the loss terms, the logit scale, the norm before clipping."""
    values = loss_terms(model, split, batch, config=config, epoch=epoch)
    values["logit_scale"] = model.logit_scale
    optimiser.zero_grad()
    torch.autograd.backward(values["loss"])
    values["gradient_norm"] = nn.utils.clip_grad_norm_(
        model.parameters(), config.optimiser.max_gradient_norm
    )
    optimiser.step()
    model.clamp_logit_scale()
    # One transfer for all numbers: on a GPU each costs a wait.
    numbers: list[float] = torch.stack([value.detach() for value in values.values()]).tolist()
    return dict(zip(values, numbers, strict=True))


def _device(name: DeviceName) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingsError("device is cuda, but torch sees no GPU here: use --set device=cpu")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)
