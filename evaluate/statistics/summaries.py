"""From the queries' values to the numbers of the report: means, intervals, seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from ..config import NormalisationName
from ..indexes.effect import IndexEffect
from ..scores.metrics import one_based
from ..scores.queries import Scored, TaskQueries
from ..tasks.retrieval import FusedWeight
from .aggregates import AGGREGATED, DIRECTIONS, aggregate_intervals, aggregates
from .bootstrap import Bootstrap, Interval, Sample, mean_intervals, median_interval, medians_of
from .seed_variance import mean_intervals_with_seeds, median_interval_with_seeds


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
class NormalisedFrom:
    """What was done to the scores of a row after the fact."""

    row: str
    """The row whose scores they were."""
    name: NormalisationName
    assumption: str
    """What must be so for the numbers to mean something."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RowOutcome:
    """The runs of one row."""

    name: str
    """Of the row."""
    runs: tuple[RunOutcome, ...]
    """One per seed, at least one."""
    normalised: NormalisedFrom | None = None
    """None for scores as they are; otherwise only tasks of retrieval are there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One number of a row."""

    interval: Interval
    """The mean over the seeds, with its bootstrap interval over queries."""
    per_seed: tuple[float, ...]
    """The number of each run."""
    with_seeds: Interval | None = None
    """The mean over the seeds, with an interval over queries and seeds; None for one seed."""

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
    """global, segment, token or fused."""
    num_queries: int
    """Queries behind the numbers."""
    num_tied: tuple[int, ...]
    """Queries of each run where a wrong item ties with the right one (it then ranks before it)."""
    metrics: Mapping[str, Metric]
    """By name: R@K, mAP, accuracy and mIoU in percent; MdR and MnR count from 1; MRR and
    nDCG@10 from 0 to 1."""


SHARES: Final = ("MRR", "nDCG@10")
"""Metrics from 0 to 1; the others are percent or ranks."""


def metric_text(metric: str, value: float) -> str:
    """The number as reports print it: four decimals from 0 to 1, else one."""
    return f"{value:.4f}" if metric in SHARES else f"{value:.1f}"


def summarise(
    row: RowOutcome,
    tasks: Sequence[TaskQueries],
    bootstrap: Bootstrap,
    *,
    lower_median: bool = False,
) -> list[ScoreSummary]:
    """All numbers of a row, tasks and their subsets in order."""
    return [
        _summary(
            row,
            task,
            subset=subset,
            rows=rows,
            score=score,
            bootstrap=bootstrap,
            # CLIP4Clip takes the mean of the middle two of clip to text, whatever text to clip has.
            lower_median=lower_median and task.name != "clip_to_text",
            others=tasks,
        )
        for task in tasks
        for subset, rows in subsets_of(task)
        for score in row.runs[0].scored.get(task.name, {})
    ]


def subsets_of(task: TaskQueries) -> list[tuple[str | None, np.ndarray]]:
    return [(None, np.arange(len(task.query_ids))), *task.subsets.items()]


def _summary(
    row: RowOutcome,
    task: TaskQueries,
    *,
    subset: str | None,
    rows: np.ndarray,
    score: str,
    bootstrap: Bootstrap,
    lower_median: bool,
    others: Sequence[TaskQueries],
) -> ScoreSummary:
    names, sample = sample_of(row, task, rows=rows, score=score)
    scored = [run.scored[task.name][score] for run in row.runs]
    with_seeds: Sequence[Interval | None] = [None] * len(names)
    if len(row.runs) > 1:
        by_run = sample_by_seed(row, task, rows=rows, score=score)
        with_seeds = mean_intervals_with_seeds(by_run, bootstrap)
    intervals = zip(mean_intervals(sample, bootstrap), with_seeds, strict=True)
    metrics = {
        name: Metric(
            interval=interval,
            with_seeds=wider,
            per_seed=tuple(float(run.values[name][rows].mean()) for run in scored),
        )
        for name, (interval, wider) in zip(names, intervals, strict=True)
    }
    if task.kind == "retrieval":
        ranks = np.stack([one_based(run.ranks.ranks[rows]) for run in scored], axis=1)
        by_seed = Sample(query_ids=sample.query_ids, clusters=sample.clusters, values=ranks)
        metrics["MdR"] = Metric(
            interval=median_interval(by_seed, bootstrap, lower=lower_median),
            with_seeds=median_interval_with_seeds(by_seed, bootstrap, lower=lower_median)
            if len(row.runs) > 1
            else None,
            per_seed=tuple(medians_of(ranks, lower=lower_median).tolist()),
        )
        if subset is None and set(AGGREGATED) <= set(names):
            metrics |= _aggregates(row, task, others, score=score, bootstrap=bootstrap)
    return ScoreSummary(
        task=task.name,
        subset=subset,
        score=score,
        num_queries=len(rows),
        num_tied=tuple(int(run.ranks.tied[rows].sum()) for run in scored),
        metrics=metrics,
    )


def _aggregates(
    row: RowOutcome,
    task: TaskQueries,
    others: Sequence[TaskQueries],
    *,
    score: str,
    bootstrap: Bootstrap,
) -> dict[str, Metric]:
    """The numbers that are made of several recalls, of this task and the other direction's."""
    recalls = {}
    for other in others:
        is_other_way = {task.name, other.name} <= set(DIRECTIONS)
        if other is not task and not is_other_way:
            continue
        scored = [run.scored[other.name][score] for run in row.runs]
        columns = [run.values[metric] for run in scored for metric in AGGREGATED]
        recalls[other.name] = Sample(
            query_ids=other.query_ids, clusters=other.clusters, values=np.stack(columns, axis=1)
        )
    means = {name: sample.values.mean(axis=0)[None] for name, sample in recalls.items()}
    per_seed = aggregates(means, task.name)
    with_seeds: Mapping[str, Interval] = {}
    if len(row.runs) > 1:
        with_seeds = aggregate_intervals(recalls, task.name, bootstrap, with_seeds=True)
    return {
        name: Metric(
            interval=interval,
            per_seed=tuple(per_seed[name][0].tolist()),
            with_seeds=with_seeds.get(name),
        )
        for name, interval in aggregate_intervals(recalls, task.name, bootstrap).items()
    }


def sample_of(
    row: RowOutcome, task: TaskQueries, *, rows: np.ndarray, score: str
) -> tuple[list[str], Sample]:
    """The metrics' names, and per query their means over the row's seeds."""
    by_seed = sample_by_seed(row, task, rows=rows, score=score)
    values = np.mean([sample.values for sample in by_seed], axis=0)
    names = list(row.runs[0].scored[task.name][score].values)
    return names, replace(by_seed[0], values=values)


def sample_by_seed(
    row: RowOutcome, task: TaskQueries, *, rows: np.ndarray, score: str
) -> list[Sample]:
    """Per run of the row, the values of the metrics of each query."""
    query_ids = [task.query_ids[query] for query in rows]
    return [
        Sample(
            query_ids=query_ids,
            clusters=task.clusters[rows],
            values=np.stack([values[rows] for values in scored.values.values()], axis=1),
        )
        for scored in (run.scored[task.name][score] for run in row.runs)
    ]
