"""Rows of two finished reports against each other, on the queries that both have scored.

Runs of two caches (two backbones, say) cannot stand in one report. Their per-query ranks can be
paired all the same, where split, queries, clips and what is searched are the same in both reports:
every fault is said, none is mended. Compared is the main metric of each task, which is the share of
queries whose right item comes first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...data_manifests.core.errors import UserError
from ..scores.metrics import recall_at
from ..scores.queries import Scored, TaskQueries
from ..scores.ranks import Ranks
from ..statistics.bootstrap import Bootstrap
from ..statistics.comparisons import Comparison, compare, with_holm
from ..statistics.summaries import RowOutcome, RunOutcome
from ..tasks.retrieval import FusedWeight
from .results_json import QUERIES_FILE, RESULTS_FILE

KEY: Final = ["row", "run", "task", "score"]
VALUES: Final = ["query_id", "clip_id", "rank", "tied"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishedReport:
    """What a report's folder says about its queries."""

    path: Path
    """The folder."""
    split: str
    """Which one was evaluated."""
    bootstrap: Bootstrap
    """How it was resampled."""
    tasks: Mapping[str, Mapping[str, Any]]
    """By name, as results.json has them."""
    clip_of_query: Mapping[str, Mapping[str, str]]
    """Task -> query id -> clip id, queries by id."""
    rows: Mapping[str, RowOutcome]
    """By name; queries by id."""


def read_report(folder: Path) -> FinishedReport:
    """Raises UserError where the folder has no report, or files of two evaluations."""
    try:
        content = json.loads((folder / RESULTS_FILE).read_text(encoding="utf-8"))
        main = {task["name"]: task["main_metric"] for task in content["tasks"]}
        clip_of_query: dict[str, dict[str, str]] = {task: {} for task in main}
        scored: dict[tuple[str, str | None], dict[str, dict[str, Scored]]] = {}
        for (row, run, task, score), lines in _by_score(folder / QUERIES_FILE):
            pairs = zip(lines["query_id"].to_pylist(), lines["clip_id"].to_pylist(), strict=True)
            clip_of_query[task].update(pairs)
            ranks = Ranks(ranks=lines["rank"].to_numpy() - 1, tied=lines["tied"].to_numpy())
            scores = Scored(ranks=ranks, values={main[task]: recall_at(ranks.ranks, 1)})
            scored.setdefault((row, run), {}).setdefault(task, {})[score] = scores
        settings = content["settings"]
        return FinishedReport(
            path=folder,
            split=content["split"],
            bootstrap=Bootstrap(
                samples=settings["bootstrap_samples"],
                confidence=settings["confidence"],
                seed=settings["seed"],
            ),
            tasks={task["name"]: task for task in content["tasks"]},
            clip_of_query=clip_of_query,
            rows={row["name"]: _row(row, scored, main, folder) for row in content["rows"]},
        )
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise UserError(
            f"{folder}: expected the folder of a report by mlalign-evaluate, with {RESULTS_FILE} "
            f"and {QUERIES_FILE} ({type(error).__name__}: {error})"
        ) from error


def compare_reports(
    first: FinishedReport, second: FinishedReport, *, pairs: Sequence[tuple[str, str]] = ()
) -> list[Comparison]:
    """Rows of the first less rows of the second: those of one name, or the pairs of names.

    Resampled as the first report's settings say. Raises UserError with every reason why the two
    cannot be paired.
    """
    if not pairs:
        pairs = [(name, name) for name in first.rows if name in second.rows]
    faults = [*_row_faults(first, second, pairs), *pairing_faults(first, second)]
    if faults:
        listed = "\n".join(f"  {fault}" for fault in faults)
        raise UserError(f"{first.path} and {second.path} cannot be paired:\n{listed}")
    tasks = [
        _task(task, first.clip_of_query[name])
        for name, task in first.tasks.items()
        if name in second.tasks
    ]
    comparisons = [
        comparison
        for name, baseline in pairs
        for comparison in compare(first.rows[name], second.rows[baseline], tasks, first.bootstrap)
    ]
    return with_holm(comparisons, tasks)


def pairing_faults(first: FinishedReport, second: FinishedReport) -> Iterator[str]:
    """Why queries of the two reports are not the same questions, a line each."""
    if first.split != second.split:
        yield f"split {first.split!r} and split {second.split!r}"
    shared = [name for name in first.tasks if name in second.tasks]
    if not shared:
        yield f"no task in both: {', '.join(first.tasks)} and {', '.join(second.tasks)}"
    for name in shared:
        one, other = first.clip_of_query[name], second.clip_of_query[name]
        if one.keys() != other.keys():
            lost, gained = len(one.keys() - other.keys()), len(other.keys() - one.keys())
            yield f"{name}: {lost} queries only in the first and {gained} only in the second"
        elsewhere = sum(one[query] != other[query] for query in one.keys() & other.keys())
        if elsewhere:
            yield f"{name}: {elsewhere} queries about another clip"
        metrics = [report.tasks[name]["main_metric"] for report in (first, second)]
        if metrics[0] != metrics[1]:
            yield f"{name}: its main metric is {metrics[0]} and {metrics[1]}"
        chances = [report.tasks[name]["chance"] for report in (first, second)]
        if not np.isclose(*chances):
            yield (
                f"{name}: chance is {chances[0]:.4g} and {chances[1]:.4g} percent, so the right "
                f"one is sought among other items"
            )


def _row_faults(
    first: FinishedReport, second: FinishedReport, pairs: Sequence[tuple[str, str]]
) -> Iterator[str]:
    if not pairs:
        yield f"no row in both: {', '.join(first.rows)} and {', '.join(second.rows)}; name them"
    for report, names in zip((first, second), zip(*pairs, strict=True), strict=False):
        for name in names:
            if name not in report.rows:
                yield f"{report.path} has no row {name!r}, only {', '.join(report.rows)}"


def _by_score(path: Path) -> Iterator[tuple[tuple[str, str | None, str, str], pa.Table]]:
    """The lines of each (row, run, task, score), by query id."""
    parts: dict[tuple[str, str | None, str, str], list[pa.Table]] = {}
    with pq.ParquetFile(path) as lines:
        for group in range(lines.num_row_groups):  # each is of one score: so they are written
            table = lines.read_row_group(group, columns=[*KEY, *VALUES])
            (key,) = table.select(KEY).slice(0, 1).to_pylist()
            score_key = (key["row"], key["run"], key["task"], key["score"])
            parts.setdefault(score_key, []).append(table.select(VALUES))
    for score_key, tables in parts.items():
        yield score_key, pa.concat_tables(tables).sort_by("query_id")


def _row(
    row: Mapping[str, Any],
    scored: Mapping[tuple[str, str | None], Mapping[str, Mapping[str, Scored]]],
    main: Mapping[str, str],
    folder: Path,
) -> RowOutcome:
    runs = [
        RunOutcome(
            path=None if run["path"] is None else Path(run["path"]),
            seed=run["seed"],
            weight=FusedWeight(**run["fused_weight"]),
            scored=scored[row["name"], run["path"]],
        )
        for run in row["runs"]
    ]
    for score in row["scores"]:
        task, metric = score["task"], main[score["task"]]
        if score["subset"] is None:
            of_runs = [run.scored[task][score["score"]].values[metric].mean() for run in runs]
            if not np.isclose(np.mean(of_runs), score["metrics"][metric]["value"]):
                raise ValueError(f"the ranks of {row['name']} do not give its {metric} of {task}")
    return RowOutcome(name=f"{row['name']} ({folder})", runs=tuple(runs))


def _task(task: Mapping[str, Any], clip_of_query: Mapping[str, str]) -> TaskQueries:
    query_ids = sorted(clip_of_query)
    _, clips = np.unique([clip_of_query[query] for query in query_ids], return_inverse=True)
    return TaskQueries(
        name=task["name"],
        kind=task["kind"],
        query_ids=query_ids,
        clips=clips,
        chance=task["chance"],
        main_metric=task["main_metric"],
    )
