"""The leaderboard of a benchmark: our numbers by dataset and task, published ones beside them."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...data_manifests.cards.card import Card, Reference
from ..inputs.protocols import scored_tasks, segments_note
from ..reports.results_json import RESULTS_FILE
from .run import Cell


@dataclass(frozen=True, kw_only=True, slots=True)
class BoardRow:
    """A row of an evaluation on one task."""

    backbone: str
    row: str
    num_seeds: int
    """That are behind the numbers."""
    num_queries: int
    metrics: Mapping[str, Mapping[str, Any]]
    """By name, as results.json has them: value, low, high, seed_deviation."""
    report: Path
    """The folder of the evaluation."""
    is_normalised: bool
    """Whether its scores are normalised after the fact (QB-Norm ...): never the best."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskTable:
    """All rows of a dataset on one task with one score."""

    task: str
    score: str
    """The last one of the evaluation: fused, or of the task's head."""
    metrics: tuple[str, ...]
    """Columns."""
    main_metric: str
    chance: float
    """Of the main metric."""
    rows: tuple[BoardRow, ...]
    published: tuple[Reference, ...]
    """With the numbers of this task only."""

    def best(self, metric: str) -> float:
        """Of our rows as they are; of ranks the lowest is the best."""
        values = [
            row.metrics[metric]["value"]
            for row in self.rows
            if metric in row.metrics and not row.is_normalised
        ]
        best = min if metric in ("MdR", "MnR") else max
        return float(best(values, default=math.nan))


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetBoard:
    """A dataset of the plan."""

    name: str
    title: str
    split: str
    tables: tuple[TaskTable, ...]
    """The main one first."""
    results: Mapping[str, Mapping[str, Any]]
    """Backbone to the content of results.json, where there is one."""
    failures: Mapping[tuple[str, str], str]
    """Backbone and row (or row and seed) to reason."""
    elsewhere: tuple[Reference, ...]
    """Published numbers of metrics that no table has."""
    notes: tuple[str, ...]
    """Of the card: what a reader must know before comparing."""

    @property
    def assumptions(self) -> dict[str, str]:
        """Of its normalised rows: label to what it takes for granted."""
        return {
            row["name"].removeprefix(f"{row['normalised']['row']} + "): row["normalised"][
                "assumption"
            ]
            for results in self.results.values()
            for row in results["rows"]
            if row["normalised"] is not None
        }

    @property
    def segment_notes(self) -> list[str]:
        """What must be known of how segments were cut, each once."""
        notes = [segments_note(results["segment_rule"]) for results in self.results.values()]
        return list(dict.fromkeys(note for note in notes if note is not None))

    def has_failed(self, backbone: str, row: str) -> bool:
        """Whether the row as a whole, or a seed of it, has a reason."""
        return any(
            of == backbone and (name == row or re.fullmatch(rf"{re.escape(row)}-seed\d+", name))
            for of, name in self.failures
        )

    @property
    def reasons(self) -> dict[str, str]:
        """Each reason of failures to who has it: backbones, and their rows."""
        owners_of_reason: dict[str, dict[str, list[str]]] = {}
        for (backbone, row), reason in self.failures.items():
            owners_of_reason.setdefault(reason, {}).setdefault(backbone, []).append(row)
        return {
            reason: "; ".join(f"{name}: {', '.join(rows)}" for name, rows in owners.items())
            for reason, owners in owners_of_reason.items()
        }


def leaderboard(cells: Sequence[Cell]) -> list[DatasetBoard]:
    """A board for each dataset, in the plan's order."""
    by_dataset: dict[str, list[Cell]] = {}
    for cell in cells:
        by_dataset.setdefault(cell.dataset.name, []).append(cell)
    return [_board(group) for group in by_dataset.values()]


def csv_rows(boards: Sequence[DatasetBoard]) -> Iterator[dict[str, Any]]:
    """A line for each number of ours with every score and subset, each published one, each
    failure."""
    for board in boards:
        for backbone, results in board.results.items():
            for row in results["rows"]:
                named: dict[str, Any] = {"dataset": board.name, "split": board.split}
                named |= {
                    "backbone": backbone,
                    "row": row["name"],
                    "status": "ok",
                    "seeds": len(row["runs"]),
                }
                yield from ({**named, **cells} for cells in _score_cells(row["scores"]))
        for (backbone, row), reason in board.failures.items():
            named = {"dataset": board.name, "split": board.split, "backbone": backbone}
            yield {**named, "row": row, "status": "failed", "note": reason}
        placed = [(table.task, row) for table in board.tables for row in table.published]
        for task, published in [*placed, *(("", row) for row in board.elsewhere)]:
            status = "published" if published.checked else "published, not checked"
            for metric, value in published.numbers.items():
                yield {
                    "dataset": board.name,
                    "row": published.method,
                    "status": status,
                    "task": task,
                    "metric": metric,
                    "value": value,
                    "note": published.source,
                }


def _score_cells(scores: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for score in scores:
        for metric, number in score["metrics"].items():
            yield {
                "task": score["task"],
                "subset": score["subset"],
                "score": score["score"],
                "metric": metric,
                "queries": score["num_queries"],
                **{name: number[name] for name in ("value", "low", "high", "seed_deviation")},
            }


def _board(cells: Sequence[Cell]) -> DatasetBoard:
    dataset, card = cells[0].dataset, cells[0].card
    results = {
        cell.backbone.name: json.loads((cell.report / RESULTS_FILE).read_text(encoding="utf-8"))
        for cell in cells
        if cell.report is not None
    }
    reports = {cell.backbone.name: cell.report for cell in cells if cell.report is not None}
    tasks = {task["name"]: task for content in results.values() for task in content["tasks"]}
    main = main_tasks(card, list(tasks))
    ordered = [*main, *(name for name in tasks if name not in main)]
    tables = [_table(tasks[name], results, reports) for name in ordered]
    placed, elsewhere = _place(card, tables)
    return DatasetBoard(
        name=dataset.name,
        title=card.title if card is not None else "",
        split=next((content["split"] for content in results.values()), ""),
        tables=tuple(
            dataclasses.replace(table, published=tuple(placed.get(table.task, ())))
            for table in tables
        ),
        results=results,
        failures={
            (cell.backbone.name, row): reason
            for cell in cells
            for row, reason in cell.failures.items()
        },
        elsewhere=tuple(elsewhere),
        notes=card.notes if card is not None else (),
    )


def main_tasks(card: Card | None, there: Sequence[str]) -> list[str]:
    """The tasks of an evaluation whose numbers the card has, of those that are there."""
    if card is None:
        return []
    # Where moments are searched in all clips, the card's numbers are not of one's own clip.
    others = {"moments"} if card.moments is not None and card.moments.corpus else set()
    return [name for name in scored_tasks(card) if name in there and name not in others]


def _table(
    task: Mapping[str, Any],
    results: Mapping[str, Mapping[str, Any]],
    reports: Mapping[str, Path],
) -> TaskTable:
    rows, score = [], ""
    for backbone, content in results.items():
        for row in content["rows"]:
            summaries = [
                summary
                for summary in row["scores"]
                if summary["task"] == task["name"] and summary["subset"] is None
            ]
            if not summaries:
                continue
            score = summaries[-1]["score"]
            rows.append(
                BoardRow(
                    backbone=backbone,
                    row=row["name"],
                    num_seeds=len(row["runs"]),
                    num_queries=summaries[-1]["num_queries"],
                    metrics=summaries[-1]["metrics"],
                    report=reports[backbone],
                    is_normalised=row["normalised"] is not None,
                )
            )
    return TaskTable(
        task=task["name"],
        score=score,
        metrics=tuple(dict.fromkeys(name for row in rows for name in row.metrics)),
        main_metric=task["main_metric"],
        chance=task["chance"],
        rows=tuple(rows),
        published=(),
    )


def _place(
    card: Card | None, tables: Sequence[TaskTable]
) -> tuple[dict[str, list[Reference]], list[Reference]]:
    """A card's numbers by the task whose table has their metric, and those without one."""
    placed: dict[str, list[Reference]] = {}
    elsewhere: list[Reference] = []
    if card is None:
        return placed, elsewhere
    main = main_tasks(card, [table.task for table in tables])
    columns = {table.task: table.metrics for table in tables if table.task in main}
    for reference in card.references:
        of_task: dict[str | None, dict[str, float]] = {}
        for name, value in reference.numbers.items():
            metric = name.replace(",", "")  # cards write "R@1, IoU 0.5"
            task = next((task for task, metrics in columns.items() if metric in metrics), None)
            of_task.setdefault(task, {})[metric if task is not None else name] = value
        for task, numbers in of_task.items():
            row = dataclasses.replace(reference, numbers=numbers)
            if task is None:
                elsewhere.append(row)
            else:
                placed.setdefault(task, []).append(row)
    return placed, elsewhere
