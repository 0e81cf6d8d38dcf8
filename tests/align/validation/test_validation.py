"""Validation recall against loops, and which metric chooses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mlalign.align.config import RunConfig, ValidationConfig
from mlalign.align.data.split import TrainingDataError
from mlalign.align.head_config import HeadConfig, HeadsConfig
from mlalign.align.loss_config import LossConfig, TaskConfig
from mlalign.align.model.model import AlignmentModel
from mlalign.align.validation import validation
from mlalign.align.validation.validation import (
    ValidationSplit,
    count_top_1,
    validate,
    validated_metrics,
)

DIM = 6


def zero_shot() -> AlignmentModel:
    identity = HeadConfig(name="identity")
    heads = HeadsConfig(video=identity, text=identity)
    return AlignmentModel(heads, dim_video=DIM, dim_text=DIM, temperature=0.07)


def random_validation_split(seed: int) -> ValidationSplit:
    generator = torch.Generator().manual_seed(seed)
    num_clips, num_queries = 8, 20
    counts = torch.randint(1, 5, (num_clips,), generator=generator)
    sentence_clips = torch.randperm(num_clips, generator=generator)[:5].sort().values
    sentence_counts = torch.randint(1, 4, (5,), generator=generator)

    def features(count: int) -> torch.Tensor:
        return torch.randn(count, DIM, generator=generator)

    return ValidationSplit(
        clip_features=features(num_clips),
        segment_features=features(int(counts.sum())),
        segment_counts=counts,
        query_features=features(num_queries),
        query_clips=torch.randint(0, num_clips, (num_queries,), generator=generator),
        sentence_features=features(int(sentence_counts.sum())),
        sentence_counts=sentence_counts,
        sentence_clips=sentence_clips,
    )


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("block_scores", [1, 1 << 24])
def test_recall_equals_loops(seed: int, block_scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "BLOCK_SCORES", block_scores)
    split = random_validation_split(seed)
    hits = 0
    for query, own in zip(split.query_features, split.query_clips.tolist(), strict=True):
        scores = [cosine(query, clip) for clip in split.clip_features]
        hits += int(np.argmax(scores)) == own
    segment_hits, first = 0, 0
    clips = split.segment_features.split(split.segment_counts.tolist())
    for own, count in zip(
        split.sentence_clips.tolist(), split.sentence_counts.tolist(), strict=True
    ):
        sentences = split.sentence_features[first : first + count]
        first += count
        scores = [
            sum(max(cosine(text, segment) for segment in clip) for text in sentences) / count
            for clip in clips
        ]
        segment_hits += int(np.argmax(scores)) == own
    measured = validate(zero_shot(), split)
    assert measured == {
        "global_recall_at_1": hits / len(split.query_clips),
        "segment_recall_at_1": segment_hits / len(split.sentence_clips),
    }


def test_ties_and_nan_count_as_misses() -> None:
    scores = torch.tensor([[1.0, 1.0], [2.0, 1.0], [torch.nan, 0.0]])
    assert count_top_1(scores, torch.tensor([0, 0, 0])) == 1


def test_the_metric_is_the_mean_over_what_is_trained() -> None:
    both, only_global = RunConfig(), RunConfig(losses=LossConfig(segment_weight=0))
    names = ("global_recall_at_1", "segment_recall_at_1")
    assert validated_metrics(names, both) == names
    assert validated_metrics(names, only_global) == names[:1]
    one = RunConfig(validation=ValidationConfig(metric="segment_recall_at_1"))
    assert validated_metrics(names, one) == names[1:]


def test_what_the_split_has_no_queries_for_is_left_out_of_the_mean() -> None:
    config = RunConfig(tasks=TaskConfig(choice_weight=1))
    assert validated_metrics(["global_recall_at_1"], config) == ("global_recall_at_1",)
    names = ["choice_accuracy", "global_recall_at_1"]
    assert validated_metrics(names, config) == ("global_recall_at_1", "choice_accuracy")


def test_a_metric_without_queries_is_an_error() -> None:
    full = random_validation_split(0)
    nobody = torch.zeros(0, dtype=torch.int64)
    split = ValidationSplit(
        clip_features=full.clip_features,
        segment_features=full.segment_features,
        segment_counts=full.segment_counts,
        query_features=full.query_features,
        query_clips=full.query_clips,
        sentence_features=torch.zeros(0, DIM),
        sentence_counts=nobody,
        sentence_clips=nobody,
    )
    config = RunConfig(validation=ValidationConfig(metric="segment_recall_at_1"))
    with pytest.raises(TrainingDataError, match="lacks texts with a span for segment_recall_at_1"):
        validated_metrics(["global_recall_at_1"], config)
    with pytest.raises(TrainingDataError, match="without a span .*; texts with a span for segment"):
        validated_metrics([], RunConfig())
    assert set(validate(zero_shot(), split)) == {"global_recall_at_1"}
