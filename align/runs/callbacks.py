"""Callbacks of a training: early stopping, metrics file, TensorBoard events, progress bar."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self, TextIO

from ...data_manifests.core.progress_bar import ProgressBar


@dataclass(frozen=True, kw_only=True, slots=True)
class StepReport:
    """One finished step."""

    epoch: int
    """From 1."""
    step: int
    """From 1, counted over the whole run."""
    num_steps: int
    """Of the whole run, unless it stops early."""
    learning_rate: float
    """That this step used."""
    numbers: dict[str, float]
    """The total "loss", its terms, the logit scales, and "gradient_norm_LEVEL" of each level
    and task (before clipping)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationReport:
    """One validation."""

    epoch: int
    """Epochs finished; 0 before the first step."""
    num_epochs: int
    """Of the whole run, unless it stops early."""
    step: int
    """Steps finished."""
    metrics: dict[str, float]
    """What was measured, in [0, 1]."""
    score: float
    """The number that chooses the weights; higher is better."""
    best_epoch: int
    """Where the highest score so far was first reached."""


class Callback(Protocol):
    """Watches a training; called in the order given."""

    def on_step(self, report: StepReport) -> None:
        """After each step."""

    def on_validation(self, report: ValidationReport) -> bool:
        """After each validation; True asks the training to stop."""


class EarlyStopping:
    """Stops when the score has not risen for `patience_epochs` epochs."""

    def __init__(self, *, patience_epochs: int) -> None:
        self._patience_epochs = patience_epochs

    def on_step(self, report: StepReport) -> None:
        """Steps do not matter here."""

    def on_validation(self, report: ValidationReport) -> bool:
        """True once the patience is used up."""
        return report.epoch - report.best_epoch >= self._patience_epochs


class MetricsWriter:
    """Writes a JSON line per step and per validation."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def on_step(self, report: StepReport) -> None:
        """{"kind": "step", "epoch", "step", "learning_rate", the numbers of the step}"""
        self._write(
            kind="step",
            epoch=report.epoch,
            step=report.step,
            learning_rate=report.learning_rate,
            **report.numbers,
        )

    def on_validation(self, report: ValidationReport) -> bool:
        """{"kind": "validation", "epoch", "step", the metrics, "score", "best_epoch"}"""
        self._write(
            kind="validation",
            epoch=report.epoch,
            step=report.step,
            **report.metrics,
            score=report.score,
            best_epoch=report.best_epoch,
        )
        self._file.flush()
        return False

    def _write(self, **values: Any) -> None:
        self._file.write(json.dumps(values) + "\n")


HIDDEN: Final = ("logit_scale", "segment_logit_scale", "segment_in_clip", "segment_cross_clip")
"""Numbers of a step that the progress line leaves out."""


class TrainingProgress:
    """Loss terms, score and time left: a live bar on a terminal, about ten lines in a log."""

    def __init__(self, file: TextIO, *, label: str) -> None:
        self._file = file
        self._label = label
        self._bar: ProgressBar | None = None
        self._terms = ""
        self._score = ""

    def on_step(self, report: StepReport) -> None:
        """Advance by one step."""
        visible = {
            name: value
            for name, value in report.numbers.items()
            if not name.startswith("gradient_norm_") and name not in HIDDEN
        }
        self._terms = " ".join(f"{name} {value:.3f}" for name, value in visible.items())
        if self._bar is None:
            self._bar = ProgressBar(
                label=self._label,
                total=report.num_steps,
                unit="steps",
                completed=report.step - 1,  # of a resumed run
                file=self._file,
                log_seconds=math.inf,  # a log has lines by epoch
            )
        self._bar.advance(note=lambda: f"{self._terms}{self._score}")

    def on_validation(self, report: ValidationReport) -> bool:
        """Show the score; in a log, at every tenth of the epochs."""
        self._score = f", validation {100 * report.score:.1f} %"
        every = -(-report.num_epochs // 10)
        if not self._file.isatty() and report.epoch % every == 0:
            print(
                f"{self._label}: epoch {report.epoch} of {report.num_epochs}: "
                f"{self._terms}{self._score}".replace(": , ", ": "),
                file=self._file,
                flush=True,
            )
        return False

    def close(self) -> None:
        """Leave the bar as finished lines on the terminal."""
        if self._bar is not None:
            self._bar.close()


EVENTS_FOLDER: Final = "events"


class EventsWriter:
    """Writes the terms of every step under train/, and the metrics under validation/."""

    def __init__(self, run: Path, *, first_step: int) -> None:
        """run: the run folder.   first_step: what events say of it and later steps is forgotten."""
        from torch.utils.tensorboard import SummaryWriter  # takes a while to import

        self._writer = SummaryWriter(str(run / EVENTS_FOLDER), purge_step=first_step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()

    def on_step(self, report: StepReport) -> None:
        """train/NAME for each number, and the learning rate."""
        numbers = {**report.numbers, "learning_rate": report.learning_rate}
        self._write("train", numbers, step=report.step)

    def on_validation(self, report: ValidationReport) -> bool:
        """validation/NAME for each metric."""
        self._write("validation", report.metrics, step=report.step)
        return False

    def _write(self, group: str, numbers: Mapping[str, float], *, step: int) -> None:
        """One event for all numbers: with one for each, a step took 0.30 instead of 0.05 ms."""
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]

        values = [
            Summary.Value(tag=f"{group}/{name}", simple_value=number)
            for name, number in numbers.items()
        ]
        writer = self._writer.file_writer
        assert writer is not None, "events are written while the run is open"
        writer.add_summary(Summary(value=values), step)
