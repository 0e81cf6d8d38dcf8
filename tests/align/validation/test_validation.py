"""Validation recall against loops, and which metric chooses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from split_fixtures import NO_TASKS

from mlalign.align.config import RunConfig, ValidationConfig
from mlalign.align.data.split import TrainingDataError
from mlalign.align.head_config import HeadConfig, HeadsConfig
from mlalign.align.loss_config import LossConfig, TaskConfig
from mlalign.align.model.model import AlignmentModel
from mlalign.align.validation import recall
from mlalign.align.validation.recall import (
    FUSED_WEIGHTS,
    TextQueries,
    ValidationSplit,
    count_top_1,
    validate,
)
from mlalign.align.validation.validation import measured_metrics, score_metrics

DIM = 6
LEVELS = RunConfig(tasks=NO_TASKS)


def zero_shot() -> AlignmentModel:
    identity = HeadConfig(name="identity")
    config = RunConfig(heads=HeadsConfig(video=identity, text=identity), tasks=NO_TASKS)
    return AlignmentModel(config, dim_video=DIM, dim_text=DIM)


def random_queries(seed: int, num_clips: int, num_queries: int) -> TextQueries:
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(1, 4, (num_queries,), generator=generator)
    return TextQueries(
        texts=torch.randn(num_queries, DIM, generator=generator),
        sentences=torch.randn(int(counts.sum()), DIM, generator=generator),
        counts=counts,
        clips=torch.randint(0, num_clips, (num_queries,), generator=generator),
    )


def random_validation_split(seed: int) -> ValidationSplit:
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(1, 5, (8,), generator=generator)
    return ValidationSplit(
        clip_features=torch.randn(8, DIM, generator=generator),
        segment_features=torch.randn(int(counts.sum()), DIM, generator=generator),
        segment_counts=counts,
        queries=random_queries(seed + 100, 8, 20),
        segment_queries=random_queries(seed + 200, 8, 5),
    )


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))


def mean_of_units(vectors: torch.Tensor) -> torch.Tensor:
    return torch.stack([vector / vector.norm() for vector in vectors]).mean(dim=0)


def loop_recalls(split: ValidationSplit, queries: TextQueries) -> list[float]:
    """For each of FUSED_WEIGHTS; the vectors of wholes are the means of those of parts."""
    clips = split.segment_features.split(split.segment_counts.tolist())
    texts = queries.sentences.split(queries.counts.tolist())
    hits = [0] * len(FUSED_WEIGHTS)
    for sentences, own in zip(texts, queries.clips.tolist(), strict=True):
        whole = [cosine(mean_of_units(sentences), mean_of_units(clip)) for clip in clips]
        late = [
            sum(max(cosine(text, segment) for segment in clip) for text in sentences)
            / len(sentences)
            for clip in clips
        ]
        for place, a in enumerate(FUSED_WEIGHTS):
            scores = [a * g + (1 - a) * s for g, s in zip(whole, late, strict=True)]
            hits[place] += int(np.argmax(scores)) == own
    return [hit / len(texts) for hit in hits]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("block_scores", [1, 1 << 24])
def test_recall_equals_loops(seed: int, block_scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall, "BLOCK_SCORES", block_scores)
    split = random_validation_split(seed)
    assert split.queries is not None and split.segment_queries is not None
    recalls = loop_recalls(split, split.queries)
    expected = {
        "global_recall_at_1": recalls[-1],
        "segment_recall_at_1": loop_recalls(split, split.segment_queries)[0],
        "fused_recall_at_1": max(recalls),
    }
    expected["recall_at_1"] = sum(expected.values()) / 3
    assert validate(zero_shot(), split) == pytest.approx(expected)
    without = dataclasses.replace(split, segment_queries=None)
    assert validate(zero_shot(), without)["segment_recall_at_1"] == recalls[0]


def test_ties_and_nan_count_as_misses() -> None:
    scores = torch.tensor([[1.0, 1.0], [2.0, 1.0], [torch.nan, 0.0]])
    assert count_top_1(scores, torch.tensor([0, 0, 0])) == 1


def test_what_is_measured_is_what_the_split_has_queries_for() -> None:
    split = random_validation_split(0)
    levels = ["global_recall_at_1", "fused_recall_at_1", "segment_recall_at_1", "recall_at_1"]
    assert measured_metrics(split, None) == levels
    for changes in ({"queries": None}, {"segment_queries": None}, {}):
        some = dataclasses.replace(split, **changes)  # type: ignore[arg-type]
        assert set(measured_metrics(some, None)) == set(validate(zero_shot(), some))
    assert measured_metrics(dataclasses.replace(split, queries=None), None) == levels[2:]


def test_the_same_number_chooses_whichever_levels_are_trained() -> None:
    measured = ["recall_at_1", "global_recall_at_1", "choice_accuracy"]
    for losses in (
        LossConfig(),
        LossConfig(segment_weight=0),
        LossConfig(global_weight=0),
        LossConfig(global_weight=0, segment_weight=0, weak_segment_weight=1),
    ):
        config = RunConfig(losses=losses, tasks=NO_TASKS)
        assert score_metrics(measured, config) == ("recall_at_1",)


def test_tasks_count_beside_the_levels_and_alone() -> None:
    measured = ["recall_at_1", "choice_accuracy"]
    tasks = TaskConfig(answer_weight=0, moment_weight=0)
    assert score_metrics(measured, RunConfig(tasks=tasks)) == ("recall_at_1", "choice_accuracy")
    none = LossConfig(global_weight=0, segment_weight=0, weak_segment_weight=0)
    assert score_metrics(measured, RunConfig(losses=none, tasks=tasks)) == ("choice_accuracy",)
    assert score_metrics(measured[:1], RunConfig(tasks=tasks)) == ("recall_at_1",)


def test_the_metric_that_is_asked_for_chooses() -> None:
    config = RunConfig(validation=ValidationConfig(metric="segment_recall_at_1"), tasks=NO_TASKS)
    measured = ["recall_at_1", "segment_recall_at_1"]
    assert score_metrics(measured, config) == ("segment_recall_at_1",)


def test_a_metric_without_queries_is_an_error() -> None:
    config = RunConfig(validation=ValidationConfig(metric="global_recall_at_1"), tasks=NO_TASKS)
    with pytest.raises(TrainingDataError, match="lacks texts without a span for global_recall"):
        score_metrics(["segment_recall_at_1", "recall_at_1"], config)
    with pytest.raises(TrainingDataError, match="lacks texts for recall_at_1"):
        score_metrics([], LEVELS)
