"""The training: from the features of a cache to the heads of a run."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import torch

from ..data_manifests.core.errors import SettingsError
from ..extract.cache.split_features import SplitFeatures
from ..extract.cache.store import FeatureStore
from .config import DeviceName, Precision, RunConfig
from .data.memory import splits_of_run
from .data.trainable import Trainable, trainable
from .distributed import is_first_process, wait_for_all
from .epoch_loop import FitResult, Training, load_training_data, untrained_model
from .objective.contrast import check_loss
from .own_parts import check_names
from .runs.callbacks import Callback, EventsWriter, MetricsWriter, TrainingProgress
from .runs.checkpoint import begin_run, finish_run, refuse_finished_run
from .runs.summary import RunSummary
from .runs.training_state import SavedState, delete_state, load_state, save_state

MATMUL_PRECISION: Final[Mapping[Precision, str]] = {"float32": "highest", "medium": "medium"}


def train_run(cache: Path, out: Path, config: RunConfig) -> RunSummary:
    """Train the heads that `config` describes on the features of a cache; leave a run folder.

    An unfinished run of the same settings in `out` is finished, with the numbers that it would have
    had. Raises CacheError (no such cache, split or rule), SettingsError, TrainingDataError,
    NotFiniteError, and RunError when `out` already holds a finished run, or an unfinished one of
    other settings or of another cache.
    """
    refuse_finished_run(out)
    check_names(config)
    with_tokens = config.losses.token_weight > 0
    store = FeatureStore.open(cache)
    with splits_of_run(store, config.data, out, with_tokens=with_tokens) as (train, validation):
        return train_run_on(out, config, train=train, validation=validation)


def train_run_on(
    out: Path,
    config: RunConfig,
    *,
    train: SplitFeatures,
    validation: SplitFeatures | None,
    quiet: bool = False,
) -> RunSummary:
    """`train_run` on splits that are there already. quiet: without progress on stderr.

    The run folder is made once everything that can be wrong with settings and data has been looked
    at. Of several processes the first one writes.
    """
    started = time.perf_counter()
    refuse_finished_run(out)
    resolved = trainable(config, train)
    saved = load_state(out, config, cache_key=train.cache_key)
    wait_for_all()  # before the first one writes
    before = saved.wall_seconds if saved else 0.0

    def wall_seconds() -> float:
        return before + time.perf_counter() - started

    with _prepared(resolved.config, train=train, validation=validation) as training:
        if saved is not None:
            training.load_state(saved.training)
        if is_first_process():
            if not quiet and (line := resolved.line()) is not None:
                print(f"{out.name}: {line}", file=sys.stderr, flush=True)
            result = _run_in_folder(
                training, out, config, saved, train.cache_key, wall_seconds, quiet=quiet
            )
        else:
            result = training.run()
    summary = _summary(
        out,
        resolved,
        result,
        train=train,
        validation=validation,
        wall_seconds=wall_seconds(),
    )
    if is_first_process():
        finish_run(out, model=result.model, last_weights=result.last_weights, summary=summary)
        delete_state(out)
    return summary


def _run_in_folder(
    training: Training,
    out: Path,
    config: RunConfig,
    saved: SavedState | None,
    cache_key: str,
    wall_seconds: Callable[[], float],
    *,
    quiet: bool,
) -> FitResult:
    """Train with what a run folder has: metrics, events, and the state of an unfinished run."""
    progress = TrainingProgress(sys.stderr, label=out.name)
    with (
        begin_run(out, config, metrics_bytes=saved.metrics_bytes if saved else 0) as metrics,
        EventsWriter(out, first_step=int(saved.training["step"]) + 1 if saved else 1) as events,
        closing(progress),
    ):

        def keep(state: Mapping[str, Any]) -> None:
            metrics.flush()
            content = SavedState(
                training=state,
                cache_key=cache_key,
                metrics_bytes=metrics.tell(),
                wall_seconds=wall_seconds(),
            )
            save_state(out, content)

        callbacks: list[Callback] = [MetricsWriter(metrics), events]
        return training.run(keep, callbacks=callbacks if quiet else [*callbacks, progress])


def _summary(
    out: Path,
    resolved: Trainable,
    result: FitResult,
    *,
    train: SplitFeatures,
    validation: SplitFeatures | None,
    wall_seconds: float,
) -> RunSummary:
    """The content of run.json."""
    return RunSummary(
        path=out,
        cache_key=train.cache_key,
        decided=resolved.decided,
        left_out=resolved.left_out,
        feature_width=train.clip_features.shape[1],
        text_feature_width=train.text_features.shape[1],
        segment_rule=train.segment_rule,
        num_train_clips=len(train.clip_ids),
        num_failed_clips=train.num_failed_clips,
        num_partial_clips=train.num_partial_clips,
        leaves_out_partial_clips=resolved.config.data.partial_clips == "leave_out",
        num_validation_clips=0 if validation is None else len(validation.clip_ids),
        best_epoch=result.best_epoch,
        num_epochs=result.num_epochs,
        num_steps=result.num_steps,
        num_parameters=sum(parameter.numel() for parameter in result.model.parameters()),
        metrics=result.metrics,
        logit_scale=result.model.of_global.scale.value.item(),
        wall_seconds=wall_seconds,
    )


def train_heads(
    config: RunConfig,
    *,
    train: SplitFeatures,
    validation: SplitFeatures | None,
    callbacks: Sequence[Callback] = (),
    resume_from: Mapping[str, Any] | None = None,
    keep: Callable[[Mapping[str, Any]], None] = lambda state: None,
) -> FitResult:
    """Train on one split and keep the weights that are best on another (the last without one).

    What the split has no data for is left out (see `align.data.trainable`).
    resume_from: a state that `keep` was given by a training of the same arguments; it goes on from
    there, with the same numbers on one machine and number of threads as if it had never stopped.
    Changes no global state. Raises SettingsError, TrainingDataError, NotFiniteError.
    """
    resolved = trainable(config, train).config
    with _prepared(resolved, train=train, validation=validation) as training:
        if resume_from is not None:
            training.load_state(resume_from)
        return training.run(keep, callbacks=callbacks)


@contextmanager
def _prepared(
    config: RunConfig, *, train: SplitFeatures, validation: SplitFeatures | None
) -> Iterator[Training]:
    """A training before its first step, with its random numbers and precision while the block runs.

    config: of `trainable`.
    """
    device = _device(config.device)
    check_loss(config.losses)
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        _matmul_precision(config.precision),
    ):
        torch.manual_seed(config.seed)
        model = untrained_model(config, train).to(device)
        data = load_training_data(
            train, validation, config=config, device=device, answers=model.answers
        )
        yield Training(config, model, data)


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
