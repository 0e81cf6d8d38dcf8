"""Rows against each other, paired by query, and which of the tests are one family."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..scores.queries import TaskQueries
from .bootstrap import Bootstrap, Difference, Interval, paired_differences, paired_sample
from .paired_tests import McNemar, holm, mcnemar, sign_flip_p_values
from .seed_variance import difference_intervals_with_seeds
from .summaries import RowOutcome, sample_by_seed, sample_of, subsets_of


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
    num_clips: int
    """Fewer than queries where queries share clips."""
    difference: Difference
    """Row less baseline, in the metric's unit; the interval speaks of the choice of queries."""
    with_seeds: Interval | None
    """The same with the seeds drawn as well; None where both rows have one seed."""
    p_permutation: float
    """Of the sign-flip test over clips, on means over the seeds."""
    mcnemar: McNemar | None
    """Of queries that are right or wrong; None for other metrics and rows of several seeds."""
    p_holm: float | None = None
    """p_permutation corrected for the tests of its family; None outside of it."""


def compare_rows(
    rows: Sequence[RowOutcome], baseline: str, tasks: Sequence[TaskQueries], bootstrap: Bootstrap
) -> list[Comparison]:
    """Rows with the baseline, then normalised ones with their own row: two families of tests."""
    by_name = {row.name: row for row in rows}
    plain, normalised = [], []
    for row in rows:
        if row.normalised is not None:
            normalised += compare(row, by_name[row.normalised.row], tasks, bootstrap)
        elif row.name != baseline:
            plain += compare(row, by_name[baseline], tasks, bootstrap)
    return [*with_holm(plain, tasks), *with_holm(normalised, tasks)]


def compare(
    row: RowOutcome, baseline: RowOutcome, tasks: Sequence[TaskQueries], bootstrap: Bootstrap
) -> list[Comparison]:
    """Paired differences of every metric that is a mean (all but MdR) and that both rows have."""
    return [
        comparison
        for task in tasks
        for subset, rows in subsets_of(task)
        for score in row.runs[0].scored.get(task.name, {})
        if score in baseline.runs[0].scored.get(task.name, {})
        for comparison in _compared(row, baseline, task, subset, rows, score, bootstrap)
    ]


def with_holm(comparisons: Sequence[Comparison], tasks: Sequence[TaskQueries]) -> list[Comparison]:
    """The comparisons, the p-values of their family corrected for their number.

    The family: the main metric of every task by every score, over all queries, of every row here.
    The other metrics and the subsets follow from the same queries and are there to look at.
    """
    main = {task.name: task.main_metric for task in tasks}
    members = [
        index
        for index, item in enumerate(comparisons)
        if item.subset is None and item.metric == main[item.task]
    ]
    corrected = list(comparisons)
    p_values = holm(np.array([comparisons[index].p_permutation for index in members]))
    for index, p_value in zip(members, p_values.tolist(), strict=True):
        corrected[index] = dataclasses.replace(comparisons[index], p_holm=p_value)
    return corrected


def _compared(
    row: RowOutcome,
    baseline: RowOutcome,
    task: TaskQueries,
    subset: str | None,
    rows: np.ndarray,
    score: str,
    bootstrap: Bootstrap,
) -> list[Comparison]:
    names, first = sample_of(row, task, rows=rows, score=score)
    _, second = sample_of(baseline, task, rows=rows, score=score)
    p_values = sign_flip_p_values(paired_sample(first, second), seed=bootstrap.seed)
    with_seeds: Sequence[Interval | None] = [None] * len(names)
    has_seeds = max(len(row.runs), len(baseline.runs)) > 1
    if has_seeds:
        with_seeds = difference_intervals_with_seeds(
            sample_by_seed(row, task, rows=rows, score=score),
            sample_by_seed(baseline, task, rows=rows, score=score),
            bootstrap,
        )
    return [
        Comparison(
            row=row.name,
            baseline=baseline.name,
            task=task.name,
            subset=subset,
            score=score,
            metric=metric,
            num_queries=len(rows),
            num_clips=len(np.unique(task.clusters[rows])),
            difference=difference,
            with_seeds=with_seeds[column],
            p_permutation=float(p_values[column]),
            mcnemar=None
            if has_seeds
            else mcnemar(first.values[:, column], second.values[:, column]),
        )
        for column, (metric, difference) in enumerate(
            zip(names, paired_differences(first, second, bootstrap), strict=True)
        )
    ]
