"""leaderboard.html, leaderboard.csv and the lines on the terminal: a benchmark for people."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ...data_manifests.core.atomic_write import atomic_write
from ..reports.page import PAGE_FILE
from ..reports.render import write_page_of
from ..statistics.summaries import metric_text
from .board import DatasetBoard, TaskTable, csv_rows
from .plan import BenchPlan

BOARD_PAGE: Final = "leaderboard.html"
BOARD_TABLE: Final = "leaderboard.csv"
COLUMNS: Final = (
    *("dataset", "split", "backbone", "row", "seeds", "status", "task", "subset", "score"),
    *("metric", "value", "low", "high", "seed_deviation", "queries", "note"),
)


def write_board(plan: BenchPlan, boards: Sequence[DatasetBoard], out: Path) -> Path:
    """Write the page and the table into the benchmark's folder; the path of the page.

    The page holds all it shows; its links go to the reports below the same folder.
    """
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS, restval="")
    writer.writeheader()
    writer.writerows(csv_rows(boards))
    atomic_write(out / BOARD_TABLE, table.getvalue())
    content: dict[str, Any] = {
        "boards": boards,
        "mains": [board.tables[0] if board.tables else None for board in boards],
        "lines": [(b.name, row) for b in plan.backbones for row in plan.rows()],
        "seeds": plan.seeds,
        "has_published": any(
            board.elsewhere or any(table.published for table in board.tables) for board in boards
        ),
        "number": metric_text,
        "row_of": row_of,
        "link": lambda report: os.path.relpath(report / PAGE_FILE, out),
    }
    write_page_of("leaderboard.html", out / BOARD_PAGE, content)
    return out / BOARD_PAGE


def board_lines(boards: Sequence[DatasetBoard]) -> list[str]:
    """A line for each row of each dataset: its main number, or why it has none."""
    lines = []
    for board in boards:
        if board.tables:
            table = board.tables[0]
            lines.append(f"{board.name}: {table.task.replace('_', ' ')} {table.main_metric}")
            for row in table.rows:
                number = row.metrics[table.main_metric]
                low, high = (metric_text(table.main_metric, number[s]) for s in ("low", "high"))
                value = metric_text(table.main_metric, number["value"])
                lines.append(f"  {row.backbone} {row.row}: {value} [{low}, {high}]")
            lines += [_published_line(row, table.main_metric) for row in table.published]
        else:
            lines.append(f"{board.name}:")
        lines += [f"  failed ({who}): {reason}" for reason, who in board.reasons.items()]
    return [line for line in lines if line]


def row_of(table: TaskTable | None, backbone: str, row: str) -> Any:
    """The row of a table, or None."""
    for candidate in table.rows if table is not None else ():
        if (candidate.backbone, candidate.row) == (backbone, row):
            return candidate
    return None


def _published_line(row: Any, metric: str) -> str:
    if metric not in row.numbers:
        return ""
    doubt = "" if row.checked else ", not checked"
    return f"  published: {row.method}: {row.numbers[metric]:g}{doubt}"
