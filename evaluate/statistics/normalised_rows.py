"""The rows of normalised scores: each row of the table once again, retrieval only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ...data_manifests.core.errors import UserError
from ...extract.cache.split_features import SplitFeatures
from ...extract.cache.store import FeatureStore
from ..config import EvaluationConfig, NormalisationName
from ..scores.normalisation import LABELS, assumption, normalisers
from ..scores.queries import Scored
from ..scores.vectors import Embeddings, Encoder, embed
from ..tasks.retrieval import RetrievalTask, retrieval_tasks, score_retrieval, score_weights, sides
from .summaries import NormalisedFrom, RowOutcome, RunOutcome


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitQueries:
    """The queries of a split."""

    features: SplitFeatures
    """Its texts and clips."""
    tasks: Sequence[RetrievalTask]
    """Which of them are queries, task by task."""


def read_bank(
    store: FeatureStore, tasks: Sequence[RetrievalTask], config: EvaluationConfig
) -> SplitQueries | None:
    """The training queries for qb_norm, task by task; None where nothing asks for them.

    Raises UserError where the cache has no such split, or it lacks queries of one of the tasks.
    """
    if "qb_norm" not in config.normalisations:
        return None
    name = config.bank_split
    if name not in store.splits:
        raise UserError(
            f"qb_norm needs a bank of training queries, but {store.path} has no split {name!r}; it "
            f"has {', '.join(store.splits)}: choose one with --set bank_split=NAME"
        )
    features = store.split(name, segments=config.segment_rule)
    by_name = {task.queries.name: task for task in retrieval_tasks(features, config)}
    missing = [task.queries.name for task in tasks if task.queries.name not in by_name]
    if missing:
        raise UserError(
            f"qb_norm needs training queries of every task, but split {name!r} has none of "
            f"{', '.join(missing)}: choose another with --set bank_split=NAME"
        )
    return SplitQueries(features=features, tasks=[by_name[task.queries.name] for task in tasks])


def normalised_rows(
    rows: Sequence[RowOutcome],
    encoders: Sequence[Sequence[Encoder]],
    queries: SplitQueries,
    bank: SplitQueries | None,
    config: EvaluationConfig,
    *,
    progress: Callable[[str], None],
) -> list[RowOutcome]:
    """Every row with every normalisation of the settings. encoders: one per run of each row."""
    normalised = []
    for name in config.normalisations if queries.tasks else ():
        for row, of_row in zip(rows, encoders, strict=True):
            progress(f"normalising {row.name}: {name}")
            normalised.append(_normalised(name, row, of_row, queries, bank, config))
    return normalised


def assumptions(rows: Sequence[RowOutcome]) -> dict[str, str]:
    """By label, what the normalised rows take for granted."""
    normalised = [row.normalised for row in rows if row.normalised is not None]
    return {LABELS[one.name]: one.assumption for one in normalised}


def _normalised(
    name: NormalisationName,
    row: RowOutcome,
    encoders: Sequence[Encoder],
    queries: SplitQueries,
    bank: SplitQueries | None,
    config: EvaluationConfig,
) -> RowOutcome:
    """`row` with its scores normalised: "ROW + QB-Norm"."""
    config = replace(config, shown_neighbours=0)
    runs = []
    for run, encoder in zip(row.runs, encoders, strict=True):
        embeddings = embed(queries.features, encoder)
        if name == "qb_norm":
            assert bank is not None
            source, of_bank = bank, embed(bank.features, encoder)
        else:
            source, of_bank = queries, embeddings
        scored = {
            task.queries.name: _scored(
                name,
                (task, queries.features, embeddings),
                (bank_task, source.features, of_bank),
                weight=run.weight.value,
                config=config,
            )
            for task, bank_task in zip(queries.tasks, source.tasks, strict=True)
        }
        runs.append(RunOutcome(path=run.path, seed=run.seed, weight=run.weight, scored=scored))
    made_from = NormalisedFrom(row=row.name, name=name, assumption=assumption(name, config))
    return RowOutcome(name=f"{row.name} + {LABELS[name]}", runs=tuple(runs), normalised=made_from)


def _scored(
    name: NormalisationName,
    queries: tuple[RetrievalTask, SplitFeatures, Embeddings],
    bank: tuple[RetrievalTask, SplitFeatures, Embeddings],
    *,
    weight: float,
    config: EvaluationConfig,
) -> dict[str, Scored]:
    """One task: the items of `queries` are made relative to the queries of `bank`."""
    task, features, embeddings = queries
    texts, clips = sides(task, features, embeddings)
    if task.direction == "text_to_clip":
        texts, _ = sides(*bank)
    else:
        _, clips = sides(*bank)
    normalise = normalisers(
        name,
        texts,
        clips,
        direction=task.direction,
        weights=list(score_weights(weight).values()),
        config=config,
    )
    return score_retrieval(
        task, features, embeddings, weight=weight, config=config, normalise=normalise
    )
