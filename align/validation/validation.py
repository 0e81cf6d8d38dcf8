"""Text-to-clip recall on a split: the numbers that choose a run's weights."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from ...extract.cache.store import SplitFeatures
from ..config import RunConfig
from ..data.split import TrainingDataError, check_finite, move_if_it_fits
from ..data.token_batches import TokenFeatures
from ..model.model import AlignmentModel, cpu_weights
from ..runs.callbacks import Callback, ValidationReport
from .encode_blocks import in_blocks, query_tokens, scores_of_queries, videos_in_blocks
from .tasks import (
    TASK_METRICS,
    TaskValidation,
    load_task_validation,
    task_metrics,
)

# N = clips, S = segments, Q = queries, X = sentences of the segment level

REQUIRED_DATA: Final = {
    "global_recall_at_1": "texts without a span",
    "segment_recall_at_1": "texts with a span",
    "token_recall_at_1": "texts without a span",
    "choice_accuracy": "multiple-choice questions with known answers",
    "answer_accuracy": "open-ended questions with answers of the vocabulary",
    "moment_recall_at_1": "texts with a span",
}
"""What a split must have to give a metric."""
BLOCK_SCORES = 1 << 24
"""Scores held at a time: 64 MiB of float32."""


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
    query_features: Tensor
    """(Q, D) float32, the global texts."""
    query_clips: Tensor
    """(Q,) int64, the clip each is about."""
    sentence_features: Tensor
    """(X, D) float32, the segment texts, clips end to end."""
    sentence_counts: Tensor
    """(n,) int64, sentences of each clip that has any."""
    sentence_clips: Tensor
    """(n,) int64, those clips."""
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
    queries, sentences = np.flatnonzero(~is_segment), np.flatnonzero(is_segment)
    sentences = sentences[np.argsort(split.text_clips[sentences], kind="stable")]
    clips, counts = np.unique(split.text_clips[sentences], return_counts=True)

    def resident(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(device)

    clip_features, segment_features = move_if_it_fits(
        split.clip_features, split.segment_features, device=device
    )
    return ValidationSplit(
        clip_features=clip_features,
        segment_features=segment_features,
        segment_counts=resident(np.diff(split.segment_offsets)),
        query_features=resident(split.text_features[queries]),
        query_clips=resident(split.text_clips[queries]),
        sentence_features=resident(split.text_features[sentences]),
        sentence_counts=resident(counts),
        sentence_clips=resident(clips),
        tokens=query_tokens(split, queries, device=device) if with_tokens else None,
    )


def validated_metrics(measured: Collection[str], config: RunConfig) -> tuple[str, ...]:
    """The metrics whose mean chooses the weights, of those that the split can give.

    Raises TrainingDataError when it cannot give the one that was asked for, or none of them.
    """
    trained = {
        "global_recall_at_1": config.losses.trains_on_global_texts,
        "segment_recall_at_1": config.losses.trains_on_segment_texts,
        "token_recall_at_1": config.losses.token_weight > 0,
        **{TASK_METRICS[task]: True for task in config.tasks.weights},
    }
    metric = config.validation.metric
    names = [
        name for name, is_trained in trained.items() if is_trained and metric in (name, "mean")
    ]
    there = tuple(name for name in names if name in measured)
    if not there:
        wanted = "; ".join(f"{REQUIRED_DATA[name]} for {name}" for name in names)
        raise TrainingDataError(
            f"the validation split lacks {wanted}: choose another validation.metric or "
            f"data.validation_split, or null to train without validation"
        )
    return there


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
        tasks = {} if self._tasks is None else self._tasks.items.by_clip
        measured = [TASK_METRICS[task] for task in tasks]
        measured += ["global_recall_at_1"] if len(self._split.query_clips) else []
        if self._split.tokens is not None and len(self._split.query_clips):
            measured.append("token_recall_at_1")
        measured += ["segment_recall_at_1"] if len(self._split.sentence_clips) else []
        self._names = validated_metrics(measured, config)
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

    global_recall_at_1: each global text, by the cosine with the clip. segment_recall_at_1: all
    segment texts of a clip as one query, by the mean over them of the best segment's cosine (late
    interaction). token_recall_at_1: each global text, by its words and the clip's frames, where the
    split has them. A number whose queries the split does not have is left out.
    """
    was_training = model.training
    model.eval()
    metrics: dict[str, float] = {}
    device, together = split.segment_counts.device, None
    if model.sees_segments_together:
        together = videos_in_blocks(
            model, split.clip_features, split.segment_features, split.segment_counts
        )
    if len(split.query_clips) > 0:
        clips = (
            together[0] if together else in_blocks(model.encode_clips, split.clip_features, device)
        )
        queries = in_blocks(model.encode_texts, split.query_features, device)
        metrics["global_recall_at_1"] = _global_recall(clips, queries, truth=split.query_clips)
    if len(split.sentence_clips) > 0:
        segments = (
            together[1]
            if together
            else in_blocks(model.encode_segments, split.segment_features, device)
        )
        sentences = in_blocks(model.encode_sentences, split.sentence_features, device)
        metrics["segment_recall_at_1"] = _segment_recall(segments, sentences, split)
    if split.tokens is not None and len(split.query_clips) > 0:
        metrics["token_recall_at_1"] = _token_recall(model, split, split.tokens)
    model.train(was_training)
    return metrics


def _global_recall(clips: Tensor, queries: Tensor, *, truth: Tensor) -> float:
    block = max(1, BLOCK_SCORES // len(clips))
    hits = 0
    for first in range(0, len(queries), block):
        some = slice(first, first + block)
        hits += count_top_1(queries[some] @ clips.T, truth[some])
    return hits / len(queries)


def _token_recall(model: AlignmentModel, split: ValidationSplit, tokens: TokenFeatures) -> float:
    first = hits = 0
    for scores in scores_of_queries(model, tokens, clip_features=split.clip_features):
        hits += count_top_1(scores, split.query_clips[first : first + len(scores)])
        first += len(scores)
    return hits / first


def _segment_recall(segments: Tensor, sentences: Tensor, split: ValidationSplit) -> float:
    ends = split.sentence_counts.cumsum(0)
    max_sentences = int(split.sentence_counts.max())
    block = max(1, BLOCK_SCORES // (len(segments) * max_sentences))
    hits = 0
    for first in range(0, len(ends), block):
        counts = split.sentence_counts[first : first + block]
        begin, end = int(ends[first] - counts[0]), int(ends[first] + counts[1:].sum())
        scores_SX = segments @ sentences[begin:end].T
        best_NX = torch.segment_reduce(scores_SX, "max", lengths=split.segment_counts, axis=0)
        scores_QN = torch.segment_reduce(best_NX.T.contiguous(), "mean", lengths=counts, axis=0)
        hits += count_top_1(scores_QN, split.sentence_clips[first : first + block])
    return hits / len(ends)


def count_top_1(scores: Tensor, truth: Tensor) -> int:
    """Queries whose own item is strictly ahead of all others.

    scores: (queries, items), higher is closer.   truth: (queries,) item index.
    """
    true_scores = scores.gather(1, truth[:, None])
    return int(((scores >= true_scores).sum(dim=1) == 1).sum())
