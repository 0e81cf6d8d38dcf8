"""Text-to-clip recall on a split: the numbers that choose a run's weights."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from ...extract.cache.ragged import Ragged, ragged_rows
from ...extract.cache.store import SplitFeatures
from ...extract.cache.text_sentences import sentence_features, sentences_of_texts
from ..config import RunConfig
from ..data.split import TrainingDataError, check_finite, move_if_it_fits
from ..data.token_batches import TokenFeatures, offsets_of_items
from ..model.model import AlignmentModel, cpu_weights
from ..runs.callbacks import Callback, ValidationReport
from .encode_blocks import query_tokens, scores_of_queries, texts_in_blocks, videos_in_blocks
from .tasks import (
    TASK_METRICS,
    TaskValidation,
    load_task_validation,
    task_metrics,
)

# N = clips, S = segments, Q = queries, R = sentences of the queries

REQUIRED_DATA: Final = {
    "recall_at_1": "texts",
    "fused_recall_at_1": "texts without a span",
    "global_recall_at_1": "texts without a span",
    "segment_recall_at_1": "texts",
    "token_recall_at_1": "texts without a span",
    "choice_accuracy": "multiple-choice questions with known answers",
    "answer_accuracy": "open-ended questions with answers of the vocabulary",
    "moment_recall_at_1": "texts with a span",
}
"""What a split must have to give a metric."""

FUSED_WEIGHTS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Weights of the global score in the fused one, of which the best counts."""
BLOCK_SCORES: Final = 1 << 24
"""Scores held at a time: 64 MiB of float32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextQueries:
    """Q texts with their sentences, and the clip that each is about."""

    texts: Tensor
    """(Q, D) float32."""
    sentences: Tensor
    """(R, D) float32, texts end to end."""
    counts: Tensor
    """(Q,) int64, sentences of each text, one or more."""
    clips: Tensor
    """(Q,) int64."""

    def __len__(self) -> int:
        return len(self.clips)


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationSplit:
    """One split as queries and what they look for; features of clips and segments that do not fit
    on the device are where they were."""

    clip_features: Tensor
    """(N, D) float32."""
    segment_features: Tensor
    """(S, D) float32."""
    segment_counts: Tensor
    """(N,) int64."""
    queries: TextQueries | None
    """The global texts; None without any."""
    segment_queries: TextQueries | None
    """Of each clip its segment texts as the sentences of one query (whose own feature is that of
    the first of them); None without any."""
    tokens: TokenFeatures | None = None
    """The frames of the clips, and the words of the queries; None where the token level is not
    trained."""


def load_validation_split(
    split: SplitFeatures, *, device: torch.device, with_tokens: bool = False
) -> ValidationSplit:
    """Put a split on the device; raises TrainingDataError when its features are not finite.

    with_tokens: for the token level, too."""
    check_finite(split)
    is_segment = split.text_is_segment
    texts, with_span = np.flatnonzero(~is_segment), np.flatnonzero(is_segment)
    clip_features, segment_features = move_if_it_fits(
        split.clip_features, split.segment_features, device=device
    )
    rows, _ = ragged_rows((sentences := sentences_of_texts(split)).offsets, texts)
    lists = Ragged(
        values=sentences.values[rows], offsets=offsets_of_items(sentences.offsets, texts)
    )
    by_clip = Ragged.grouped(split.text_clips[with_span], num_groups=len(split.clip_ids))
    clips = np.flatnonzero(by_clip.counts)
    of_clips = Ragged(
        values=with_span[by_clip.values], offsets=offsets_of_items(by_clip.offsets, clips)
    )
    return ValidationSplit(
        clip_features=clip_features,
        segment_features=segment_features,
        segment_counts=torch.from_numpy(np.diff(split.segment_offsets)).to(device),
        queries=_queries(split, texts, lists, split.text_clips[texts], device),
        segment_queries=_queries(split, of_clips.firsts, of_clips, clips, device),
        tokens=query_tokens(split, texts, device=device) if with_tokens else None,
    )


def _queries(
    split: SplitFeatures,
    texts: np.ndarray,
    sentences: Ragged,
    clips: np.ndarray,
    device: torch.device,
) -> TextQueries | None:
    """texts: (Q,) rows of the texts.   sentences: of each its rows of `sentence_features`."""
    if not len(texts):
        return None
    arrays = (
        split.text_features[texts],
        sentence_features(split)[sentences.values],
        sentences.counts,
        clips,
    )
    features, of_sentences, counts, own = (torch.from_numpy(a).to(device) for a in arrays)
    return TextQueries(texts=features, sentences=of_sentences, counts=counts, clips=own)


def measured_metrics(levels: ValidationSplit, tasks: TaskValidation | None) -> list[str]:
    """The metrics that a split can give."""
    names = []
    if levels.queries is not None:
        names += ["global_recall_at_1", "fused_recall_at_1"]
        names += [] if levels.tokens is None else ["token_recall_at_1"]
    if levels.queries is not None or levels.segment_queries is not None:
        names += ["segment_recall_at_1", "recall_at_1"]
    return names + ([] if tasks is None else [TASK_METRICS[task] for task in tasks.items.by_clip])


def score_metrics(measured: Collection[str], config: RunConfig) -> tuple[str, ...]:
    """The metrics whose mean chooses the weights, of those that the split can give.

    Raises TrainingDataError when it cannot give the one that was asked for, or none of them.
    """
    metric = config.validation.metric
    wanted: list[str] = [metric]
    if metric == "mean":
        losses = config.losses
        is_trained = losses.global_weight > 0 or losses.has_segment_term
        levels = ["recall_at_1"] if is_trained else []
        wanted = levels + [TASK_METRICS[task] for task in config.tasks.weights]
    names = tuple(name for name in wanted if name in measured)
    if not names:
        needed = "; ".join(f"{REQUIRED_DATA[name]} for {name}" for name in wanted)
        raise TrainingDataError(
            f"the validation split lacks {needed}: choose another validation.metric or "
            f"data.validation_split, or null to train without validation"
        )
    return names


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationData:
    """A validation split for the levels and for the tasks."""

    levels: ValidationSplit
    """Queries of both."""
    tasks: TaskValidation | None
    """None where no task is trained, or the split has nothing for those that are."""


def load_validation_data(
    split: SplitFeatures, *, config: RunConfig, answers: Sequence[str], device: torch.device
) -> ValidationData:
    """Put a split on the device. answers: the vocabulary of open-ended questions.

    Raises TrainingDataError when its features are not finite.
    """
    return ValidationData(
        levels=load_validation_split(
            split, device=device, with_tokens=config.losses.token_weight > 0
        ),
        tasks=load_task_validation(split, config=config.tasks, answers=answers, device=device),
    )


class Validator:
    """Validates, and keeps the first weights that reached the highest score."""

    def __init__(self, config: RunConfig, split: ValidationData) -> None:
        """Raises TrainingDataError when the split cannot give the metric that was asked for."""
        self._split, self._tasks = split.levels, split.tasks
        self._names = score_metrics(measured_metrics(self._split, self._tasks), config)
        self._config = config
        self._num_epochs = config.optimiser.epochs
        self._best_score = -math.inf
        self.best_epoch = 0
        self.best_metrics: dict[str, float] = {}
        self.best_weights: dict[str, Tensor] = {}

    def state(self) -> dict[str, Any]:
        """What the best so far is, as numbers, dicts and tensors."""
        return {
            "score": self._best_score,
            "epoch": self.best_epoch,
            "metrics": dict(self.best_metrics),
            "weights": dict(self.best_weights),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self._best_score, self.best_epoch = float(state["score"]), int(state["epoch"])
        self.best_metrics, self.best_weights = dict(state["metrics"]), dict(state["weights"])

    def validate(
        self, model: AlignmentModel, *, epoch: int, step: int, callbacks: Sequence[Callback]
    ) -> bool:
        """Measure, remember, call the callbacks; True when one of them asks to stop."""
        metrics = validate(model, self._split)
        if self._tasks is not None:
            metrics |= task_metrics(model, self._tasks, config=self._config.tasks)
        score = sum(metrics[name] for name in self._names) / len(self._names)
        if score > self._best_score:
            self._best_score, self.best_epoch, self.best_metrics = score, epoch, metrics
            self.best_weights = cpu_weights(model)
        report = ValidationReport(
            epoch=epoch,
            num_epochs=self._num_epochs,
            step=step,
            metrics=metrics,
            score=score,
            best_epoch=self.best_epoch,
        )
        return any([callback.on_validation(report) for callback in callbacks])


@torch.no_grad()
def validate(model: AlignmentModel, split: ValidationSplit) -> dict[str, float]:
    """Recall at 1, text to clip, among all clips of the split; ties count as misses.

    global_recall_at_1: each global text by its global score. segment_recall_at_1: by late
    interaction, the mean over its sentences of the best segment's cosine; where there are texts
    with spans, all those of a clip are the sentences of one query instead. fused_recall_at_1: each
    global text by a * global + (1 - a) * segment, at the best of a few weights a.
    recall_at_1: the mean of these three, or of those that the split has queries for.
    token_recall_at_1: each global text by its words and the clip's frames, where the split has
    them. A number whose queries the split does not have is left out.
    """
    was_training = model.training
    model.eval()
    metrics: dict[str, float] = {}
    clips, segments = videos_in_blocks(
        model, split.clip_features, split.segment_features, split.segment_counts
    )
    counts = split.segment_counts
    if split.queries is not None:
        recalls = _recalls(model, split.queries, clips, segments, counts)
        metrics["fused_recall_at_1"] = max(recalls)
        metrics["global_recall_at_1"], metrics["segment_recall_at_1"] = recalls[-1], recalls[0]
    if split.segment_queries is not None:
        by_segments, *_ = _recalls(model, split.segment_queries, clips, segments, counts)
        metrics["segment_recall_at_1"] = by_segments
    if metrics:
        metrics = {"recall_at_1": sum(metrics.values()) / len(metrics), **metrics}
    if split.tokens is not None and split.queries is not None:
        metrics["token_recall_at_1"] = _token_recall(model, split, split.queries, split.tokens)
    model.train(was_training)
    return metrics


def _recalls(
    model: AlignmentModel,
    queries: TextQueries,
    clips: Tensor,
    segments: Tensor,
    segment_counts: Tensor,
) -> list[float]:
    """Recall at 1 by the fused score, for each of FUSED_WEIGHTS."""
    wholes, parts = texts_in_blocks(model, queries.texts, queries.sentences, queries.counts)
    ends = queries.counts.cumsum(0)
    step = max(1, BLOCK_SCORES // (len(segments) * int(queries.counts.max())))
    hits = [0] * len(FUSED_WEIGHTS)
    for first in range(0, len(queries), step):
        block = slice(first, first + step)
        counts = queries.counts[block]
        begin, end = int(ends[first] - counts[0]), int(ends[first] + counts[1:].sum())
        cosines_SR = segments @ parts[begin:end].T
        best_NR = torch.segment_reduce(cosines_SR, "max", lengths=segment_counts, axis=0)
        segment_QN = torch.segment_reduce(best_NR.T.contiguous(), "mean", lengths=counts, axis=0)
        global_QN = wholes[block] @ clips.T
        for place, weight in enumerate(FUSED_WEIGHTS):
            scores_QN = torch.lerp(segment_QN, global_QN, weight)
            hits[place] += count_top_1(scores_QN, queries.clips[block])
    return [hit / len(queries) for hit in hits]


def _token_recall(
    model: AlignmentModel, split: ValidationSplit, queries: TextQueries, tokens: TokenFeatures
) -> float:
    first = hits = 0
    for scores in scores_of_queries(model, tokens, clip_features=split.clip_features):
        hits += count_top_1(scores, queries.clips[first : first + len(scores)])
        first += len(scores)
    return hits / first


def count_top_1(scores: Tensor, truth: Tensor) -> int:
    """Queries whose own item is strictly ahead of all others.

    scores: (queries, items), higher is closer.   truth: (queries,) item index.
    """
    true_scores = scores.gather(1, truth[:, None])
    return int(((scores >= true_scores).sum(dim=1) == 1).sum())
