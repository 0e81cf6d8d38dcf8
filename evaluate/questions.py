"""Multiple choice: the option whose text scores highest with the question's clip is the answer.

The whole clip is scored, also where a question has a span: using an annotated span would take for
given where the answer is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..extract.store import SplitFeatures
from .config import EvaluationConfig
from .index_lists import expand, offsets_of
from .metrics import recall_at
from .queries import Scored, TaskQueries
from .ranks import SCORE_RESOLUTION, Ranks
from .scoring import Embeddings, fuse, own_clip_similarities, pool_segments


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


def choice_task(features: SplitFeatures) -> ChoiceTask | None:
    """The task, or None without labelled multiple-choice questions."""
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
        subsets={str(name): np.flatnonzero(types == name) for name in np.unique(types) if name},
    )
    return ChoiceTask(
        queries=queries,
        options=expand(questions.option_offsets[rows], counts),
        offsets=offsets,
        answers=offsets[:-1] + questions.answer_indices[rows],
    )


def score_choices(
    task: ChoiceTask,
    features: SplitFeatures,
    embeddings: Embeddings,
    *,
    weight: float,
    config: EvaluationConfig,
) -> dict[str, Scored]:
    """Accuracy in percent with the scores global, segment and fused; ties count against us."""
    starts, counts = task.offsets[:-1], np.diff(task.offsets)
    options = embeddings.options[task.options]
    clips = np.repeat(task.queries.clips, counts)
    global_O = np.einsum("ow,ow->o", options, embeddings.clips[clips])
    similarities, offsets = own_clip_similarities(
        embeddings.option_sentences[task.options],
        clips,
        segments=embeddings.segments,
        segment_offsets=features.segment_offsets,
    )
    segment_O = pool_segments(similarities[None], offsets, config=config.segment_score)[0]

    scored = {}
    for name, a in {"global": 1.0, "segment": 0.0, "fused": weight}.items():
        scores_O = fuse(global_O, segment_O, weight=a)
        right = np.repeat(scores_O[task.answers], counts)
        at_least = np.add.reduceat((scores_O >= right - SCORE_RESOLUTION).astype(np.int64), starts)
        above = np.add.reduceat((scores_O > right + SCORE_RESOLUTION).astype(np.int64), starts)
        ranks = at_least - 1  # the right option itself
        scored[name] = Scored(
            ranks=Ranks(ranks=ranks, tied=above < ranks), values={"accuracy": recall_at(ranks, 1)}
        )
    return scored
