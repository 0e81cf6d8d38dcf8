"""The evaluation from end to end: a cache and runs in, all numbers of the report out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..align.runs.checkpoint import Run, load_run
from ..data_manifests.cards.card import load_card
from ..data_manifests.core.errors import UserError
from ..extract.cache.split_features import SplitFeatures
from ..extract.cache.store import FeatureStore
from .config import EvaluationConfig
from .indexes.effect import IndexEffect
from .inputs.protocols import load_protocol
from .inputs.rows import ZERO_SHOT, check_baseline, check_cache_keys, table_rows
from .inputs.splits import (
    ClipVideos,
    check_segments,
    check_tasks,
    clip_videos,
    read_split,
    read_validation,
    vocabulary_counts,
    with_segment_rule,
)
from .scores.queries import TaskQueries
from .scores.vectors import Encoder, ZeroShot, embed
from .statistics.bootstrap import Bootstrap
from .statistics.comparisons import Comparison, compare_rows
from .statistics.normalised_rows import SplitQueries, normalised_rows, read_bank
from .statistics.summaries import RowOutcome, RunOutcome, ScoreSummary, summarise
from .tasks.registry import Tasks, count_items, find_tasks, score_tasks
from .tasks.retrieval import choose_fused_weight, effect_of_index
from .tasks.token_scores import scores_tokens

RunLike = str | Path | Run
"""A run folder, or a run that is loaded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Everything that a report says."""

    config: EvaluationConfig
    """The resolved settings."""
    cache: Path | None
    """Where the features are; None for similarities from outside."""
    features: SplitFeatures
    """The evaluated split."""
    places: ClipVideos
    """Where the videos of its clips lie."""
    tasks: list[TaskQueries]
    """With their queries and chance levels."""
    counts: dict[str, int]
    """Of clips, texts and questions, and of those left out."""
    rows: list[RowOutcome]
    """Zero-shot first."""
    encoders: dict[str, Encoder]
    """Of each row's first run, by row name; ZeroShot is the backbone as it is."""
    summaries: dict[str, list[ScoreSummary]] = field(default_factory=dict)
    """By row name."""
    comparisons: list[Comparison] = field(default_factory=list)
    """Of every row but the baseline with the baseline; of normalised ones with their own row."""

    @property
    def plain_rows(self) -> list[RowOutcome]:
        """Those whose scores are as they are."""
        return [row for row in self.rows if row.normalised is None]


def evaluate(
    cache: str | Path,
    runs: RunLike | Sequence[RunLike] = (),
    config: EvaluationConfig | None = None,
    *,
    progress: Callable[[str], None] = lambda line: None,
) -> Evaluation:
    """Score zero-shot and the runs on a split of the cache. Writes nothing (`report` does).

    runs: one or several run folders, or runs that are loaded; those that differ only in the seed
    make one row.   config: None takes the rules of the cache's own benchmark card, if it has one.
    progress: gets a line for each step.

    Raises UserError (and its kin CacheError, RunError) for what cannot be read, runs of another
    cache, an unknown baseline or split, and a split without anything to evaluate.
    """
    cache = Path(cache)
    store = FeatureStore.open(cache)
    if config is None:
        config = load_protocol(lambda: store.record, None)
    given = [runs] if isinstance(runs, str | Path | Run) else runs
    loaded = [run if isinstance(run, Run) else load_run(run) for run in given]
    check_cache_keys(loaded, store)
    config = with_segment_rule(config, loaded)
    has_zero_shot = store.dim == store.text_dim
    if not has_zero_shot:
        config = _without_zero_shot(store, loaded, config)
    rows = table_rows(loaded, has_zero_shot=has_zero_shot)
    check_baseline(config.baseline, rows)
    with_tokens = scores_tokens(store, loaded, config)
    features = read_split(store, config, with_tokens=with_tokens)
    tasks = find_tasks(features, config, [run.model for run in loaded])
    card = None if config.card is None else load_card(config.card)
    if card is not None:
        check_tasks(card, [task.name for task in tasks.queries], features)
        check_segments(card, features)
    validation = read_validation(store, config)
    bank = read_bank(store, tasks.retrieval, config)

    outcomes = []
    for row in rows:
        scored_runs = []
        for run in row.runs or (None,):
            progress(f"scoring {row.name if run is None else run.path}")
            encoder = ZeroShot(row.zero_shot) if run is None else run.model
            scored_runs.append(_score_run(run, encoder, features, validation, tasks, config, cache))
        outcomes.append(RowOutcome(name=row.name, runs=tuple(scored_runs)))

    encoders: list[list[Encoder]] = [
        [run.model for run in row.runs] or [ZeroShot(row.zero_shot)] for row in rows
    ]
    split_queries = SplitQueries(features=features, tasks=tasks.retrieval)
    outcomes += normalised_rows(outcomes, encoders, split_queries, bank, config, progress=progress)
    progress(f"resampling {config.bootstrap_samples} times")
    bootstrap = Bootstrap(
        samples=config.bootstrap_samples, confidence=config.confidence, seed=config.seed
    )
    return Evaluation(
        config=config,
        cache=cache,
        features=features,
        places=clip_videos(store, features.clip_ids),
        tasks=tasks.queries,
        counts={
            **count_items(features, tasks),
            **_official_counts(store, config),
            **({} if card is None else vocabulary_counts(card, store.questions, features.split)),
        },
        rows=outcomes,
        encoders={row.name: models[0] for row, models in zip(rows, encoders, strict=True)},
        summaries={
            row.name: summarise(
                row, tasks.queries, bootstrap, lower_median=config.median == "lower"
            )
            for row in outcomes
        },
        comparisons=compare_rows(outcomes, config.baseline, tasks.queries, bootstrap),
    )


def cache_record(cache: Path) -> Mapping[str, Any]:
    """cache.json, which says what dataset the cache is of; CacheError when there is no cache."""
    return FeatureStore.open(cache).record


def _without_zero_shot(
    store: FeatureStore, runs: Sequence[Run], config: EvaluationConfig
) -> EvaluationConfig:
    """The settings with the first run's row as the baseline, unless another one is named.

    Raises UserError without a run: features of two widths are only compared by heads.
    """
    if not runs:
        raise UserError(
            f"{store.path} has video features of width {store.dim} and text features of width "
            f"{store.text_dim}, which have no zero-shot scores: give a run with --run"
        )
    if config.baseline != ZERO_SHOT:
        return config
    return dataclasses.replace(config, baseline=table_rows(runs, has_zero_shot=False)[0].name)


def _official_counts(store: FeatureStore, config: EvaluationConfig) -> dict[str, int]:
    """Of a benchmark: how many clips, texts and questions its official split has."""
    official = store.record.get("official", {}).get(config.split, {})
    return {f"official_{what}": int(count) for what, count in official.items()}


def _score_run(
    run: Run | None,
    encoder: Encoder,
    features: SplitFeatures,
    validation: SplitFeatures | None,
    tasks: Tasks,
    config: EvaluationConfig,
    cache: Path,
) -> RunOutcome:
    try:
        weight = choose_fused_weight(validation, encoder, config)
        scored = score_tasks(features, encoder, tasks, weight=weight.value, config=config)
        effect = _index_effect(features, encoder, tasks, weight.value, config, cache)
    except UserError as error:
        if run is None:
            raise
        raise UserError(f"{run.path}: {error}") from error
    return RunOutcome(
        path=None if run is None else run.path,
        seed=None if run is None else run.config.seed,
        weight=weight,
        scored=scored,
        index_effect=effect,
    )


def _index_effect(
    features: SplitFeatures,
    encoder: Encoder,
    tasks: Tasks,
    weight: float,
    config: EvaluationConfig,
    cache: Path,
) -> IndexEffect | None:
    """On the first text to clip task; None for an exact index or without such a task."""
    searched = [task for task in tasks.retrieval if task.direction == "text_to_clip"]
    if config.index.is_exact or not searched:
        return None
    embeddings = embed(features, encoder)
    return effect_of_index(
        searched[0], features, embeddings, weight=weight, config=config, cache=cache
    )
