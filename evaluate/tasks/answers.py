"""Open-ended questions: the answer of a closed vocabulary, by a run's head or by similarity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from ...align.model.model import AlignmentModel
from ...data_manifests.cards.scoring_rules import TypeGroup
from ...extract.cache.ragged import Ragged
from ...extract.cache.split_features import SplitFeatures
from ..scores.metrics import recall_at
from ..scores.queries import Scored, TaskQueries, type_subsets
from ..scores.ranks import Ranks, ranks_of_correct
from ..scores.vectors import (
    QUESTIONS_AT_ONCE,
    Embeddings,
    Encoder,
    padded_segments,
    tensor_rows,
)

SCORE: Final = "task"
"""Name of the score: the run's answer head, or without one the cosine of answer and clip."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerTask:
    """Open-ended questions with known answers, and the answers that may be given."""

    queries: TaskQueries
    """Q questions; subsets are their types."""
    questions: np.ndarray
    """(Q,) int64, rows of the split's questions."""
    vocabulary: tuple[str, ...]
    """A answers of the training split, from the run that has learnt to choose among them."""
    answer_features: Tensor
    """(A, D) float32, of the backbone."""
    truth: np.ndarray
    """(Q,) int64, place of the right answer in the vocabulary; -1 where it is not in it."""


def answer_task(
    features: SplitFeatures,
    runs: Sequence[AlignmentModel],
    groups: Sequence[TypeGroup] = (),
) -> AnswerTask | None:
    """The task, or None without such questions or without a run that has an answer head.

    All rows choose among the first such run's vocabulary. Answers outside it count as wrong.
    groups: question types that are reported together.
    """
    questions = features.questions
    rows = [
        row
        for row, (kind, answer) in enumerate(zip(questions.kinds, questions.answers, strict=True))
        if kind == "open_ended" and answer is not None
    ]
    trained = [run for run in runs if run.answer_head is not None]
    if not rows or not trained or trained[0].answer_features is None:
        return None
    vocabulary = trained[0].answers
    places = {answer: place for place, answer in enumerate(vocabulary)}
    types = np.array([questions.types[row] or "" for row in rows])
    queries = TaskQueries(
        name="answers",
        kind="choice",
        query_ids=[questions.question_ids[row] for row in rows],
        clips=questions.clips[rows],
        chance=100.0 / len(vocabulary),
        subsets=type_subsets(types, groups),
    )
    return AnswerTask(
        queries=queries,
        questions=np.array(rows, dtype=np.int64),
        vocabulary=vocabulary,
        answer_features=trained[0].answer_features,
        truth=np.array([places.get(questions.answers[row] or "", -1) for row in rows]),
    )


def score_answers(
    task: AnswerTask,
    features: SplitFeatures,
    embeddings: Embeddings,
    encoder: Encoder,
) -> dict[str, Scored]:
    """Accuracy in percent over all questions; ties count against us.

    A run whose head has another vocabulary chooses among its own answers.
    """
    vocabulary, raw = task.vocabulary, task.answer_features
    if encoder.answer_head is not None and encoder.answer_features is not None:
        vocabulary, raw = encoder.answers, encoder.answer_features
    truth = task.truth
    if vocabulary != task.vocabulary:
        places = {answer: place for place, answer in enumerate(vocabulary)}
        known = [features.questions.answers[row] or "" for row in task.questions]
        truth = np.array([places.get(answer, -1) for answer in known])
    ranks = np.full(len(truth), len(vocabulary), dtype=np.int64)
    tied = np.zeros(len(truth), dtype=bool)
    for block, scores_KA in scores_of_answers(task.questions, raw, features, embeddings, encoder):
        first = block.start
        inside = np.flatnonzero(truth[block] >= 0)
        block_ranks = ranks_of_correct(scores_KA[inside], Ragged.singles(truth[block][inside]))
        ranks[first + inside], tied[first + inside] = block_ranks.ranks, block_ranks.tied
    values = {"accuracy": recall_at(ranks, 1)}
    return {SCORE: Scored(ranks=Ranks(ranks=ranks, tied=tied), values=values)}


@torch.no_grad()
def scores_of_answers(
    questions: np.ndarray,
    answer_features: Tensor,
    features: SplitFeatures,
    embeddings: Embeddings,
    encoder: Encoder,
) -> Iterator[tuple[slice, np.ndarray]]:
    """Ranges of the questions (rows of the split's), and (K, A) scores of every answer.

    answer_features: (A, D_t) of the backbone; with an answer head those of its vocabulary. Without
    one an answer's score is its cosine with the clip.
    """
    singles = torch.ones(len(answer_features), dtype=torch.int64)
    wholes_AW, parts_AW = encoder.encode_texts(answer_features, answer_features, singles)
    for first in range(0, len(questions), QUESTIONS_AT_ONCE):
        block = slice(first, first + QUESTIONS_AT_ONCE)
        rows = questions[block]
        clips = features.questions.clips[rows]
        if encoder.answer_head is None:
            yield block, embeddings.clips[clips] @ wholes_AW.numpy().T
            continue
        scores_KA: Tensor = encoder.answer_head(
            encoder.encode_sentences(tensor_rows(features.questions.question_features[rows])),
            *padded_segments(features, embeddings, rows, question_spans=encoder.question_spans),
            parts_AW,
        )
        yield block, scores_KA.numpy()
