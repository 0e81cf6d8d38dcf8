"""report.html: the numbers, figures and pictures of an evaluation on one page of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from ...data_manifests.cards.card import Reference, load_card
from ..evaluation import Evaluation
from ..inputs.protocols import protocol_json, scored_tasks, segments_note
from ..scores.queries import TaskQueries
from ..scores.vectors import embed
from ..statistics.comparisons import Comparison
from ..statistics.normalised_rows import assumptions
from ..statistics.summaries import RowOutcome, metric_text
from .figures import bars, rank_histogram, recall_curves, timeline, training_figures
from .gallery import disagreements, gallery
from .render import write_page_of
from .row_comparisons import compared_queries, comparison_figure

PAGE_FILE: Final = "report.html"
MOMENTS: Final = 6
"""Texts whose similarity along their clip is drawn."""
LISTED: Final = 8
"""Queries that are listed where levels disagree."""


def write_page(evaluation: Evaluation, folder: Path) -> Path:
    """Write the page beside the other files of the report; its path.

    It holds all it shows: no script, no network, and pictures only of videos that are there.
    """
    path = folder / PAGE_FILE
    write_page_of("report.html", path, _content(evaluation))
    return path


def _content(evaluation: Evaluation) -> dict[str, Any]:
    features = evaluation.features
    best = best_row(evaluation)
    run = best.runs[0]
    searched = _searched(evaluation.tasks)
    has_levels = False
    content: dict[str, Any] = {
        "cache": None if evaluation.cache is None else str(evaluation.cache),
        "split": features.split,
        "segments": features.segment_rule,
        "segments_note": segments_note(features.segment_rule),
        "counts": evaluation.counts,
        "protocol": _protocol(evaluation),
        "config": evaluation.config,
        "rows": [row.name for row in evaluation.rows],
        "best": best.name,
        "first_run": f"; the first of {len(best.runs)} runs" if len(best.runs) > 1 else "",
        "tables": [_table(evaluation, task) for task in tasks_in_order(evaluation)],
        "families": _families(evaluation),
        "number": metric_text,
        "bounds": lambda metric, interval: (
            f"{metric_text(metric, interval.low)}–{metric_text(metric, interval.high)}"
        ),
        "p_value": lambda p: "< 0.001" if p < 0.001 else f"{p:.3f}",
        "weights": {row.name: [run.weight for run in row.runs] for row in evaluation.plain_rows},
        "assumptions": assumptions(evaluation.rows),
        "effects": [
            (row.name, run.index_effect)
            for row in evaluation.rows
            for run in row.runs
            if run.index_effect is not None
        ],
        "training": training_figures(evaluation.plain_rows),
        "differences": comparison_figure(evaluation),
        "types": _type_bars(evaluation),
        "searched": None,
        "moments": _moments(evaluation, best),
    }
    if searched is not None:
        scores = list(run.scored[searched.name])
        score = scores[-1]  # fused, or the only one
        ranks = {
            row.name: [run.scored[searched.name][score].ranks.ranks for run in row.runs]
            for row in evaluation.plain_rows
        }
        has_levels = "segment" in scores
        gains, losses = disagreements(searched, run, features) if has_levels else ([], [])
        is_kept = run.scored[searched.name][score].best_items is not None
        queries = gallery(searched, run, score, features, evaluation.places) if is_kept else {}
        content["searched"] = {
            "name": searched.name,
            "score": score,
            "recall": recall_curves(ranks),
            "histogram": rank_histogram(ranks),
            "gains": gains[:LISTED],
            "num_gains": len(gains),
            "losses": losses[:LISTED],
            "num_losses": len(losses),
            "num_queries": len(searched.query_ids),
            "compared": compared_queries(evaluation, searched, score),
            "gallery": queries,
            "has_pictures": any(
                query.right.picture is not None
                for shown_query in queries.values()
                for query in shown_query
            ),
        }
    content["parts"] = {
        "protocol": content["protocol"] is not None,
        "numbers": True,
        "figures": True,
        "compare": content["differences"] is not None,
        "levels": searched is not None and has_levels,
        "moments": bool(content["moments"]),
        "gallery": searched is not None and bool(content["searched"]["gallery"]),
    }
    return content


def _protocol(evaluation: Evaluation) -> dict[str, Any] | None:
    """The card's rules and published numbers; None without a card."""
    config = evaluation.config
    protocol = protocol_json(config, [task.name for task in evaluation.tasks])
    if config.card is not None and protocol is not None:
        protocol["published"] = _published(load_card(config.card).references)
    return protocol


def _published(references: Sequence[Reference]) -> dict[str, Any] | None:
    """A table with a column for each metric; None without references."""
    metrics = list(dict.fromkeys(name for item in references for name in item.numbers))
    return {"metrics": metrics, "references": references} if references else None


def tasks_in_order(evaluation: Evaluation) -> list[TaskQueries]:
    """The tasks, first those that the card is about."""
    card = evaluation.config.card
    names = () if card is None else scored_tasks(load_card(card))
    return sorted(evaluation.tasks, key=lambda task: task.name not in names)


def best_row(evaluation: Evaluation) -> RowOutcome:
    """The row with the highest main metric of the first task, by its last score (fused)."""
    task = tasks_in_order(evaluation)[0]

    def value(row: RowOutcome) -> float:
        found = [
            summary.metrics[task.main_metric].interval.value
            for summary in evaluation.summaries[row.name]
            if summary.task == task.name and summary.subset is None
        ]
        return found[-1]

    return max(evaluation.plain_rows, key=value)


def _searched(tasks: Sequence[TaskQueries]) -> TaskQueries | None:
    """The task that texts search clips in, global ones before sentences."""
    names = {task.name: task for task in tasks}
    return names.get("text_to_clip") or names.get("sentence_to_clip")


def _table(evaluation: Evaluation, task: TaskQueries) -> dict[str, Any]:
    """One task: a line per row and score, a column per metric."""
    of_rows = {
        row.name: [
            summary
            for summary in evaluation.summaries[row.name]
            if summary.task == task.name and summary.subset is None
        ]
        for row in evaluation.rows
    }
    every = (
        name for summaries in of_rows.values() for summary in summaries for name in summary.metrics
    )
    return {
        "name": task.name,
        "num_queries": len(task.query_ids),
        "chance": task.chance,
        "main_metric": task.main_metric,
        "metrics": list(dict.fromkeys(every)),
        "lines": [
            {
                "row": row.name,
                "summary": summary,
                "tied": max(summary.num_tied),
                "is_plain": row.normalised is None,
            }
            for row in evaluation.rows
            for summary in of_rows[row.name]
        ],
        "best": _best_values(
            [of_rows[row.name] for row in evaluation.plain_rows], task.main_metric
        ),
    }


def _best_values(of_rows: Any, metric: str) -> dict[str, float]:
    """The best value of the main metric by score."""
    best: dict[str, float] = {}
    for summaries in of_rows:
        for summary in summaries:
            value = summary.metrics[metric].interval.value
            best[summary.score] = max(value, best.get(summary.score, value))
    return best


def _families(evaluation: Evaluation) -> dict[str, list[Comparison]]:
    """By title, the comparisons that are corrected together."""
    plain = {row.name for row in evaluation.plain_rows}
    tested = [item for item in evaluation.comparisons if item.p_holm is not None]
    return {
        f"Rows less {evaluation.config.baseline}": [item for item in tested if item.row in plain],
        "Normalised rows less their own": [item for item in tested if item.row not in plain],
    }


def _type_bars(evaluation: Evaluation) -> dict[str, str]:
    """Task to the accuracy of each question type, by its last score; of tasks that have types."""
    figures = {}
    for task in evaluation.tasks:
        if task.kind != "choice" or not task.subsets:
            continue
        heights = {}
        for row in evaluation.plain_rows:
            by_type: Mapping[str | None, float] = {
                summary.subset: summary.metrics["accuracy"].interval.value
                for summary in evaluation.summaries[row.name]
                if summary.task == task.name  # the last score, fused, stays
            }
            heights[row.name] = [by_type[name] for name in task.subsets]
        figures[task.name] = bars(list(task.subsets), heights, y_label="accuracy, percent")
    return figures


def _moments(evaluation: Evaluation, row: RowOutcome) -> list[dict[str, Any]]:
    """Some texts with a span, spread over the split, and their similarity along their clip."""
    features = evaluation.features
    texts = np.flatnonzero(features.text_is_segment)
    if not len(texts):
        return []
    chosen = texts[np.unique(np.linspace(0, len(texts) - 1, MOMENTS).astype(int))]
    embeddings = embed(features, evaluation.encoders[row.name])
    clips = features.text_clips[chosen]
    segments = [slice(*features.segment_offsets[clip : clip + 2]) for clip in clips]
    similarities = [
        embeddings.segments[spans] @ embeddings.sentences[text]
        for spans, text in zip(segments, chosen, strict=True)
    ]
    every = np.concatenate(similarities)
    return [
        {
            "text": features.texts[text],
            "clip_id": features.clip_ids[clip],
            "figure": timeline(
                features.segment_spans[spans],
                values,
                true_span=features.text_spans[text].tolist(),
                scale=(float(every.min()), float(every.max())),
            ),
        }
        for text, clip, spans, values in zip(chosen, clips, segments, similarities, strict=True)
    ]
