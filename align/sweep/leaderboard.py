"""The leaderboard of a sweep: means over seeds, paired comparisons, cost against score."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from ...data_manifests.core.atomic_write import atomic_write
from ...data_manifests.core.errors import UserError
from .t_interval import MeanOfSeeds, mean_of_seeds
from .worker import MemberResult

TABLE_FILE: Final = "leaderboard.csv"
PLOT_FILE: Final = "leaderboard.svg"


@dataclass(frozen=True, kw_only=True, slots=True)
class BoardRow:
    """One row of a sweep, over its seeds. Scores in percent."""

    name: str
    """Of the row."""
    seeds: tuple[int, ...]
    """Of the runs that finished."""
    score: MeanOfSeeds | None
    """Of the metric that orders the board, on validation; None where no run finished."""
    metrics: Mapping[str, float]
    """Mean over seeds of every validation metric."""
    difference: MeanOfSeeds | None
    """Row less baseline, paired by seed; None for the baseline, and without a common seed."""
    seconds: float
    """Mean wall time of a run; NaN where none finished."""
    parameters: int
    """Trained numbers."""
    is_pareto: bool
    """Whether no other row is at least as good and as fast, and better in one of them."""
    failures: tuple[str, ...]
    """Why runs failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Leaderboard:
    """Rows of a sweep, best first, those without a finished run last."""

    metric: str
    """That orders it."""
    baseline: str
    """Row that the others are compared with."""
    rows: tuple[BoardRow, ...]


def were_validated(results: Sequence[MemberResult]) -> bool:
    """Whether there is anything to order runs by; without a validation split there is not."""
    finished = [result.summary for result in results if result.summary is not None]
    return not finished or any(summary["metrics"] for summary in finished)


def leaderboard(
    results: Sequence[MemberResult], *, metric: str | None, baseline: str | None
) -> Leaderboard:
    """The board of a sweep's results.

    metric: None takes the first that all finished runs have.   baseline: None takes the first row.
    Raises UserError when finished runs lack the metric, or have none in common.
    """
    groups: dict[str, list[MemberResult]] = {}
    for result in results:
        groups.setdefault(result.member.row, []).append(result)
    metric = _metric(results, metric)
    baseline = next(iter(groups)) if baseline is None else baseline
    scores = {name: _scores(group, metric) for name, group in groups.items()}
    rows = [
        _row(name, group, scores[name], None if name == baseline else scores[baseline])
        for name, group in groups.items()
    ]
    points = [(row.seconds, row.score.mean) for row in rows if row.score is not None]
    rows = [_with_pareto_mark(row, points) for row in rows]
    rows.sort(key=lambda row: -np.inf if row.score is None else row.score.mean, reverse=True)
    return Leaderboard(metric=metric, baseline=baseline, rows=tuple(rows))


def write_leaderboard(board: Leaderboard, out: Path) -> None:
    """Write leaderboard.csv and leaderboard.svg into the sweep's folder."""
    table = io.StringIO()
    writer = csv.DictWriter(table, fieldnames=list(_cells(board, board.rows[0])))
    writer.writeheader()
    writer.writerows(_cells(board, row) for row in board.rows)
    atomic_write(out / TABLE_FILE, table.getvalue())
    if any(row.score is not None for row in board.rows):
        atomic_write(out / PLOT_FILE, lambda path: _plot(board, path))


def board_lines(board: Leaderboard) -> list[str]:
    """The board as text: percent of the metric with its 95 % interval over seeds."""
    head = ["row", board.metric, f"against {board.baseline}", "p", "seconds", "parameters", "seeds"]
    cells = [head]
    for row in board.rows:
        if row.score is None:
            cells.append([row.name, f"failed: {row.failures[0]}", "", "", "", "", "0"])
            continue
        compared = row.difference
        has_p = compared is not None and not np.isnan(compared.p_value)
        cells.append(
            [
                f"{row.name}{' *' if row.is_pareto else ''}",
                _interval(row.score),
                "" if compared is None else _interval(compared, sign="+"),
                f"{compared.p_value:.3f}" if compared is not None and has_p else "",
                f"{row.seconds:.1f}",
                f"{row.parameters:,}",
                f"{len(row.seeds)}" + (f" ({len(row.failures)} failed)" if row.failures else ""),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
    return [
        *lines,
        "Validation, percent; 95 % intervals and p-values over seeds (Student's t, paired).",
        "* No other row is both as fast and as good.",
    ]


def _metric(results: Sequence[MemberResult], chosen: str | None) -> str:
    metrics_of_runs = [
        result.summary["metrics"] for result in results if result.summary is not None
    ]
    if not metrics_of_runs:
        return chosen or "no run finished"
    common = [
        name for name in metrics_of_runs[0] if all(name in metrics for metrics in metrics_of_runs)
    ]
    if chosen is not None and chosen not in common:
        raise UserError(f"not every run has the metric {chosen!r}; all have {', '.join(common)}")
    if not common:
        raise UserError("the runs have no validation metric in common: say which with metric")
    return chosen or common[0]


def _scores(group: Sequence[MemberResult], metric: str) -> dict[int, float]:
    """Percent, by seed."""
    return {
        result.member.config.seed: 100 * float(result.summary["metrics"][metric])
        for result in group
        if result.summary is not None
    }


def _row(
    name: str,
    group: Sequence[MemberResult],
    scores: Mapping[int, float],
    baseline: Mapping[int, float] | None,
) -> BoardRow:
    contents: list[Mapping[str, Any]] = [r.summary for r in group if r.summary is not None]
    common = [seed for seed in scores if baseline is not None and seed in baseline]
    return BoardRow(
        name=name,
        seeds=tuple(scores),
        score=mean_of_seeds(list(scores.values())) if scores else None,
        metrics={
            metric: 100 * float(np.mean([content["metrics"][metric] for content in contents]))
            for metric in (contents[0]["metrics"] if contents else ())
        },
        difference=mean_of_seeds([scores[seed] - baseline[seed] for seed in common])
        if baseline is not None and common
        else None,
        seconds=float(np.mean([c["wall_seconds"] for c in contents])) if contents else np.nan,
        parameters=int(contents[0]["num_parameters"]) if contents else 0,
        is_pareto=False,
        failures=tuple(r.failure for r in group if r.failure is not None),
    )


def _with_pareto_mark(row: BoardRow, points: Sequence[tuple[float, float]]) -> BoardRow:
    """The row with its mark, given seconds and score of all rows."""
    if row.score is None:
        return row
    point = (row.seconds, row.score.mean)
    beaten = any(
        seconds <= point[0] and score >= point[1] and (seconds, score) != point
        for seconds, score in points
    )
    return dataclasses.replace(row, is_pareto=not beaten)


def _cells(board: Leaderboard, row: BoardRow) -> dict[str, Any]:
    score, difference = row.score, row.difference
    return {
        "row": row.name,
        "metric": board.metric,
        "mean": "" if score is None else score.mean,
        "low": "" if score is None else score.low,
        "high": "" if score is None else score.high,
        "seeds": " ".join(map(str, row.seeds)),
        "baseline": board.baseline,
        "difference": "" if difference is None else difference.mean,
        "difference_low": "" if difference is None else difference.low,
        "difference_high": "" if difference is None else difference.high,
        "p_value": "" if difference is None else difference.p_value,
        "seconds": row.seconds,
        "parameters": row.parameters,
        "pareto": row.is_pareto,
        "other_metrics": " ".join(f"{name}={value:.4g}" for name, value in row.metrics.items()),
        "failures": "; ".join(row.failures),
    }


def _interval(value: MeanOfSeeds, sign: str = "") -> str:
    if np.isnan(value.low):
        return f"{value.mean:{sign}.1f}"
    return f"{value.mean:{sign}.1f} [{value.low:{sign}.1f}, {value.high:{sign}.1f}]"


def _plot(board: Leaderboard, path: Path) -> None:
    """Score against seconds, a point with its interval for each row; the Pareto rows filled."""
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for row in board.rows:
        if row.score is None:
            continue
        half = 0.0 if np.isnan(row.score.low) else row.score.mean - row.score.low
        face = None if row.is_pareto else "none"
        axes.errorbar(
            row.seconds, row.score.mean, yerr=half, fmt="o", color="#2b6cb0", markerfacecolor=face
        )
        axes.annotate(
            row.name,
            (row.seconds, row.score.mean),
            xytext=(6, 4),
            textcoords="offset points",
            fontsize=8,
        )
    axes.set_xlabel("seconds for a run")
    axes.set_ylabel(f"{board.metric}, percent (validation)")
    axes.grid(alpha=0.3)
    figure.savefig(path, format="svg")
