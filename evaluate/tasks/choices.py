"""Multiple choice: the option whose text scores highest with the question's clip is the answer.

Scores by similarity are of the whole clip, also where a question has a span: using an annotated
span would take for given where the answer is. A run's head does so only if it was trained to
(tasks.question_spans).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...align.model.model import AlignmentModel
from ...data_manifests.cards.scoring_rules import ANSWER_MOMENT_IOU, TypeGroup
from ...data_manifests.cards.spans import span_iou
from ...extract.cache.ragged import offsets_of, ragged_rows
from ...extract.cache.split_features import SplitFeatures
from ..config import EvaluationConfig
from ..scores.metrics import recall_at
from ..scores.queries import Scored, TaskQueries, type_subsets
from ..scores.ranks import SCORE_RESOLUTION, ranks_in_lists
from ..scores.similarity import fuse, own_clip_similarities, pool_segments
from ..scores.vectors import (
    QUESTIONS_AT_ONCE,
    Embeddings,
    Encoder,
    padded_segments,
    tensor_rows,
)
from .moments import spans_by_head


@dataclass(frozen=True, kw_only=True, slots=True)
class ChoiceTask:
    """Q labelled multiple-choice questions with their options, end to end."""

    queries: TaskQueries
    """Q questions; subsets are their types."""
    options: np.ndarray
    """(O,) int64, rows of the split's options."""
    offsets: np.ndarray
    """(Q + 1,) int64: question q has options [offsets[q], offsets[q + 1])."""
    answers: np.ndarray
    """(Q,) int64, position of the right option in `options`."""
    rows: np.ndarray
    """(Q,) int64, rows of the split's questions."""


def choice_task(features: SplitFeatures, groups: Sequence[TypeGroup] = ()) -> ChoiceTask | None:
    """The task, or None without labelled multiple-choice questions.

    groups: question types that are reported together.
    """
    questions = features.questions
    is_choice = np.array([kind == "multiple_choice" for kind in questions.kinds], dtype=bool)
    rows = np.flatnonzero(is_choice & (questions.answer_indices >= 0))
    if len(rows) == 0:
        return None
    counts = np.diff(questions.option_offsets)[rows]
    offsets = offsets_of(counts)
    types = np.array([questions.types[row] or "" for row in rows])
    queries = TaskQueries(
        name="multiple_choice",
        kind="choice",
        query_ids=[questions.question_ids[row] for row in rows],
        clips=questions.clips[rows],
        chance=100.0 * float((1.0 / counts).mean()),
        subsets=type_subsets(types, groups),
    )
    return ChoiceTask(
        queries=queries,
        options=ragged_rows(questions.option_offsets, rows)[0],
        offsets=offsets,
        answers=offsets[:-1] + questions.answer_indices[rows],
        rows=rows,
    )


def score_choices(
    task: ChoiceTask,
    features: SplitFeatures,
    embeddings: Embeddings,
    *,
    weight: float,
    config: EvaluationConfig,
    encoder: Encoder,
) -> dict[str, Scored]:
    """Accuracy in percent with the scores global, segment and fused, and by a run's head with the
    score task; ties count against us.

    With config.answer_moments also mIoU and ASA of the moment of the chosen option.
    """
    is_answer = np.zeros(len(task.options), dtype=bool)
    is_answer[task.answers] = True
    scored = {}
    for name, scores_O in option_scores(
        features,
        embeddings,
        options=task.options,
        clips=np.repeat(task.queries.clips, np.diff(task.offsets)),
        weight=weight,
        config=config,
        encoder=encoder,
    ).items():
        ranks = ranks_in_lists(scores_O, is_answer, task.offsets)
        values = {"accuracy": recall_at(ranks.ranks, 1)}
        if config.answer_moments:
            chosen = task.options[chosen_options(scores_O, task.offsets)]
            values |= answer_moment_values(
                features, embeddings, encoder, chosen=chosen, rows=task.rows, right=ranks.ranks == 0
            )
        scored[name] = Scored(ranks=ranks, values=values)
    return scored


def option_scores(
    features: SplitFeatures,
    embeddings: Embeddings,
    *,
    options: np.ndarray,
    clips: np.ndarray,
    weight: float,
    config: EvaluationConfig,
    encoder: Encoder,
) -> dict[str, np.ndarray]:
    """(O,) score of each option with its clip, by the name of the score; the last one is what a row
    is judged by: task, the logits of a run's head, or fused.

    options: (O,) rows of the split's options.   clips: (O,) rows of its clips.
    """
    global_O = np.einsum("ow,ow->o", embeddings.options[options], embeddings.clips[clips])
    similarities, offsets = own_clip_similarities(
        embeddings.option_sentences[options],
        clips,
        segments=embeddings.segments,
        segment_offsets=features.segment_offsets,
    )
    segment_O = pool_segments(similarities[None], offsets, config=config.segment_score)[0]
    weights = {"global": 1.0, "segment": 0.0, "fused": weight}
    scores = {name: fuse(global_O, segment_O, weight=a) for name, a in weights.items()}
    if encoder.choice_head is not None:
        scores["task"] = _head_scores(features, embeddings, encoder, options)
    return scores


@torch.no_grad()
def _head_scores(
    features: SplitFeatures,
    embeddings: Embeddings,
    encoder: AlignmentModel,
    options: np.ndarray,
) -> np.ndarray:
    """(O,) logits of the options by the head. Arguments as of `option_scores`."""
    assert encoder.choice_head is not None
    questions = features.questions
    owners = np.searchsorted(questions.option_offsets, options, side="right") - 1
    rows, of_option = np.unique(owners, return_inverse=True)
    scores = np.empty(len(options), dtype=np.float32)
    for start in range(0, len(rows), QUESTIONS_AT_ONCE):
        block = slice(start, start + QUESTIONS_AT_ONCE)
        chosen = np.flatnonzero((of_option >= start) & (of_option < start + QUESTIONS_AT_ONCE))
        scores[chosen] = encoder.choice_head(
            encoder.encode_sentences(tensor_rows(questions.question_features[rows[block]])),
            torch.from_numpy(embeddings.option_sentences[options[chosen]]),
            torch.from_numpy(of_option[chosen] - start),
            *padded_segments(
                features, embeddings, rows[block], question_spans=encoder.question_spans
            ),
        ).numpy()
    return scores


def chosen_options(scores_O: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(Q,) place of the best option of each question; of equal ones the first."""
    best = np.maximum.reduceat(scores_O, offsets[:-1])
    is_best = scores_O >= np.repeat(best, np.diff(offsets)) - SCORE_RESOLUTION
    places = np.where(is_best, np.arange(len(scores_O)), len(scores_O))
    return np.asarray(np.minimum.reduceat(places, offsets[:-1]))


def answer_moment_values(
    features: SplitFeatures,
    embeddings: Embeddings,
    encoder: Encoder,
    *,
    chosen: np.ndarray,
    rows: np.ndarray,
    right: np.ndarray,
) -> dict[str, np.ndarray]:
    """mIoU over the hull and ASA, (Q,) each in percent; a question without a moment has IoU 0.

    chosen: (Q,) rows of the chosen options.   rows: (Q,) rows of the questions.   right: (Q,) bool,
    whether the option is the right one.
    """
    moments = answer_moments(features, embeddings, encoder, chosen=chosen, rows=rows)
    truth = features.questions.spans[rows]
    is_told = ~np.isnan(truth[:, 0])
    ious = span_iou(moments, np.where(is_told[:, None], truth, -1.0), denominator="hull")
    return {"mIoU": 100.0 * ious, "ASA": 100.0 * (right & (ious >= ANSWER_MOMENT_IOU))}


def answer_moments(
    features: SplitFeatures,
    embeddings: Embeddings,
    encoder: Encoder,
    *,
    chosen: np.ndarray,
    rows: np.ndarray,
) -> np.ndarray:
    """(Q, 2) seconds: where the question with its chosen option happens, as for moments of texts.

    chosen: (Q,) rows of the options.   rows: (Q,) rows of the questions.
    """
    spans = np.zeros((len(rows), 2))
    for question, (option, row) in enumerate(zip(chosen.tolist(), rows.tolist(), strict=True)):
        segment_rows = slice(*features.segment_offsets[features.questions.clips[row] :][:2])
        segments = features.segment_spans[segment_rows]
        vectors = embeddings.segments[segment_rows]
        cosines = vectors @ embeddings.option_sentences[option]
        spans[question] = segments[int(cosines.argmax())]
        if encoder.moment_head is not None:
            head = spans_by_head(cosines, vectors, segments, encoder)
            spans[question] = head.spans[head.scores.argmax()]
    return spans
