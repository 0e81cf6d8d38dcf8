"""Every way in which the texts with a span are scored: in their clip, in the corpus, by rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..align.model import AlignmentModel
from ..extract.store import SplitFeatures
from .chunk_moments import ChunkTask, chunk_task, score_chunks
from .config import EvaluationConfig
from .corpus_moments import corpus_task, score_corpus_moments
from .highlights import HighlightTask, highlight_task, score_highlights
from .moment_lengths import LengthTask, length_tasks, score_lengths
from .moments import MomentTask, moment_task, predictions_of, score_moments_of
from .queries import Scored, TaskQueries
from .scoring import Embeddings


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
        found = [self.own_clip.queries, *(task.queries for task in self.lengths)]
        found += [] if self.highlights is None else [self.highlights.queries]
        return found + ([] if self.corpus is None else [self.corpus])


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
    encoder: AlignmentModel | None,
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
