"""The evaluation from end to end: a cache and runs in, all numbers of the report out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..align.checkpoint import Run, load_run
from ..align.model import AlignmentModel
from ..data_manifests.cards import load_card
from ..data_manifests.errors import UserError
from ..extract.store import FeatureStore, SplitFeatures
from .answers import AnswerTask, answer_task, score_answers
from .card_fit import check_tasks, vocabulary_counts
from .clip_places import ClipPlaces, clip_places
from .comparisons import Comparison, compare_rows
from .config import EvaluationConfig
from .grounding import GroundingTask, grounding_task, score_grounding
from .index_effect import IndexEffect
from .moment_tasks import MomentTasks, moment_tasks, score_moment_tasks
from .normalised_rows import Asked, normalised_rows, read_bank
from .official_truth import official_records
from .queries import Scored, TaskQueries
from .questions import ChoiceTask, choice_task, score_choices
from .results import FusedWeight, RowOutcome, RunOutcome, ScoreSummary, summarise
from .retrieval import (
    RetrievalTask,
    effect_of_index,
    recall_at_1_by_weight,
    retrieval_tasks,
    score_retrieval,
)
from .rows import ZERO_SHOT, check_baseline, check_cache_keys, table_rows
from .scoring import Encoder, embed
from .significance import Bootstrap
from .token_scores import score_tokens, scores_tokens

WEIGHT_GRID = [step / 10 for step in range(11)]
"""Weights of the global score tried on the validation split."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tasks:
    """What a split can be evaluated on."""

    retrieval: list[RetrievalTask]
    """Empty without texts."""
    grounding: GroundingTask | None
    """None without segment texts."""
    moments: MomentTasks | None
    """None without segment texts."""
    choice: ChoiceTask | None
    """None without labelled multiple-choice questions."""
    answers: AnswerTask | None
    """None without open-ended questions, or a run that has learnt to answer them."""

    @property
    def queries(self) -> list[TaskQueries]:
        """The queries of every task there is, in the order of the report."""
        found = [task.queries for task in self.retrieval]
        found += [] if self.grounding is None else [self.grounding.queries]
        found += [] if self.moments is None else self.moments.queries
        asked = (self.choice, self.answers)
        return found + [task.queries for task in asked if task is not None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Everything that a report says."""

    config: EvaluationConfig
    """The resolved settings."""
    cache: Path
    """Where the features are."""
    features: SplitFeatures
    """The evaluated split."""
    places: ClipPlaces
    """Where the videos of its clips lie."""
    tasks: list[TaskQueries]
    """With their queries and chance levels."""
    counts: dict[str, int]
    """Of clips, texts and questions, and of those left out."""
    rows: list[RowOutcome]
    """Zero-shot first."""
    encoders: dict[str, Encoder | None]
    """Of each row's first run, by row name; None is the backbone as it is."""
    summaries: dict[str, list[ScoreSummary]] = field(default_factory=dict)
    """By row name."""
    comparisons: list[Comparison] = field(default_factory=list)
    """Of every row but the baseline with the baseline; of normalised ones with their own row."""

    @property
    def plain_rows(self) -> list[RowOutcome]:
        """Those whose scores are as they are."""
        return [row for row in self.rows if row.normalised is None]


def evaluate(
    cache: Path,
    run_paths: Sequence[Path],
    config: EvaluationConfig,
    *,
    progress: Callable[[str], None] = lambda line: None,
) -> Evaluation:
    """Score zero-shot and the runs on a split of the cache. Writes nothing.

    Raises UserError (and its kin CacheError, RunError) for what cannot be read, runs of another
    cache, an unknown baseline or split, and a split without anything to evaluate.
    """
    store = FeatureStore.open(cache)
    runs = [load_run(path) for path in run_paths]
    check_cache_keys(runs, store)
    has_zero_shot = store.dim == store.text_dim
    if not has_zero_shot:
        config = _without_zero_shot(store, runs, config)
    rows = table_rows(runs, has_zero_shot=has_zero_shot)
    check_baseline(config.baseline, rows)
    with_tokens = scores_tokens(store, runs, config)
    features = read_split(store, config, with_tokens=with_tokens)
    tasks = find_tasks(features, config, [run.model for run in runs])
    card = None if config.card is None else load_card(config.card)
    if card is not None:
        check_tasks(card, [task.name for task in tasks.queries], features)
    validation = read_validation(store, config)
    bank = read_bank(store, tasks.retrieval, config)

    outcomes = []
    for row in rows:
        scored_runs = []
        for run in row.runs or (None,):
            progress(f"scoring {row.name if run is None else run.path}")
            scored_runs.append(_score_run(run, features, validation, tasks, config, cache))
        outcomes.append(RowOutcome(name=row.name, runs=tuple(scored_runs)))

    encoders: list[list[Encoder | None]] = [
        [run.model for run in row.runs] or [None] for row in rows
    ]
    asked = Asked(features=features, tasks=tasks.retrieval)
    outcomes += normalised_rows(outcomes, encoders, asked, bank, config, progress=progress)
    progress(f"resampling {config.bootstrap_samples} times")
    bootstrap = Bootstrap(
        samples=config.bootstrap_samples, confidence=config.confidence, seed=config.seed
    )
    return Evaluation(
        config=config,
        cache=cache,
        features=features,
        places=clip_places(store, features.clip_ids),
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


def find_tasks(
    features: SplitFeatures, config: EvaluationConfig, models: Sequence[AlignmentModel] = ()
) -> Tasks:
    """The tasks that the split has texts or questions for; UserError when there are none."""
    tasks = Tasks(
        retrieval=retrieval_tasks(features, config),
        grounding=grounding_task(features),
        moments=moment_tasks(features, config, _official_records(features, config)),
        choice=choice_task(features, config.groups),
        answers=answer_task(features, models, config.groups),
    )
    if not tasks.queries:
        raise UserError(
            f"split {features.split!r} has {len(features.clip_ids)} clips but no texts or labelled "
            f"multiple-choice questions that can be scored: give extract a manifest with texts"
        )
    return tasks


def score_tasks(
    features: SplitFeatures,
    encoder: AlignmentModel | None,
    tasks: Tasks,
    *,
    weight: float,
    config: EvaluationConfig,
) -> dict[str, dict[str, Scored]]:
    """Task name -> score name -> outcome; encoder None is zero-shot."""
    embeddings = embed(features, encoder)
    scored = {
        task.queries.name: score_retrieval(task, features, embeddings, weight=weight, config=config)
        for task in tasks.retrieval
    }
    if features.tokens is not None:
        found = score_tokens(tasks.retrieval, features, encoder, config=config)
        for task, own in zip(tasks.retrieval, found, strict=True):
            # Before the fused score, the last one, which is what a row is judged by.
            scores = scored[task.queries.name]
            scores |= {"token": own, "fused": scores.pop("fused")}
    if tasks.grounding is not None:
        scored["grounding"] = score_grounding(tasks.grounding, features, embeddings)
    if tasks.choice is not None:
        scored["multiple_choice"] = score_choices(
            tasks.choice, features, embeddings, weight=weight, config=config, encoder=encoder
        )
    if tasks.moments is not None:
        scored |= score_moment_tasks(
            tasks.moments, features, embeddings, encoder, weight=weight, config=config
        )
    if tasks.answers is not None:
        scored["answers"] = score_answers(tasks.answers, features, embeddings, encoder)
    return scored


def choose_fused_weight(
    validation: SplitFeatures | None, encoder: Encoder | None, config: EvaluationConfig
) -> FusedWeight:
    """The weight with the best text to clip R@1 on validation; of equal ones the nearest to 0.5.

    Without global texts sentence to clip decides; without any text or split, the settings.
    """
    if validation is None:
        name = config.validation_split
        why = "no validation split" if name is None else f"no separate split {name!r}"
        return FusedWeight(value=config.fused_weight, chosen_on=None, reason=f"the default: {why}")
    tasks = [
        task for task in retrieval_tasks(validation, config) if task.direction == "text_to_clip"
    ]
    if not tasks:
        why = f"the default: split {validation.split!r} has no text to clip queries"
        return FusedWeight(value=config.fused_weight, chosen_on=None, reason=why)
    recalls = recall_at_1_by_weight(
        tasks[0], validation, embed(validation, encoder), weights=WEIGHT_GRID, config=config
    )
    best = [a for a, recall in zip(WEIGHT_GRID, recalls, strict=True) if recall == recalls.max()]
    return FusedWeight(
        value=min(best, key=lambda a: abs(a - 0.5)),
        chosen_on=validation.split,
        reason=f"chosen by {tasks[0].queries.name} R@1 on split {validation.split!r}",
    )


def count_items(features: SplitFeatures, tasks: Tasks) -> dict[str, int]:
    """What there is, and what is left out of which task."""
    kinds, answers = features.questions.kinds, features.questions.answer_indices
    is_choice = np.array([kind == "multiple_choice" for kind in kinds], dtype=bool)
    global_texts = np.flatnonzero(~features.text_is_segment)
    with_text = len(np.unique(features.text_clips[global_texts]))
    ungrounded = 0 if tasks.grounding is None else tasks.grounding.num_left_out
    return {
        "clips": len(features.clip_ids),
        "failed_clips_left_out": features.num_failed_clips,
        "clips_without_global_text": len(features.clip_ids) - with_text,
        "segments": len(features.segment_spans),
        "global_texts": len(global_texts),
        "segment_texts": int(features.text_is_segment.sum()),
        "segment_texts_without_segment": ungrounded,
        "multiple_choice_questions": int(is_choice.sum()),
        "multiple_choice_without_answer": int((is_choice & (answers < 0)).sum()),
        **_answer_counts(features, tasks.answers),
    }


def _answer_counts(features: SplitFeatures, answers: AnswerTask | None) -> dict[str, int]:
    num_open = features.questions.kinds.count("open_ended")
    if answers is None:
        return {"open_ended_questions_not_scored": num_open}
    return {
        "open_ended_questions": len(answers.questions),
        "open_ended_questions_not_scored": num_open - len(answers.questions),
        "answers_outside_vocabulary": int((answers.truth < 0).sum()),
    }


def _official_counts(store: FeatureStore, config: EvaluationConfig) -> dict[str, int]:
    """Of a benchmark: how many clips, texts and questions its official split has."""
    official = store.record.get("official", {}).get(config.split, {})
    return {f"official_{what}": int(count) for what, count in official.items()}


def _score_run(
    run: Run | None,
    features: SplitFeatures,
    validation: SplitFeatures | None,
    tasks: Tasks,
    config: EvaluationConfig,
    cache: Path,
) -> RunOutcome:
    encoder = None if run is None else run.model
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


def _official_records(
    features: SplitFeatures, config: EvaluationConfig
) -> dict[str, dict[str, Any]] | None:
    """Of the split, by query; None where no official files are given."""
    if config.annotations is None:
        return None
    if config.card is None:
        raise UserError("annotations are read by a card: name one with --card")
    card = load_card(config.card)
    return official_records(card, Path(config.annotations), split=features.split)


def _index_effect(
    features: SplitFeatures,
    encoder: Encoder | None,
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


def read_split(
    store: FeatureStore, config: EvaluationConfig, *, with_tokens: bool = False
) -> SplitFeatures:
    """The split of the settings; UserError when the cache has no such split. with_tokens: with
    frames and tokens."""
    if config.split is not None and config.split not in store.splits:
        raise UserError(
            f"{store.path} has no split {config.split!r}; it has {', '.join(store.splits)}: choose "
            f"one with --set split=NAME, or all clips with --set split=null"
        )
    return store.split(
        config.split,
        segments=config.segment_rule,
        frames_per_clip=config.frames_per_clip if with_tokens else 0,
        with_tokens=with_tokens,
    )


def read_validation(store: FeatureStore, config: EvaluationConfig) -> SplitFeatures | None:
    """The validation split, when it is there and shares no clip with the evaluated one."""
    name = config.validation_split
    if name is None or config.split in (None, name) or name not in store.splits:
        return None
    return store.split(name, segments=config.segment_rule)
