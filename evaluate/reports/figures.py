"""The figures of the report's page: SVG that takes its text colour from the page, light or dark."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..statistics.summaries import RowOutcome

INK = "#123456"
"""Stands for the page's text colour until the SVG is written."""
COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e45756", "#72b7b2", "#9d755d", "#eeca3b")
"""Of the rows, in order: told apart on white and on black, and by people who are colour-blind as
far as eight colours go (Vega's category10, reordered)."""
STYLE: dict[Any, Any] = {
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "mlalign",
}
BINS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000, 10_000, 100_000, 1_000_000)
"""First ranks of the bars of the histogram."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """A line with a name."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    colour: int
    """Number of the row it belongs to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """A row less the baseline, with its interval."""

    group: str
    """What was measured."""
    name: str
    """Of the row."""
    colour: int
    """Number of the row."""
    value: float
    low: float
    high: float


def recall_curves(ranks: Mapping[str, Sequence[np.ndarray]]) -> str:
    """Recall against K, to the number of queries' largest rank. ranks: row -> (Q,) 0-based ranks
    of each run; the curve is the mean over runs."""
    largest = max(int(run.max()) + 1 for runs in ranks.values() for run in runs)
    ks = np.unique(np.geomspace(1, largest, 60).round().astype(int))
    figure, axes = _figure("K", "recall at K, percent")
    for colour, (name, runs) in enumerate(ranks.items()):
        recall = [100 * np.mean([np.mean(run < k) for run in runs]) for k in ks]
        axes.plot(ks, recall, label=name, color=_colour(colour))
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(0, 100)
    _legend(axes)
    return _svg(figure)


def rank_histogram(ranks: Mapping[str, Sequence[np.ndarray]]) -> str:
    """How many queries find their item at which rank; bars of each row side by side."""
    largest = max(int(run.max()) + 1 for runs in ranks.values() for run in runs)
    edges = [edge for edge in BINS if edge <= largest]
    labels = [
        f"{first}" if last == first + 1 else f"{first}–{last - 1}"
        for first, last in zip(edges, [*edges[1:], largest + 1], strict=True)
    ]
    figure, axes = _figure("rank of the right item", "queries, percent")
    width = 0.8 / len(ranks)
    for colour, (name, runs) in enumerate(ranks.items()):
        counts = np.zeros(len(edges))
        for run in runs:
            bins = np.searchsorted(edges, run + 1, side="right") - 1
            counts += np.bincount(bins, minlength=len(edges)) / len(run)
        places = np.arange(len(edges)) + (colour - (len(ranks) - 1) / 2) * width
        axes.bar(places, 100 * counts / len(runs), width, label=name, color=_colour(colour))
    axes.set_xticks(range(len(edges)), labels, rotation=30, ha="right")
    _legend(axes)
    return _svg(figure)


def lines(curves: Sequence[Curve], *, x_label: str, y_label: str) -> str:
    """Curves in one figure; those of one row share its colour, and its name in the legend."""
    figure, axes = _figure(x_label, y_label)
    named: set[str] = set()
    for curve in curves:
        label = None if curve.name in named else curve.name
        named.add(curve.name)
        axes.plot(curve.xs, curve.ys, label=label, color=_colour(curve.colour), linewidth=1.2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(axes)
    return _svg(figure)


def bars(groups: Sequence[str], values: Mapping[str, Sequence[float]], *, y_label: str) -> str:
    """A bar of each row for each group. values: row -> one number per group."""
    figure, axes = _figure("", y_label)
    width = 0.8 / len(values)
    for colour, (name, heights) in enumerate(values.items()):
        places = np.arange(len(groups)) + (colour - (len(values) - 1) / 2) * width
        axes.bar(places, heights, width, label=name, color=_colour(colour))
    axes.set_xticks(range(len(groups)), groups, rotation=30, ha="right")
    _legend(axes)
    return _svg(figure)


def differences(items: Sequence[Difference], *, baseline: str) -> str:
    """Differences to the baseline with their intervals, a line for each; groups from the top."""
    groups = list(dict.fromkeys(item.group for item in items))
    names = list(dict.fromkeys(item.name for item in items))
    step = len(names) + 1
    height = 0.9 + 0.16 * step * len(groups)
    figure, axes = _figure(f"less {baseline}, points", "", height=height)
    axes.axvline(0, color=INK, linewidth=0.8, alpha=0.5)
    named: set[str] = set()
    for item in items:
        place = groups.index(item.group) * step + names.index(item.name)
        axes.plot([item.low, item.high], [place, place], color=_colour(item.colour), linewidth=1.4)
        label = None if item.name in named else item.name
        named.add(item.name)
        axes.plot(item.value, place, "o", color=_colour(item.colour), markersize=4, label=label)
    middle = (len(names) - 1) / 2
    axes.set_yticks([index * step + middle for index in range(len(groups))], groups)
    axes.invert_yaxis()
    _legend(axes)
    return _svg(figure)


def timeline(
    spans: np.ndarray,
    similarities: np.ndarray,
    *,
    true_span: Sequence[float],
    scale: tuple[float, float],
) -> str:
    """The similarity of a text with each segment along its clip. spans: (S, 2) seconds; scale: the
    least and the largest similarity of all figures that are looked at together."""
    figure, axes = _figure("seconds", "similarity", height=1.7)
    axes.axvspan(*true_span, color=COLOURS[2], alpha=0.25, linewidth=0)
    for (start, end), value in zip(spans, similarities, strict=True):
        axes.plot([start, end], [value, value], color=COLOURS[0], linewidth=2.5)
    margin = 0.08 * (scale[1] - scale[0]) or 0.05
    axes.set_ylim(scale[0] - margin, scale[1] + margin)
    return _svg(figure)


def _figure(x_label: str, y_label: str, *, height: float = 3.0) -> tuple[Figure, Axes]:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.2, height), layout="constrained")
        axes = figure.subplots()
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
    return figure, axes


def _legend(axes: Axes) -> None:
    """Above the axes, where it hides nothing."""
    axes.legend(
        frameon=False,
        labelcolor=INK,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=4,
        handlelength=1.2,
        borderaxespad=0,
    )


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _svg(figure: Figure) -> str:
    """The figure as an SVG element without size, date or background, the same for equal data."""
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :].replace(INK, "currentColor")
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    return re.sub(r' (?:width|height)="[\d.]+pt"', "", drawing, count=2)


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

    def curves(points: Callable[[list[dict[str, Any]]], Points], y_label: str) -> str | None:
        drawn = [
            Curve(name=name, xs=xs, ys=ys, colour=number)
            for number, name, run_records in records
            for xs, ys in [points(run_records)]
            if xs
        ]
        return lines(drawn, x_label="epoch", y_label=y_label) if drawn else None

    loss_caption = "Loss while training, every run (rows with other losses have other sums)"
    figures = {
        loss_caption: curves(_losses, "loss"),
        "Validation while training, every run": curves(_scores, "validation score, percent"),
    }
    return {caption: figure for caption, figure in figures.items() if figure is not None}


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
    validations = [record for record in records if record["kind"] == "validation"]
    return [record["epoch"] for record in validations], [
        100 * record["score"] for record in validations
    ]
