"""Several runs that train as one: the same steps, each taken for all of them at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..extract.store import SplitFeatures
from .batches import Batch
from .checkpoint import finish_run, refuse_finished_run
from .config import RunConfig
from .loss_numbers import stacked_numbers
from .objective import level_terms, with_total
from .run_groups import most_at_once
from .stacked_batches import StackedBatches
from .stacked_model import StackedModel
from .stacked_tasks import stacked_task_terms
from .stacked_weights import StackedWeights, release
from .trainer import OpenRun, open_run, summary_of, training_on
from .training import Training, TrainingData, load_training_data, untrained_model
from .training_state import SavingClock, drop_state, load_state

# M = runs that train together

Ended = Callable[[Path, Exception | None], None]
"""Told of each run that is finished, or that has failed with that error."""


def align_together(
    runs: Mapping[Path, RunConfig],
    *,
    train: SplitFeatures,
    validation: SplitFeatures | None,
    ended: Ended,
) -> None:
    """`align_on` for runs that `run_groups.structure` says are alike, into the folders that they
    have: each gets the numbers that it gets alone, but for rounding, and other draws of dropout.

    As many train together as fit in memory; runs that were killed after different epochs train
    apart. An error that is of one run ends that one.
    """
    since = time.perf_counter()
    epochs = {}
    for path, config in runs.items():
        with _failing(path, ended):
            refuse_finished_run(path)
            saved = load_state(path, config, cache_key=train.cache_key)
            epochs[path] = saved.training["epoch"] if saved else 0
    if not epochs:
        return
    first = runs[next(iter(epochs))]
    with training_on(first) as device:
        model = untrained_model(first, train)
        data = load_training_data(
            train, validation, config=first, device=device, answers=model.answers
        )
        num_parameters = sum(parameter.numel() for parameter in model.parameters())
        waiting = [[p for p in epochs if epochs[p] == epoch] for epoch in {*epochs.values()}]
        while waiting:
            paths = waiting.pop(0)
            most = most_at_once(data.split, first, num_parameters=num_parameters)
            if len(paths) > most:
                waiting[:0] = _parts(paths, -(-len(paths) // most))
                continue
            group = _Group(data, train=train, validation=validation, ended=ended, since=since)
            try:
                group.train({path: runs[path] for path in paths})
            except torch.OutOfMemoryError as error:
                if len(group.left) == 1:
                    ended(group.left[0], error)
                else:
                    waiting[:0] = _parts(group.left, 2)
            since = time.perf_counter()


@dataclass(kw_only=True, slots=True, eq=False)
class _Member:
    """One run of a group."""

    training: Training
    """Its numbers and weights."""
    folder: OpenRun
    """Where they are written."""
    closing: ExitStack
    """Closes the folder."""
    seconds: float
    """Its share of the time that its groups took."""
    error: Exception | None = None
    """Why it has failed. It stays in its place to the end of the epoch, but nobody looks at it."""


class _Group:
    """Runs that train together, until the last of them is over."""

    def __init__(
        self,
        data: TrainingData,
        *,
        train: SplitFeatures,
        validation: SplitFeatures | None,
        ended: Ended,
        since: float,
    ) -> None:
        """since: when the time began that the runs share."""
        self._data = data
        self._batches = StackedBatches(data.split)
        self._train, self._validation = train, validation
        self._ended = ended
        self._since = since
        self._members: list[_Member] = []
        self.left: list[Path] = []
        """Runs that are not over yet."""

    def train(self, runs: Mapping[Path, RunConfig]) -> None:
        """All epochs of all runs, into their folders."""
        self.left = list(runs)
        with ExitStack() as closing:
            for path, config in runs.items():
                with _failing(path, self._end):
                    self._members.append(self._opened(path, config, closing))
            for member in self._sound():
                with _noting(member):
                    member.training.begin()
            self._share_time()
            self._part_with_those_that_are_over()
            self._stack()
            clock = SavingClock()
            while self._members:
                self._train_epoch()
                for member in self._sound():
                    with _noting(member):
                        member.training.end_epoch()
                self._share_time()
                if self._part_with_those_that_are_over():
                    self._stack()
                if clock.is_due():
                    self._keep()
                    clock.restart()

    def _opened(self, path: Path, config: RunConfig, closing: ExitStack) -> _Member:
        """The run as it is before its first epoch, or after the last one that was saved."""
        saved = load_state(path, config, cache_key=self._train.cache_key)
        torch.manual_seed(config.seed)
        model = untrained_model(config, self._train).to(self._data.split.device)
        own = closing.enter_context(ExitStack())
        folder = own.enter_context(
            open_run(path, config, cache_key=self._train.cache_key, saved=saved, quiet=True)
        )
        training = Training(config, model, self._data, callbacks=folder.watchers)
        if saved is not None:
            training.load_state(saved.training)
        seconds = saved.wall_seconds if saved else 0.0
        return _Member(training=training, folder=folder, closing=own, seconds=seconds)

    def _stack(self) -> None:
        """Make one of the runs that are left."""
        trainings = [member.training for member in self._members]
        if not trainings:
            return
        self._weights = StackedWeights(trainings)
        self._model = StackedModel([own.model for own in trainings], self._weights.tensors)
        configs = [own.config for own in trainings]
        self._numbers = stacked_numbers(configs, self._data.split.device)

    def _sound(self) -> list[_Member]:
        """Those that have not failed."""
        return [member for member in self._members if member.error is None]

    def _train_epoch(self) -> None:
        batches = self._epoch_batches()
        batch = next(batches, None)
        while batch is not None:
            rates = [member.training.next_learning_rate() for member in self._members]
            names, values = self._take_step(batch, rates)
            batch = next(batches, None)  # made while a GPU works on the step
            told = dict(zip(self._members, zip(values.tolist(), rates, strict=True), strict=True))
            for member in self._sound():
                own, rate = told[member]
                with _noting(member):
                    member.training.report(dict(zip(names, own, strict=True)), rate)

    def _epoch_batches(self) -> Iterator[Batch]:
        """Each run's clips are those that it sees alone."""
        own = [member.training.begin_epoch() for member in self._members]
        for parts in zip(*own, strict=True):
            clips, rngs = zip(*parts, strict=True)
            yield self._batches.make(clips, rngs)

    def _take_step(self, batch: Batch, rates: Sequence[float]) -> tuple[list[str], Tensor]:
        """One step of every run; names of the numbers, and (M, K) of each run, on the device."""
        split, numbers = self._data.split, self._numbers
        first = self._members[0].training
        vectors, terms = level_terms(
            self._model, split, batch, numbers, losses=first.config.losses, epoch=first.epoch
        )
        if batch.drawn:
            terms |= stacked_task_terms(
                self._model,
                split,
                batch.drawn,
                vectors,
                batch.segment_counts,
                config=first.config.tasks,
            )
        values = with_total(terms, numbers, device=split.device)
        values["logit_scale"] = self._model.logit_scale
        # The sum of the losses has for each run the gradient of its own.
        gradients = torch.autograd.grad(
            values["loss"].sum(), list(self._weights.tensors.values()), allow_unused=True
        )
        values["gradient_norm"] = self._weights.step(gradients, rates)
        return list(values), torch.stack([v.detach() for v in values.values()], dim=1)

    def _part_with_those_that_are_over(self) -> bool:
        """Finish the runs that are over, and those that have failed; whether there were any."""
        over = [m for m in self._members if m.error is not None or m.training.is_over]
        self._members = [member for member in self._members if member not in over]
        for member in over:
            release(member.training)
            if member.error is None:
                with _noting(member):
                    self._finish(member)
            member.closing.close()
            self._end(member.folder.path, member.error)
        return bool(over)

    def _end(self, path: Path, error: Exception | None) -> None:
        self.left.remove(path)
        self._ended(path, error)

    def _finish(self, member: _Member) -> None:
        result = member.training.result()
        member.closing.close()
        summary = summary_of(
            member.folder.path,
            member.training.config,
            result,
            train=self._train,
            validation=self._validation,
            wall_seconds=member.seconds,
        )
        finish_run(
            member.folder.path,
            model=result.model,
            last_weights=result.last_weights,
            summary=summary,
        )
        drop_state(member.folder.path)

    def _keep(self) -> None:
        self._weights.settle()
        for member in self._sound():
            with _noting(member):
                member.folder.keep(member.training.state(), wall_seconds=member.seconds)

    def _share_time(self) -> None:
        now = time.perf_counter()
        for member in self._members:
            member.seconds += (now - self._since) / len(self._members)
        self._since = now


@contextmanager
def _failing(path: Path, ended: Ended) -> Iterator[None]:
    """An error in the block ends the run of that folder."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever it is, the other runs go on
        ended(path, error)


@contextmanager
def _noting(member: _Member) -> Iterator[None]:
    """An error in the block is the member's."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever it is, the other runs go on
        member.error = error


def _parts(paths: Sequence[Path], num_parts: int) -> list[list[Path]]:
    """Neighbours together, in parts of like size."""
    ends = [len(paths) * part // num_parts for part in range(num_parts + 1)]
    return [list(paths[a:b]) for a, b in zip(ends, ends[1:], strict=False)]
