"""Similarities from any other program as an evaluation: the same numbers, intervals and page."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from ..data_manifests.cards.scoring_rules import TiePolicy
from ..data_manifests.core.errors import UserError
from ..extract.cache.ragged import Ragged
from ..extract.cache.split_features import QuestionFeatures, SplitFeatures
from .config import EvaluationConfig
from .evaluation import Evaluation
from .inputs.splits import ClipVideos
from .scores.best_items import best_texts
from .scores.metrics import median_rank
from .scores.queries import Scored, TaskQueries
from .scores.ranks import SCORE_RESOLUTION, ranks_of_correct
from .scores.vectors import ZeroShot
from .statistics.bootstrap import Bootstrap
from .statistics.comparisons import compare_rows
from .statistics.summaries import RowOutcome, RunOutcome, summarise
from .tasks.retrieval import FusedWeight, retrieval_values

Truth = ArrayLike | Sequence[Sequence[int]]
"""The right item of each text, or several of each."""
Similarities = ArrayLike | tuple[ArrayLike, ArrayLike]
"""(T, N) scores of T texts with N clips, or (clip vectors (N, W), text vectors (T, W))."""

SCORE: Final = "global"
"""Name of the score in the report: whole texts with whole clips."""


def rank_metrics(
    scores: ArrayLike, truth: Truth, *, ties: TiePolicy = "against"
) -> dict[str, float]:
    """Retrieval metrics of a similarity matrix, by exact ranks.

    scores: (queries, items), higher is closer; no NaN.   truth: (queries,) the right item of each
    query, or a list of right items for each, the best of which gives the rank.
    ties: equal items rank before the right one ("against"), at their mean ("mean"), or in the order
    of the items ("first"). Only equal numbers are ties.

    Returns R@1, R@5, R@10 in percent; MdR and MnR from 1; MRR and nDCG@10 from 0 to 1; mAP in
    percent where a query has several right items. Raises UserError for other shapes.
    """
    matrix = _matrix(scores, "scores")
    right = _right_items(truth, matrix)
    config = EvaluationConfig(ties=ties, recall_ks=(1, 5, 10))
    scored = _scored(matrix, right, config, resolution=0.0)
    means = {name: float(values.mean()) for name, values in scored.values.items()}
    return {**means, "MdR": median_rank(scored.ranks.ranks, lower=False)}


def evaluate_scores(
    similarities: Similarities | Mapping[str, Similarities],
    truth: Truth,
    *,
    groups: ArrayLike | None = None,
    baseline: str | None = None,
    texts: Sequence[str] | None = None,
    clip_ids: Sequence[str] | None = None,
    config: EvaluationConfig | None = None,
) -> Evaluation:
    """Evaluate similarities of texts with clips that any program has made; `report` writes it.

    similarities: (T, N) scores of T texts with N clips, higher is closer, or a pair of clip vectors
    (N, W) and text vectors (T, W), scored by their cosine. Several by name are rows, each compared
    with the baseline on the same queries.
    truth: (T,) the right clip of each text, or a list of right clips for each.
    groups: (T,) numbers or names; texts of one group are resampled together. Default: those of one
    clip. Where clips are the queries, a clip belongs to the group of its first text.
    baseline: name of the row that the others are compared with. Default: the first.
    texts, clip_ids: for the page and queries.parquet.   config: ties, resamples, confidence, seed.

    The tasks are text_to_clip and, over the clips that have a text, clip_to_text. In a matrix only
    equal scores are ties; cosines within 1e-6 are. Raises UserError for shapes that do not fit,
    NaN, and unknown names.
    """
    config = EvaluationConfig() if config is None else config
    rows = dict(similarities) if isinstance(similarities, Mapping) else {"scores": similarities}
    if not rows:
        raise UserError("expected at least one matrix of similarities, got none")
    first = next(iter(rows)) if baseline is None else baseline
    if first not in rows:
        raise UserError(f"no row is called {first!r}; the rows are {', '.join(rows)}")
    config = dataclasses.replace(config, baseline=first, split=None, validation_split=None)
    matrices = {name: _as_matrix(given, name) for name, given in rows.items()}
    shapes = {name: matrix.shape for name, (matrix, _) in matrices.items()}
    if len(set(shapes.values())) > 1:
        raise UserError(f"expected matrices of one shape (texts, clips), got {shapes}")
    num_texts, num_clips = next(iter(shapes.values()))
    right = _right_items(truth, next(iter(matrices.values()))[0])
    features = _features(
        _names(texts, num_texts, "text"), _names(clip_ids, num_clips, "clip"), right.firsts
    )
    tasks, correct = _tasks(features, right, groups)

    def outcome(name: str) -> RowOutcome:
        matrix, resolution = matrices[name]
        scored = {}
        for task, own in zip(tasks, correct, strict=True):
            by_query = matrix if task.name == "text_to_clip" else matrix.T[task.clips]
            scored[task.name] = {SCORE: _scored(by_query, own, config, resolution=resolution)}
        weight = FusedWeight(value=1.0, chosen_on=None, reason="there is one score")
        return RowOutcome(
            name=name, runs=(RunOutcome(path=None, seed=None, weight=weight, scored=scored),)
        )

    outcomes = [outcome(name) for name in matrices]
    bootstrap = Bootstrap(
        samples=config.bootstrap_samples, confidence=config.confidence, seed=config.seed
    )
    lower = config.median == "lower"
    return Evaluation(
        config=config,
        cache=None,
        features=features,
        places=ClipVideos(videos=[Path()] * num_clips, start_seconds=np.zeros(num_clips)),
        tasks=tasks,
        counts={
            "clips": num_clips,
            "failed_clips_left_out": 0,
            "global_texts": num_texts,
            "open_ended_questions_not_scored": 0,
        },
        rows=outcomes,
        encoders=dict.fromkeys(matrices, ZeroShot()),
        summaries={
            row.name: summarise(row, tasks, bootstrap, lower_median=lower) for row in outcomes
        },
        comparisons=compare_rows(outcomes, first, tasks, bootstrap),
    )


def _matrix(scores: ArrayLike, name: str) -> np.ndarray:
    """(Q, I) float32 or float64; UserError for other shapes, and NaN."""
    matrix = np.asarray(scores)
    if matrix.dtype not in (np.float32, np.float64):
        matrix = matrix.astype(np.float32 if matrix.dtype == np.float16 else np.float64)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise UserError(f"{name}: expected a matrix (queries, items), got shape {matrix.shape}")
    if np.isnan(matrix).any():
        query, item = np.argwhere(np.isnan(matrix))[0]
        raise UserError(f"{name}: the score of query {query} with item {item} is NaN")
    return matrix


def _as_matrix(given: Any, name: str) -> tuple[np.ndarray, float]:
    """(T, N) scores, and how far apart scores are that are ties."""
    if not isinstance(given, tuple):
        return _matrix(given, name), 0.0
    if len(given) != 2:
        raise UserError(f"{name}: expected (clip vectors, text vectors), got {len(given)} arrays")
    clips, texts = (np.asarray(_matrix(vectors, name), dtype=np.float32) for vectors in given)
    if clips.shape[1] != texts.shape[1]:
        raise UserError(
            f"{name}: expected vectors of one width, got clips {clips.shape}, texts {texts.shape}"
        )
    return _unit(texts) @ _unit(clips).T, SCORE_RESOLUTION


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, np.float32(1e-12)))


def _right_items(truth: Truth, matrix: np.ndarray) -> Ragged:
    """The right items of each query; UserError where there is none, or it is no item."""
    num_queries, num_items = matrix.shape
    lists = [np.unique(np.asarray(items)) for items in truth]  # type: ignore[union-attr]
    if len(lists) != num_queries:
        raise UserError(
            f"expected the right item of {num_queries} queries (rows of the scores), got "
            f"{len(lists)}"
        )
    for query, items in enumerate(lists):
        is_item = len(items) > 0 and np.issubdtype(items.dtype, np.integer)
        if not is_item or items[0] < 0 or items[-1] >= num_items:
            raise UserError(
                f"query {query}: expected one or several right items from 0 to {num_items - 1}, "
                f"got {items.tolist()}"
            )
    return Ragged.of(lists)


def _scored(
    matrix: np.ndarray, correct: Ragged, config: EvaluationConfig, *, resolution: float
) -> Scored:
    ranks = ranks_of_correct(matrix, correct, ties=config.ties, resolution=resolution)
    k = config.shown_neighbours
    return Scored(
        ranks=ranks,
        values=retrieval_values(ranks, correct, config),
        best_items=best_texts(matrix.astype(np.float32, copy=False), k=k) if k > 0 else None,
    )


def _tasks(
    features: SplitFeatures, right: Ragged, groups: ArrayLike | None
) -> tuple[list[TaskQueries], list[Ragged]]:
    """Both directions, and the right items of their queries."""
    num_texts, num_clips = len(features.text_ids), len(features.clip_ids)
    group_of_text = None
    if groups is not None:
        names = np.asarray(groups)
        if names.shape != (num_texts,):
            raise UserError(f"expected groups of {num_texts} texts, got shape {names.shape}")
        group_of_text = np.unique(names, return_inverse=True)[1]
    text_of_pair = np.repeat(np.arange(num_texts), right.counts)
    order = np.argsort(right.values, kind="stable")
    clips, starts = np.unique(right.values[order], return_index=True)
    texts_of_clip = Ragged(
        values=text_of_pair[order], offsets=np.append(starts, len(order)).astype(np.int64)
    )
    text_to_clip = TaskQueries(
        name="text_to_clip",
        kind="retrieval",
        main_metric="R@1",
        query_ids=features.text_ids,
        clips=features.text_clips,
        chance=100.0 * float(right.counts.mean()) / num_clips,
        item_ids=features.clip_ids,
        groups=group_of_text,
    )
    clip_to_text = TaskQueries(
        name="clip_to_text",
        kind="retrieval",
        main_metric="R@1",
        query_ids=[features.clip_ids[clip] for clip in clips],
        clips=clips,
        chance=100.0 * float(texts_of_clip.counts.mean()) / num_texts,
        item_ids=features.text_ids,
        groups=None if group_of_text is None else group_of_text[texts_of_clip.firsts],
    )
    return [text_to_clip, clip_to_text], [right, texts_of_clip]


def _names(given: Sequence[str] | None, count: int, kind: str) -> list[str]:
    names = [f"{kind} {i}" for i in range(count)] if given is None else list(given)
    if len(names) != count:
        raise UserError(f"expected the names of {count} {kind}s, got {len(names)}")
    return names


def _features(texts: list[str], clip_ids: list[str], text_clips: np.ndarray) -> SplitFeatures:
    """What a report says of a split, without features."""
    num_texts, num_clips = len(texts), len(clip_ids)
    none, no_rows = np.zeros(0, dtype=np.int64), np.zeros((0, 0), dtype=np.float32)
    return SplitFeatures(
        cache_key="",
        split="all",
        segment_rule="none",
        clip_ids=clip_ids,
        clip_features=np.zeros((num_clips, 0), dtype=np.float32),
        clip_durations=np.zeros(num_clips),
        segment_features=no_rows,
        segment_offsets=np.zeros(num_clips + 1, dtype=np.int64),
        segment_spans=np.zeros((0, 2)),
        text_ids=[f"text {i}" for i in range(num_texts)],
        texts=texts,
        text_features=np.zeros((num_texts, 0), dtype=np.float32),
        text_clips=text_clips,
        text_spans=np.full((num_texts, 2), np.nan),
        num_failed_clips=0,
        questions=QuestionFeatures(
            question_ids=[],
            kinds=[],
            types=[],
            clips=none,
            spans=np.zeros((0, 2)),
            questions=[],
            answers=[],
            answer_indices=none,
            question_features=no_rows,
            option_features=no_rows,
            option_offsets=np.zeros(1, dtype=np.int64),
        ),
    )
