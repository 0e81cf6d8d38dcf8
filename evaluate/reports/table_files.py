"""table.csv and table.tex: the numbers of a report for a spreadsheet and for a paper.

table.csv has a line per row, task, subset, score and metric: the value, its interval over queries
(low, high) and over queries and seeds (seeds_low, seeds_high), and where it was compared, the
difference from its baseline with the same intervals and p-values. Empty: does not apply.

table.tex has a booktabs table per task, to be \\input: the best of each column in bold, intervals
in a small line below; normalised rows stand below a rule, and no bold there.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ...data_manifests.core.atomic_write import atomic_write
from ..evaluation import Evaluation
from ..inputs.protocols import segments_note
from ..scores.queries import TaskQueries
from ..statistics.comparisons import Comparison
from ..statistics.normalised_rows import assumptions
from ..statistics.summaries import SHARES, Metric, RowOutcome, ScoreSummary, metric_text

CSV_FILE: Final = "table.csv"
TEX_FILE: Final = "table.tex"
COLUMNS: Final = (
    *("row", "normalised_from", "task", "subset", "score", "metric", "num_queries", "num_seeds"),
    *("value", "low", "high", "seeds_low", "seeds_high", "seed_deviation"),
    *("baseline", "difference", "difference_low", "difference_high"),
    *("difference_seeds_low", "difference_seeds_high", "p_permutation", "p_holm"),
)
LOWER_IS_BETTER: Final = ("MdR", "MnR")
_SPECIAL: Final = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "`": r"\textasciigrave{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # at the start of a line they would be arguments of the line break before
    "*": "{*}",
    **{character: "\\" + character for character in "&%$#_{}"},
}


def write_tables(evaluation: Evaluation, folder: Path) -> None:
    """Write both files, each replaced at once or not at all."""
    contents = {CSV_FILE: csv_table(evaluation), TEX_FILE: tex_tables(evaluation)}
    for name, content in contents.items():
        atomic_write(folder / name, content)


def csv_table(evaluation: Evaluation) -> str:
    """Every number, a line each."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    compared = {
        (item.row, item.task, item.subset, item.score, item.metric): item
        for item in evaluation.comparisons
    }
    for row in evaluation.rows:
        for summary in evaluation.summaries[row.name]:
            of_summary = (row.name, summary.task, summary.subset, summary.score)
            for name, metric in summary.metrics.items():
                difference = _difference(compared.get((*of_summary, name)))
                writer.writerow(_line(row, summary, name, metric) | difference)
    return text.getvalue()


def tex_tables(evaluation: Evaluation) -> str:
    """A table environment per task."""
    parts = ["% \\usepackage{booktabs}"]
    for task in evaluation.tasks:
        parts += ["", *_tex_table(evaluation, task)]
    return "\n".join(parts) + "\n"


def tex(text: str) -> str:
    """The text as LaTeX sets it, on one line; several hyphens stay hyphens."""
    one_line = re.sub(r"[\x00-\x20\x7f]+", " ", text)
    escaped = "".join(_SPECIAL.get(character, character) for character in one_line)
    return escaped.replace("--", "-{}-").replace("--", "-{}-")


def _line(row: RowOutcome, summary: ScoreSummary, name: str, metric: Metric) -> dict[str, Any]:
    seeds = metric.with_seeds
    return {
        "row": row.name,
        "normalised_from": None if row.normalised is None else row.normalised.row,
        "task": summary.task,
        "subset": summary.subset,
        "score": summary.score,
        "metric": name,
        "num_queries": summary.num_queries,
        "num_seeds": len(metric.per_seed),
        "value": metric.interval.value,
        "low": metric.interval.low,
        "high": metric.interval.high,
        "seeds_low": None if seeds is None else seeds.low,
        "seeds_high": None if seeds is None else seeds.high,
        "seed_deviation": metric.seed_deviation,
    }


def _difference(item: Comparison | None) -> dict[str, Any]:
    if item is None:
        return {}
    seeds = item.with_seeds
    return {
        "baseline": item.baseline,
        "difference": item.difference.value,
        "difference_low": item.difference.low,
        "difference_high": item.difference.high,
        "difference_seeds_low": None if seeds is None else seeds.low,
        "difference_seeds_high": None if seeds is None else seeds.high,
        "p_permutation": item.p_permutation,
        "p_holm": item.p_holm,
    }


def _tex_table(evaluation: Evaluation, task: TaskQueries) -> Iterator[str]:
    groups = [evaluation.plain_rows, [row for row in evaluation.rows if row.normalised]]
    plain, normalised = (
        [(row, summary) for row in rows for summary in _of_task(evaluation, row, task)]
        for rows in groups
    )
    metrics = list(dict.fromkeys(name for _, summary in plain for name in summary.metrics))
    best = {name: _best(name, [summary for _, summary in plain]) for name in metrics}
    yield r"\begin{table}"
    yield r"\centering"
    yield f"\\caption{{{_caption(evaluation, task, [*plain, *normalised])}}}"
    yield f"\\label{{tab:{task.name}}}"
    yield f"\\begin{{tabular}}{{ll{'r' * len(metrics)}}}"
    yield r"\toprule"
    yield _line_of(["row", "score", *map(tex, metrics)])
    yield r"\midrule"
    for row, summary in plain:
        yield from _lines_of(row, summary, best)
    if normalised:
        yield r"\midrule"
    for row, summary in normalised:
        yield from _lines_of(row, summary, dict.fromkeys(metrics))
    yield r"\bottomrule"
    yield r"\end{tabular}"
    yield r"\end{table}"


def _caption(
    evaluation: Evaluation, task: TaskQueries, lines: Sequence[tuple[RowOutcome, ScoreSummary]]
) -> str:
    """What a reader of the table alone must know."""
    name, split = tex(task.name.replace("_", " ")), tex(evaluation.features.split)
    confidence = f"{100 * evaluation.config.confidence:g}"
    metrics = {name: metric for _, summary in lines for name, metric in summary.metrics.items()}
    kinds = ((LOWER_IS_BETTER, "rank"), (SHARES, "from 0 to 1"))
    others = [
        f"; {', '.join(there)}: {what}"
        for names, what in kinds
        if (there := [tex(metric) for metric in names if metric in metrics])
    ]
    has_seeds = any(
        metric.seed_deviation is not None
        for _, summary in lines
        for metric in summary.metrics.values()
    )
    seeds = r"; means over seeds $\pm$ their standard deviation" if has_seeds else ""
    note = segments_note(evaluation.features.segment_rule)
    assumed = assumptions([row for row, _ in lines])
    return " ".join(
        [
            f"{name}, split {split}, {len(task.query_ids):,} queries.",
            f"Percent{''.join(others)}{seeds}.",
            f"Below: {confidence}\\,\\% bootstrap intervals over queries.",
            *([] if note is None else [tex(note.split(". ")[0]) + "."]),
            *(f"{tex(label)}: {tex(text)}." for label, text in assumed.items()),
        ]
    )


def _of_task(evaluation: Evaluation, row: RowOutcome, task: TaskQueries) -> list[ScoreSummary]:
    return [
        summary
        for summary in evaluation.summaries[row.name]
        if summary.task == task.name and summary.subset is None
    ]


def _best(name: str, summaries: Sequence[ScoreSummary]) -> str:
    """The best value of a column as it is printed: what looks equal is equally bold."""
    metrics = (summary.metrics.get(name) for summary in summaries)
    there = [metric.interval.value for metric in metrics if metric is not None]
    return metric_text(name, min(there) if name in LOWER_IS_BETTER else max(there))


def _lines_of(
    row: RowOutcome, summary: ScoreSummary, best: Mapping[str, str | None]
) -> Iterator[str]:
    metrics = [(name, summary.metrics.get(name)) for name in best]
    numbers = ["" if one is None else _number(name, one, best[name]) for name, one in metrics]
    bounds = ["" if one is None else _bounds(name, one) for name, one in metrics]
    yield _line_of([tex(row.name), tex(summary.score), *numbers])
    yield _line_of(["", "", *bounds])


def _line_of(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _number(name: str, metric: Metric, best: str | None) -> str:
    number = metric_text(name, metric.interval.value)
    value = f"\\textbf{{{number}}}" if number == best else number
    deviation = metric.seed_deviation
    return value if deviation is None else f"{value} $\\pm$ {metric_text(name, deviation)}"


def _bounds(name: str, metric: Metric) -> str:
    low, high = (metric_text(name, at) for at in (metric.interval.low, metric.interval.high))
    return f"{{\\scriptsize {low}--{high}}}"
