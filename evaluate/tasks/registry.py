"""What a split can be evaluated on, how a run does on it, and what is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...align.model.model import AlignmentModel
from ...data_manifests.cards.card import load_card
from ...data_manifests.core.errors import UserError
from ...extract.cache.split_features import SplitFeatures
from ..config import EvaluationConfig
from ..official.files import official_records
from ..scores.queries import Scored, TaskQueries
from ..scores.vectors import Embeddings, Encoder, embed
from .answers import AnswerTask, answer_task, score_answers
from .choices import ChoiceTask, choice_task, score_choices
from .corpus_moments import corpus_task, score_corpus_moments
from .didemo_chunks import ChunkTask, chunk_task, score_chunks
from .grounding import GroundingTask, grounding_task, score_grounding
from .highlights import HighlightTask, highlight_task, score_highlights
from .moments import (
    LengthTask,
    MomentTask,
    length_tasks,
    moment_task,
    predictions_of,
    score_lengths,
    score_moments_of,
)
from .retrieval import RetrievalTask, retrieval_tasks, score_retrieval
from .token_scores import score_tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class MomentTasks:
    """What the settings ask for."""

    own_clip: MomentTask | ChunkTask
    """Spans of segments, or runs of chunks (DiDeMo)."""
    lengths: list[LengthTask] = field(default_factory=list)
    """By the length of the windows, where mAP is asked for."""
    highlights: HighlightTask | None = None
    """None without official ratings."""
    corpus: TaskQueries | None = None
    """In all clips; None unless asked for."""

    @property
    def queries(self) -> list[TaskQueries]:
        """Of each task, in the order of the report."""
        task_queries = [self.own_clip.queries, *(task.queries for task in self.lengths)]
        task_queries += [] if self.highlights is None else [self.highlights.queries]
        return task_queries + ([] if self.corpus is None else [self.corpus])


def moment_tasks(
    features: SplitFeatures,
    config: EvaluationConfig,
    records: Mapping[str, Mapping[str, Any]] | None = None,
) -> MomentTasks | None:
    """The tasks, or None without texts that have a span. records: official ones, by query."""
    rules = config.moments
    task = moment_task(features, rules)
    if task is None:
        return None
    if rules.chunks is not None:
        return MomentTasks(own_clip=chunk_task(task, features, rules.chunks, records))
    return MomentTasks(
        own_clip=task,
        lengths=length_tasks(task, features) if rules.average_precision else [],
        highlights=None if records is None else highlight_task(task, records),
        corpus=corpus_task(task, features, rules) if rules.corpus else None,
    )


def score_moment_tasks(
    tasks: MomentTasks,
    features: SplitFeatures,
    embeddings: Embeddings,
    encoder: Encoder,
    *,
    weight: float,
    config: EvaluationConfig,
) -> dict[str, dict[str, Scored]]:
    """Task name -> score name -> outcome. weight: of the global score among the corpus' clips."""
    given, rules = (features, embeddings, encoder), config.moments
    if isinstance(tasks.own_clip, ChunkTask):
        return {"moments": score_chunks(tasks.own_clip, *given, config=rules)}
    predicted = predictions_of(tasks.own_clip, *given, config=rules)
    scored = {"moments": score_moments_of(tasks.own_clip, features, predicted, config=rules)}
    for length in tasks.lengths:
        scored[length.queries.name] = score_lengths(length, predicted)
    if tasks.highlights is not None:
        scored["highlights"] = score_highlights(tasks.highlights, features, embeddings)
    if tasks.corpus is not None:
        scored["corpus_moments"] = score_corpus_moments(
            tasks.own_clip, *given, weight=weight, config=config
        )
    return scored


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
        task_queries = [task.queries for task in self.retrieval]
        task_queries += [] if self.grounding is None else [self.grounding.queries]
        task_queries += [] if self.moments is None else self.moments.queries
        question_tasks = (self.choice, self.answers)
        return task_queries + [task.queries for task in question_tasks if task is not None]


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
    encoder: Encoder,
    tasks: Tasks,
    *,
    weight: float,
    config: EvaluationConfig,
) -> dict[str, dict[str, Scored]]:
    """Task name -> score name -> outcome."""
    embeddings = embed(features, encoder)
    scored = {
        task.queries.name: score_retrieval(task, features, embeddings, weight=weight, config=config)
        for task in tasks.retrieval
    }
    if features.tokens is not None:
        token_scores = score_tokens(tasks.retrieval, features, encoder, config=config)
        for task, task_scores in zip(tasks.retrieval, token_scores, strict=True):
            # Before the fused score, the last one, which is what a row is judged by.
            scores = scored[task.queries.name]
            scores |= {"token": task_scores, "fused": scores.pop("fused")}
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
