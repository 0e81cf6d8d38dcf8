"""What an evaluation leaves on disk: results.json, queries.parquet and the resolved settings
(and table.csv and table.tex, by `table_files`).

results.json (numbers: R@K, Rsum, mAP, accuracy and mIoU in percent; MdR, MnR from 1; MRR and
nDCG@10 from 0 to 1)
    card {name, title, tasks [names], rules [lines], other_than_the_card [lines], notes,
          references [{method, numbers {metric: value}, source, checked}]}      without one: null
    format, settings, split, segment_rule, counts {what: number}
    cache {path, key}                                     similarities from outside: null
    tasks [{name, kind, num_queries, main_metric, chance}]     chance: of guessing, main metric
    rows [{name,
           normalised {row, name, assumption},                 scores as they are: null
           runs [{path, seed, fused_weight {value, chosen_on, reason},     zero-shot: path null
                  index_effect {factory, search, num_segments, num_bytes, build_seconds,
                                segment_recall_at_10, weight, exact {R@K: number},
                                approximate {R@K: number}}}]               exact index: null
           scores [{task, subset, score, num_queries, num_tied [per run],
                    metrics {name: {value, low, high, with_seeds {low, high},
                                    per_seed [..], seed_deviation}}}]}]
           low, high: over queries; with_seeds: over queries and seeds, null for one seed
    comparisons [{row, baseline, task, subset, score, metric, num_queries, num_clips,
                  difference, low, high, with_seeds {low, high}, p_bootstrap, p_permutation,
                  mcnemar {gained, lost, p_value}, p_holm}]
           p_holm: p_permutation corrected over the main metrics of all tasks, scores and rows,
           rows as they are and normalised ones (against their own row) apart; null for other
           metrics and subsets. mcnemar: null for means over seeds and other values

queries.parquet, a line per row, run, task, score and query
    row, run (folder; null for zero-shot), seed, task, score, query_id, clip_id (the query's clip)
    rank (1 is first; halves with ties at their mean), tied
    iou (of the chosen segment or span, percent)
    shown_ids, shown_scores, shown_starts, shown_ends (lists, best first; seconds in the clip)
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...data_manifests.core.atomic_write import atomic_write, check_writable
from ...data_manifests.core.errors import UserError
from ...data_manifests.core.settings import save_settings, settings_dict
from ..evaluation import Evaluation
from ..inputs.protocols import protocol_json
from ..scores.best_items import BestItems
from ..scores.queries import Scored, TaskQueries
from ..statistics.bootstrap import Interval
from ..statistics.comparisons import Comparison
from ..statistics.summaries import RowOutcome, RunOutcome, ScoreSummary
from .table_files import write_tables

FORMAT: Final = 1
RESULTS_FILE: Final = "results.json"
QUERIES_FILE: Final = "queries.parquet"
CONFIG_FILE: Final = "config.yaml"

_NAME = pa.dictionary(pa.int32(), pa.string())
QUERIES: Final = pa.schema(
    [
        ("row", _NAME),
        ("run", _NAME),
        ("seed", pa.int64()),
        ("task", _NAME),
        ("score", _NAME),
        ("query_id", pa.string()),
        ("clip_id", pa.string()),
        ("rank", pa.float64()),
        ("tied", pa.bool_()),
        ("iou", pa.float64()),
        ("shown_ids", pa.list_(pa.string())),
        ("shown_scores", pa.list_(pa.float32())),
        ("shown_starts", pa.list_(pa.float64())),
        ("shown_ends", pa.list_(pa.float64())),
    ]
)


def check_report_folder(folder: Path) -> None:
    """Raise UserError when `folder` cannot become the report's folder; called before any work."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: give the report's folder with -o")
    check_writable(folder)


def write_report(evaluation: Evaluation, folder: Path) -> None:
    """Write all files but the page, each replaced at once or not at all; results.json is last."""
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps(results_json(evaluation), indent=2, allow_nan=False) + "\n"
    save_settings(evaluation.config, folder / CONFIG_FILE)
    write_tables(evaluation, folder)
    atomic_write(folder / QUERIES_FILE, lambda path: _write_queries(evaluation, path))
    atomic_write(folder / RESULTS_FILE, content)


def results_json(evaluation: Evaluation) -> dict[str, Any]:
    """The content of results.json; the module's docstring is its schema."""
    features = evaluation.features
    return {
        "format": FORMAT,
        "settings": settings_dict(evaluation.config),
        "cache": None
        if evaluation.cache is None
        else {"path": str(evaluation.cache), "key": features.cache_key},
        "card": protocol_json(evaluation.config, [task.name for task in evaluation.tasks]),
        "split": features.split,
        "segment_rule": features.segment_rule,
        "counts": evaluation.counts,
        "tasks": [
            {
                "name": task.name,
                "kind": task.kind,
                "num_queries": len(task.query_ids),
                "main_metric": task.main_metric,
                "chance": task.chance,
            }
            for task in evaluation.tasks
        ],
        "rows": [
            {
                "name": row.name,
                "normalised": None if row.normalised is None else asdict(row.normalised),
                "runs": [_run_json(run) for run in row.runs],
                "scores": [_score_json(score) for score in evaluation.summaries[row.name]],
            }
            for row in evaluation.rows
        ],
        "comparisons": [comparison_json(comparison) for comparison in evaluation.comparisons],
    }


def _run_json(run: RunOutcome) -> dict[str, Any]:
    path = None if run.path is None else str(run.path)
    effect = None if run.index_effect is None else asdict(run.index_effect)
    return {
        "path": path,
        "seed": run.seed,
        "fused_weight": asdict(run.weight),
        "index_effect": effect,
    }


def _score_json(score: ScoreSummary) -> dict[str, Any]:
    metrics = {
        name: {
            **asdict(metric.interval),
            "with_seeds": _bounds_json(metric.with_seeds),
            "per_seed": list(metric.per_seed),
            "seed_deviation": metric.seed_deviation,
        }
        for name, metric in score.metrics.items()
    }
    return {
        "task": score.task,
        "subset": score.subset,
        "score": score.score,
        "num_queries": score.num_queries,
        "num_tied": list(score.num_tied),
        "metrics": metrics,
    }


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """As in results.json."""
    content: dict[str, Any] = asdict(comparison)
    difference: dict[str, float] = content.pop("difference")
    content["with_seeds"] = _bounds_json(comparison.with_seeds)
    return {**content, "difference": difference.pop("value"), **difference}


def _bounds_json(interval: Interval | None) -> dict[str, float] | None:
    return None if interval is None else {"low": interval.low, "high": interval.high}


def _write_queries(evaluation: Evaluation, path: Path) -> None:
    # An open file: pyarrow takes a path with a colon in it for an address.
    with path.open("wb") as file, pq.ParquetWriter(file, QUERIES, compression="zstd") as writer:
        for row in evaluation.rows:
            for run in row.runs:
                for task in evaluation.tasks:
                    for score, scored in run.scored.get(task.name, {}).items():
                        writer.write_table(_query_table(evaluation, row, run, task, score, scored))


def _query_table(
    evaluation: Evaluation,
    row: RowOutcome,
    run: RunOutcome,
    task: TaskQueries,
    score: str,
    scored: Scored,
) -> pa.Table:
    num = len(task.query_ids)
    clip_ids = evaluation.features.clip_ids
    columns = {
        "row": _repeated(row.name, num),
        "run": _repeated(None if run.path is None else str(run.path), num),
        "seed": pa.array([run.seed] * num, pa.int64()),
        "task": _repeated(task.name, num),
        "score": _repeated(score, num),
        "query_id": pa.array(task.query_ids, pa.string()),
        "clip_id": pa.array([clip_ids[clip] for clip in task.clips], pa.string()),
        "rank": pa.array(scored.ranks.ranks + 1.0),
        "tied": pa.array(scored.ranks.tied),
        "iou": pa.array(scored.values["mIoU"]) if "mIoU" in scored.values else _nulls("iou", num),
        **_best_item_columns(scored.best_items, task.item_ids, num),
    }
    return pa.table(columns, schema=QUERIES)


def _best_item_columns(
    best: BestItems | None, item_ids: list[str], num: int
) -> dict[str, pa.Array]:
    """The lists of the best items, built from flat arrays: there may be millions of them."""
    if best is None:
        names = ("shown_ids", "shown_scores", "shown_starts", "shown_ends")
        return {name: _nulls(name, num) for name in names}
    k = best.items.shape[1]
    offsets = pa.array(np.arange(0, k * num + 1, k, dtype=np.int32))

    def lists(values: pa.Array) -> pa.Array:
        return pa.ListArray.from_arrays(offsets, values)

    ids = pa.array(item_ids, pa.string()).take(pa.array(best.items.ravel()))
    columns = {"shown_ids": lists(ids), "shown_scores": lists(pa.array(best.scores.ravel()))}
    for side, name in enumerate(("shown_starts", "shown_ends")):
        columns[name] = (
            _nulls(name, num)
            if best.spans is None
            else lists(pa.array(best.spans[:, :, side].ravel()))
        )
    return columns


def _repeated(value: str | None, num: int) -> pa.Array:
    return pa.array([value] * num, pa.string()).dictionary_encode()


def _nulls(column: str, num: int) -> pa.Array:
    return pa.nulls(num, QUERIES.field(column).type)
