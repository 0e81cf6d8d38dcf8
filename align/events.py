"""TensorBoard events beside metrics.jsonl: the same numbers, for its curves."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Final, Self

from .callbacks import StepReport, ValidationReport

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
        for name, number in {**report.numbers, "learning_rate": report.learning_rate}.items():
            self._writer.add_scalar(f"train/{name}", number, report.step)

    def on_validation(self, report: ValidationReport) -> bool:
        """validation/NAME for each metric."""
        for name, number in report.metrics.items():
            self._writer.add_scalar(f"validation/{name}", number, report.step)
        return False
