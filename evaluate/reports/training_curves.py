"""Curves of training: the loss and the validation score of every run after each epoch."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..statistics.summaries import RowOutcome
from .figures import Curve, lines

Points = tuple[list[float], list[float]]
"""Epochs and values."""


def training_figures(rows: Sequence[RowOutcome]) -> dict[str, str]:
    """Caption to figure, of what the runs' metrics.jsonl have; runs without one are left out."""
    records = [
        (number, row.name, _records(run.path / "metrics.jsonl"))
        for number, row in enumerate(rows)
        for run in row.runs
        if run.path is not None
    ]
    figures = {}
    kinds: tuple[tuple[str, str, Callable[[list[dict[str, Any]]], Points]], ...] = (
        (
            "Loss while training, every run (rows with other losses have other sums)",
            "loss",
            _losses,
        ),
        ("Validation while training, every run", "validation score, percent", _scores),
    )
    for caption, y_label, points in kinds:
        curves = [
            Curve(name=name, xs=xs, ys=ys, colour=number)
            for number, name, found in records
            for xs, ys in [points(found)]
            if xs
        ]
        if curves:
            figures[caption] = lines(curves, x_label="epoch", y_label=y_label)
    return figures


def _records(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return []
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def _losses(records: list[dict[str, Any]]) -> Points:
    by_epoch: dict[float, list[float]] = {}
    for record in records:
        if record["kind"] == "step":
            by_epoch.setdefault(record["epoch"], []).append(record["loss"])
    return list(by_epoch), [float(np.mean(losses)) for losses in by_epoch.values()]


def _scores(records: list[dict[str, Any]]) -> Points:
    found = [record for record in records if record["kind"] == "validation"]
    return [record["epoch"] for record in found], [100 * record["score"] for record in found]
