"""The tables on the terminal: a line per row, then each row against the baseline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from ..evaluation import Evaluation
from ..statistics.bootstrap import Interval
from ..statistics.comparisons import Comparison
from ..statistics.summaries import Metric
from .table_notes import notes, protocol_notes

WIDTH: Final = 100
"""Columns of the output: where it is no terminal, and at most. Short row names need 80."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One number of every row."""

    title: str
    """What is searched, in at most ten characters."""
    task: str
    score: str
    metric: str


HEADLINE: Final = (
    Column(title="text→clip", task="text_to_clip", score="global", metric="R@1"),
    Column(title="text→clip", task="text_to_clip", score="segment", metric="R@1"),
    Column(title="text→clip", task="text_to_clip", score="fused", metric="R@1"),
    Column(title="sent.→clip", task="sentence_to_clip", score="segment", metric="R@1"),
    Column(title="grounding", task="grounding", score="segment", metric="accuracy"),
    Column(title="choice", task="multiple_choice", score="fused", metric="accuracy"),
)
"""The first table, and what rows are compared by."""

TOKENS: Final = (
    Column(title="text→clip", task="text_to_clip", score="token", metric="R@1"),
    Column(title="text→clip", task="text_to_clip", score="token", metric="MdR"),
    Column(title="sent.→clip", task="sentence_to_clip", score="token", metric="R@1"),
    Column(title="clip→text", task="clip_to_text", score="token", metric="R@1"),
)
"""A table of its own, where words were compared with frames."""

TASKS: Final = (
    Column(title="moments", task="moments", score="task", metric="R@1 IoU 0.5"),
    Column(title="moments", task="moments", score="task", metric="R@1 IoU 0.7"),
    Column(title="moments", task="moments", score="task", metric="Rank@1"),
    Column(title="moments", task="moments", score="task", metric="Rank@5"),
    Column(title="moments", task="moments", score="task", metric="mIoU"),
    Column(title="moments", task="moments", score="task", metric="mAP"),
    Column(title="highlights", task="highlights", score="segment", metric="HL mAP"),
    Column(title="highlights", task="highlights", score="segment", metric="HIT@1"),
    Column(title="corpus mo.", task="corpus_moments", score="task", metric="R@1 IoU 0.5"),
    Column(title="corpus mo.", task="corpus_moments", score="task", metric="R@1 IoU 0.7"),
    Column(title="answers", task="answers", score="task", metric="accuracy"),
)
"""The third table: by the heads of tasks, or by similarity for rows without them."""

MORE: Final = (
    Column(title="text→clip", task="text_to_clip", score="fused", metric="R@5"),
    Column(title="text→clip", task="text_to_clip", score="fused", metric="MdR"),
    Column(title="clip→text", task="clip_to_text", score="global", metric="R@1"),
    Column(title="clip→text", task="clip_to_text", score="segment", metric="R@1"),
    Column(title="clip→text", task="clip_to_text", score="fused", metric="R@1"),
    Column(title="clip→text", task="clip_to_text", score="fused", metric="MdR"),
)
"""The second table; results.json has everything."""


def print_tables(evaluation: Evaluation) -> None:
    """Print the tables, at most 100 columns wide; a pipe gets them without colour."""
    _print(_parts(evaluation))


def print_comparisons(comparisons: Sequence[Comparison], confidence: float) -> None:
    """Print a table per pair of rows, of the tests that are one family."""
    family = [item for item in comparisons if item.p_holm is not None]
    _print(_comparison_parts(family, confidence, rest="--json has them"))


def _print(parts: Iterable[RenderableType]) -> None:
    console = Console()
    console.width = min(WIDTH, console.width) if console.is_terminal else WIDTH
    for part in parts:
        console.print(part, highlight=False)


def _parts(evaluation: Evaluation) -> Iterator[RenderableType]:
    counts = evaluation.counts
    left_out = counts["failed_clips_left_out"]
    failed = f" ({left_out} without features left out)" if left_out else ""
    yield f"\nSplit {evaluation.features.split}: {_clips(counts)}{failed}"
    for columns in (
        _available_columns(evaluation, part) for part in (HEADLINE, MORE, TOKENS, TASKS)
    ):
        if columns:
            yield ""
            yield _table(evaluation, columns)
    yield ""
    for note in (*protocol_notes(evaluation), *notes(evaluation)):
        yield Text(note, style="dim")
    plain = {row.name for row in evaluation.plain_rows}
    family = [
        item for item in evaluation.comparisons if item.row in plain and item.p_holm is not None
    ]
    yield from _comparison_parts(
        family, evaluation.config.confidence, rest="the page and table.csv have them"
    )


def _clips(counts: Mapping[str, int]) -> str:
    """How many, and of a benchmark of how many."""
    official = counts.get("official_clips")
    return f"{counts['clips']} clips" + (f" found of {official} official" if official else "")


def _available_columns(evaluation: Evaluation, columns: Sequence[Column]) -> list[Column]:
    """The columns whose task, score and metric this evaluation has."""
    available = {
        (summary.task, summary.score, metric)
        for summary in evaluation.summaries[evaluation.rows[0].name]
        for metric in summary.metrics
    }
    return [column for column in columns if (column.task, column.score, column.metric) in available]


def _table(evaluation: Evaluation, columns: Sequence[Column]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("", overflow="fold", min_width=9)
    for column in columns:
        title = f"{column.title}\n{column.score}\n{column.metric}"
        table.add_column(title, justify="right", no_wrap=True)
    for row in evaluation.rows:
        metrics = {
            (summary.task, summary.score): summary.metrics
            for summary in evaluation.summaries[row.name]
            if summary.subset is None
        }
        row_metrics = [metrics.get((column.task, column.score), {}) for column in columns]
        cells = [
            _cell(by_name[column.metric]) if column.metric in by_name else Text()
            for by_name, column in zip(row_metrics, columns, strict=True)
        ]
        if row.normalised is not None and not any(cell.plain for cell in cells):
            continue
        table.add_row(Text(row.name, style="bold"), *cells)
    chance = {(task.name, task.main_metric): _number(task.chance) for task in evaluation.tasks}
    of_chance = [chance.get((column.task, column.metric), "") for column in columns]
    table.add_row("chance", *of_chance, style="dim")
    return table


def _cell(metric: Metric) -> Text:
    interval = metric.interval
    deviation = "" if metric.seed_deviation is None else f" ±{metric.seed_deviation:.1f}"
    bounds = f"{_number(interval.low)}–{_number(interval.high)}"
    return Text(f"{_number(interval.value)}{deviation}\n").append(bounds, style="dim")


def _number(value: float) -> str:
    """One decimal; none where it would not fit (100 %, large ranks)."""
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}"


def _comparison_parts(
    family: Sequence[Comparison], confidence: float, *, rest: str
) -> Iterator[RenderableType]:
    pairs: dict[tuple[str, str], dict[tuple[str, str, str], Comparison]] = {}
    for item in family:
        of_pair = pairs.setdefault((item.row, item.baseline), {})
        of_pair[item.task, item.score, item.metric] = item
    columns = HEADLINE + MORE + TOKENS + TASKS
    num_shown = 0
    for (row, baseline), pair_comparisons in pairs.items():
        keys = [(column.task, column.score, column.metric) for column in columns]
        lines = [
            (column, pair_comparisons[key])
            for column, key in zip(columns, keys, strict=True)
            if key in pair_comparisons
        ]
        num_shown += len(lines)
        yield ""
        yield Text(f"{row} vs {baseline}, paired on the same queries:")
        yield _comparisons(lines)
    if pairs:
        yield ""
        yield Text(_note_on_tests(family, confidence), style="dim")
    if num_left := len(family) - num_shown:
        yield Text(f"{num_left} of the tests are not shown here; {rest}.", style="dim")


def _comparisons(lines: Iterable[tuple[Column, Comparison]]) -> Table:
    """A line for each main metric that the tables have."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_header=False)
    for justify in ("left", "right", "right", "right", "left", "left"):
        table.add_column(justify="right" if justify == "right" else "left", no_wrap=True)
    for column, item in lines:
        name = f"  {column.title} {column.score} {column.metric}:"
        table.add_row(name, *_difference(item))
    return table


def _difference(item: Comparison) -> tuple[str, str, str, str, str]:
    assert item.p_holm is not None
    seeds = "" if item.with_seeds is None else f"seeds {_bounds(item.with_seeds)}"
    p_value = "p < 0.001" if item.p_holm < 0.001 else f"p = {item.p_holm:.3f}"
    difference = item.difference
    around = Interval(value=difference.value, low=difference.low, high=difference.high)
    return (
        f"{difference.value:+.1f}",
        _bounds(around),
        seeds,
        p_value,
        f"({item.num_queries} {'query' if item.num_queries == 1 else 'queries'})",
    )


def _bounds(interval: Interval) -> str:
    return f"[{interval.low:+.1f}, {interval.high:+.1f}]"


def _note_on_tests(family: Sequence[Comparison], confidence: float) -> str:
    """What stands beside the differences."""
    seeds = any(item.with_seeds is not None for item in family)
    drawn = '; after "seeds" that over queries and seeds' if seeds else ""
    return (
        f"Points; in brackets the {100 * confidence:g} % interval over queries{drawn}. p: sign "
        f"flips of whole clips, after Holm over {len(family)} tests (the main metric of every "
        f"task, score and row)."
    )
