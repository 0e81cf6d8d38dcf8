"""From the queries' values to the numbers of the report: means, intervals, seeds, comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .index_effect import IndexEffect
from .metrics import one_based
from .queries import Scored, TaskQueries
from .significance import (
    Bootstrap,
    Difference,
    Interval,
    Sample,
    mean_intervals,
    median_interval,
    paired_differences,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class FusedWeight:
    """a in a * global + (1 - a) * segment."""

    value: float
    """Between 0 and 1."""
    chosen_on: str | None
    """The validation split that chose it; None where it is the setting `fused_weight`."""
    reason: str
    """Where the number comes from, in words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOutcome:
    """One run on all tasks; zero-shot counts as a run."""

    path: Path | None
    """The run folder; None for zero-shot."""
    seed: int | None
    """Of the training; None for zero-shot."""
    weight: FusedWeight
    """Of its fused score."""
    scored: Mapping[str, Mapping[str, Scored]]
    """Task name -> score name -> outcome."""
    index_effect: IndexEffect | None = None
    """What the approximate index of the settings costs; None for an exact one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RowOutcome:
    """The runs of one row."""

    name: str
    """Of the row."""
    runs: tuple[RunOutcome, ...]
    """One per seed, at least one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One number of a row."""

    interval: Interval
    """The mean over the seeds, with its bootstrap interval."""
    per_seed: tuple[float, ...]
    """The number of each run."""

    @property
    def seed_deviation(self) -> float | None:
        """Standard deviation over the seeds (n - 1); None for one seed."""
        return float(np.std(self.per_seed, ddof=1)) if len(self.per_seed) > 1 else None


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreSummary:
    """One row on one task (or a subset of its queries) with one score."""

    task: str
    """Task name."""
    subset: str | None
    """Group of queries, such as a question type; None for all."""
    score: str
    """global, segment or fused."""
    num_queries: int
    """Queries behind the numbers."""
    num_tied: tuple[int, ...]
    """Queries of each run where a wrong item ties with the right one (it then ranks before it)."""
    metrics: Mapping[str, Metric]
    """By name: R@K, accuracy and mIoU in percent; MdR and MnR count from 1; MRR from 0 to 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A row against the baseline, paired by query."""

    row: str
    baseline: str
    task: str
    subset: str | None
    score: str
    metric: str
    num_queries: int
    difference: Difference
    """Row less baseline, in the metric's unit."""


def summarise(
    row: RowOutcome, tasks: Sequence[TaskQueries], bootstrap: Bootstrap
) -> list[ScoreSummary]:
    """All numbers of a row, tasks and their subsets in order."""
    return [
        _summary(row, task, subset=subset, rows=rows, score=score, bootstrap=bootstrap)
        for task in tasks
        for subset, rows in _subsets(task)
        for score in row.runs[0].scored[task.name]
    ]


def compare(
    row: RowOutcome, baseline: RowOutcome, tasks: Sequence[TaskQueries], bootstrap: Bootstrap
) -> list[Comparison]:
    """Paired differences of every metric that is a mean (all but MdR)."""
    found = []
    for task in tasks:
        for subset, rows in _subsets(task):
            for score in row.runs[0].scored[task.name]:
                names, first = _sample(row, task, rows=rows, score=score)
                _, second = _sample(baseline, task, rows=rows, score=score)
                differences = paired_differences(first, second, bootstrap)
                found += [
                    Comparison(
                        row=row.name,
                        baseline=baseline.name,
                        task=task.name,
                        subset=subset,
                        score=score,
                        metric=metric,
                        num_queries=len(rows),
                        difference=difference,
                    )
                    for metric, difference in zip(names, differences, strict=True)
                ]
    return found


def _subsets(task: TaskQueries) -> list[tuple[str | None, np.ndarray]]:
    return [(None, np.arange(len(task.query_ids))), *task.subsets.items()]


def _summary(
    row: RowOutcome,
    task: TaskQueries,
    *,
    subset: str | None,
    rows: np.ndarray,
    score: str,
    bootstrap: Bootstrap,
) -> ScoreSummary:
    names, sample = _sample(row, task, rows=rows, score=score)
    scored = [run.scored[task.name][score] for run in row.runs]
    metrics = {
        name: Metric(
            interval=interval,
            per_seed=tuple(float(run.values[name][rows].mean()) for run in scored),
        )
        for name, interval in zip(names, mean_intervals(sample, bootstrap), strict=True)
    }
    if task.kind == "retrieval":
        ranks = np.stack([one_based(run.ranks.ranks[rows]) for run in scored], axis=1)
        by_seed = Sample(query_ids=sample.query_ids, clusters=sample.clusters, values=ranks)
        metrics["MdR"] = Metric(
            interval=median_interval(by_seed, bootstrap),
            per_seed=tuple(float(median) for median in np.median(ranks, axis=0)),
        )
    return ScoreSummary(
        task=task.name,
        subset=subset,
        score=score,
        num_queries=len(rows),
        num_tied=tuple(int(run.ranks.tied[rows].sum()) for run in scored),
        metrics=metrics,
    )


def _sample(
    row: RowOutcome, task: TaskQueries, *, rows: np.ndarray, score: str
) -> tuple[list[str], Sample]:
    """The metrics' names, and per query their means over the row's seeds."""
    scored = [run.scored[task.name][score] for run in row.runs]
    names = list(scored[0].values)
    by_metric = [np.mean([run.values[name][rows] for run in scored], axis=0) for name in names]
    sample = Sample(
        query_ids=[task.query_ids[query] for query in rows],
        clusters=task.clips[rows],
        values=np.stack(by_metric, axis=1),
    )
    return names, sample
