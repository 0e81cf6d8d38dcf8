"""Retrieval: text to clip and clip to text with the global texts, sentence to clip with the others.

Which sentences a text has (extract/cache/split_features.py) decides its segment score: for a text
of several sentences, the mean over sentences of the best segment (docs/method.md, Scores). How much
the global score weighs in the fused one is chosen on the validation split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ...data_manifests.cards.scoring_rules import Direction
from ...extract.cache.ragged import Ragged
from ...extract.cache.split_features import SplitFeatures
from ..config import EvaluationConfig
from ..indexes.effect import IndexEffect, index_effect
from ..scores.best_items import BestItems, best_clips, best_texts, join_best_items
from ..scores.metrics import (
    average_precisions,
    discounted_gain,
    discounted_gains,
    one_based,
    recall_at,
    reciprocal_rank,
)
from ..scores.queries import Scored, TaskQueries
from ..scores.ranks import Ranks
from ..scores.similarity import Normalise, ScoreBlock, retrieval_ranks
from ..scores.vectors import Embeddings, Encoder, TwoLevelVectors, clip_vectors, embed, text_vectors


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrievalTask:
    """Texts and clips, which of them are queries, and which pairs are right."""

    queries: TaskQueries
    """Q queries."""
    direction: Direction
    """Says which side the queries are."""
    texts: np.ndarray
    """(n,) int64, rows of the split's texts."""
    clips: np.ndarray
    """(m,) int64, rows of the split's clips."""
    correct: Ragged
    """The right items of each query, as positions in `clips`, in `texts`, or in `groups`."""
    groups: Ragged | None = None
    """Of clip_to_text, positions in `texts` of each clip's texts, where these are ranked as one."""


def retrieval_tasks(features: SplitFeatures, config: EvaluationConfig) -> list[RetrievalTask]:
    """The tasks that the split has texts for, in the directions asked for."""
    whole = np.flatnonzero(~features.text_is_segment)
    of_spans = np.flatnonzero(features.text_is_segment)
    tasks = []
    if "text_to_clip" in config.directions:
        if len(whole):
            tasks.append(_text_to_clip("text_to_clip", features, whole))
        if len(of_spans):
            tasks.append(_text_to_clip("sentence_to_clip", features, of_spans))
    if "clip_to_text" in config.directions and len(whole):
        by_clip = config.several_captions == "clips"
        tasks.append(_clip_to_text(features, whole, by_clip=by_clip))
    return tasks


def score_retrieval(
    task: RetrievalTask,
    features: SplitFeatures,
    embeddings: Embeddings,
    *,
    weight: float,
    config: EvaluationConfig,
    normalise: Sequence[Normalise] | None = None,
) -> dict[str, Scored]:
    """The scores global, segment and fused (weight * global + (1 - weight) * segment).

    normalise: for each of these what to do to it; the best items are by the scores themselves.
    """
    texts, clips = sides(task, features, embeddings)
    weights, k = score_weights(weight), config.shown_neighbours
    best_of_blocks: list[list[BestItems]] = [[] for _ in weights]

    def show(block: ScoreBlock) -> None:
        if k > 0 and task.direction == "clip_to_text":
            best_of_blocks[block.weight].append(best_texts(block.scores, k=k))
        elif k > 0:
            block_texts = texts.slice(block.start, block.start + len(block.scores))
            best = best_clips(block.scores, block_texts, clips, spans=features.segment_spans, k=k)
            best_of_blocks[block.weight].append(best)

    ranks = retrieval_ranks(
        texts,
        clips,
        task.correct,
        direction=task.direction,
        weights=list(weights.values()),
        segment_score=config.segment_score,
        normalise=normalise,
        groups=task.groups,
        ties=config.ties,
        watch=show,
    )
    return {
        score: Scored(
            ranks=score_ranks,
            values=retrieval_values(score_ranks, task.correct, config),
            best_items=join_best_items(blocks),
        )
        for score, score_ranks, blocks in zip(weights, ranks, best_of_blocks, strict=True)
    }


def recall_at_1_by_weight(
    task: RetrievalTask,
    features: SplitFeatures,
    embeddings: Embeddings,
    *,
    weights: list[float],
    config: EvaluationConfig,
) -> np.ndarray:
    """(weights,) R@1 in percent of each fused score."""
    texts, clips = sides(task, features, embeddings)
    ranks = retrieval_ranks(
        texts,
        clips,
        task.correct,
        direction=task.direction,
        weights=weights,
        segment_score=config.segment_score,
        groups=task.groups,
        ties=config.ties,
    )
    return np.array([recall_at(weight_ranks.ranks, 1).mean() for weight_ranks in ranks])


def effect_of_index(
    task: RetrievalTask,
    features: SplitFeatures,
    embeddings: Embeddings,
    *,
    weight: float,
    config: EvaluationConfig,
    cache: Path,
) -> IndexEffect:
    """What config.index does to a text to clip task by the fused score."""
    assert task.direction == "text_to_clip"
    texts, clips = sides(task, features, embeddings)
    return index_effect(
        texts,
        clips,
        task.correct,
        weight=weight,
        config=config,
        cache=cache,
    )


def _text_to_clip(name: str, features: SplitFeatures, texts: np.ndarray) -> RetrievalTask:
    num_clips = len(features.clip_ids)
    queries = TaskQueries(
        name=name,
        kind="retrieval",
        main_metric="R@1",
        query_ids=[features.text_ids[row] for row in texts],
        clips=features.text_clips[texts],
        chance=100.0 / num_clips,
        item_ids=features.clip_ids,
    )
    return RetrievalTask(
        queries=queries,
        direction="text_to_clip",
        texts=texts,
        clips=np.arange(num_clips),
        correct=Ragged.singles(features.text_clips[texts]),
    )


def _clip_to_text(features: SplitFeatures, texts: np.ndarray, *, by_clip: bool) -> RetrievalTask:
    """The queries are the clips that have a global text; every global text is an item.

    by_clip: the texts of a clip count by their best score, and clips are ranked (CLIP4Clip).
    """
    clips, owner = np.unique(features.text_clips[texts], return_inverse=True)
    rows_of_clip = np.split(np.argsort(owner, kind="stable"), np.cumsum(np.bincount(owner))[:-1])
    texts_of_clip = Ragged.of(rows_of_clip)
    correct = Ragged.singles(np.arange(len(clips))) if by_clip else texts_of_clip
    num_items = len(clips) if by_clip else len(texts)
    queries = TaskQueries(
        name="clip_to_text",
        kind="retrieval",
        main_metric="R@1",
        query_ids=[features.clip_ids[clip] for clip in clips],
        clips=clips,
        chance=100.0 * float(correct.counts.mean()) / num_items,
        item_ids=[features.text_ids[row] for row in texts],
    )
    return RetrievalTask(
        queries=queries,
        direction="clip_to_text",
        texts=texts,
        clips=clips,
        correct=correct,
        groups=texts_of_clip if by_clip else None,
    )


def score_weights(weight: float) -> dict[str, float]:
    """Weights of the global score by the name of the score; `weight` is that of the fused one."""
    return {"global": 1.0, "segment": 0.0, "fused": weight}


def sides(
    task: RetrievalTask, features: SplitFeatures, embeddings: Embeddings
) -> tuple[TwoLevelVectors, TwoLevelVectors]:
    """The texts and the clips of the task in the shared space."""
    clips = clip_vectors(features, embeddings)
    if len(task.clips) < len(clips):
        clips = clips.take(task.clips)
    return text_vectors(embeddings, task.texts), clips


def retrieval_values(
    query_ranks: Ranks, correct: Ragged, config: EvaluationConfig
) -> dict[str, np.ndarray]:
    """The metrics of each query; mAP only where queries have several right items, for one it is
    MRR."""
    ranks = query_ranks.ranks
    values = {f"R@{k}": recall_at(ranks, k) for k in config.recall_ks}
    values |= {"MnR": one_based(ranks), "MRR": reciprocal_rank(ranks)}
    if query_ranks.places is None:
        return values | {"nDCG@10": discounted_gain(ranks)}
    return values | {
        "nDCG@10": discounted_gains(query_ranks.places, correct.offsets),
        "mAP": 100.0 * average_precisions(query_ranks.places, correct.offsets),
    }


WEIGHT_GRID: Final = [step / 10 for step in range(11)]
"""Weights of the global score tried on the validation split."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FusedWeight:
    """a in a * global + (1 - a) * segment."""

    value: float
    """Between 0 and 1."""
    chosen_on: str | None
    """The validation split that chose it; None where it is the setting `fused_weight`."""
    reason: str
    """Where the number comes from, in words."""


def choose_fused_weight(
    validation: SplitFeatures | None, encoder: Encoder, config: EvaluationConfig
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
