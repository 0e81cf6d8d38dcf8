"""Which segments a question is asked of, against a loop."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from task_fixtures import config_of, double, split_with_questions

from mlalign.align.data.question_segments import question_segments
from mlalign.align.epoch_loop import untrained_model
from mlalign.align.validation.tasks import load_task_validation, task_metrics
from mlalign.evaluate.config import EvaluationConfig
from mlalign.evaluate.scores.vectors import embed
from mlalign.evaluate.tasks.answers import answer_task, score_answers
from mlalign.evaluate.tasks.choices import choice_task, score_choices
from mlalign.extract.cache.split_features import SplitFeatures


def split_with_spans(seed: int) -> SplitFeatures:
    """Half of the questions have a span, some of them beyond the end of the clip."""
    split, rng = split_with_questions(seed, num_clips=12), np.random.default_rng(seed)
    spans = np.full((len(split.questions.kinds), 2), np.nan)
    for row in range(0, len(spans), 2):
        start = rng.uniform(0, 11)
        spans[row] = start, start + rng.uniform(0.1, 6)
    return dataclasses.replace(split, questions=dataclasses.replace(split.questions, spans=spans))


@pytest.mark.parametrize("seed", range(4))
def test_a_question_is_asked_of_the_segments_that_its_span_covers_by_more_than_half(seed):
    split = split_with_spans(seed)
    rows = np.arange(len(split.questions.kinds))[::-1]
    ranges = question_segments(split, rows, question_spans="use")
    for row, first, count in zip(rows, ranges.first, ranges.counts, strict=True):
        clip, (start, end) = split.questions.clips[row], split.questions.spans[row]
        segments = split.segment_spans[
            split.segment_offsets[clip] : split.segment_offsets[clip + 1]
        ]
        shared = [max(0.0, min(end, s[1]) - max(start, s[0])) for s in segments]
        inside = [i for i, s in enumerate(segments) if shared[i] > (s[1] - s[0]) / 2]
        if np.isnan(start) or max(shared) == 0:
            expected = (0, len(segments))
        elif inside:
            expected = (inside[0], len(inside))
        else:
            expected = (int(np.argmax(shared)), 1)
        assert (first, count) == expected


def test_spans_can_be_ignored():
    split = split_with_spans(0)
    ranges = question_segments(
        split, np.arange(len(split.questions.kinds)), question_spans="ignore"
    )
    assert not ranges.first.any()
    np.testing.assert_array_equal(
        ranges.counts, np.diff(split.segment_offsets)[split.questions.clips]
    )


@pytest.mark.parametrize("question_spans", ["use", "ignore"])
def test_validation_and_evaluation_ask_of_the_same_segments(question_spans):
    split = split_with_spans(1)
    config = config_of(choice_weight=1.0, answer_weight=1.0, question_spans=question_spans)
    model = double(untrained_model(config, split)).float().eval()
    data = load_task_validation(
        split, config=config.tasks, answers=model.answers, device=torch.device("cpu")
    )
    metrics, embeddings = task_metrics(model, data), embed(split, model)
    evaluation = EvaluationConfig()
    choices = score_choices(
        choice_task(split), split, embeddings, weight=0.5, config=evaluation, encoder=model
    )
    answers = score_answers(answer_task(split, [model]), split, embeddings, model)
    for metric, scored in (("choice_accuracy", choices), ("answer_accuracy", answers)):
        accuracy = scored["task"].values["accuracy"].mean()
        assert accuracy == pytest.approx(100 * metrics[metric])
    # The other clips' segments, and those outside the span, do not matter.
    moved = dataclasses.replace(split, segment_features=split.segment_features.copy())
    row = next(r for r, kind in enumerate(split.questions.kinds) if kind == "multiple_choice")
    ranges = question_segments(split, np.array([row]), question_spans=question_spans)
    first = split.segment_offsets[split.questions.clips[row]] + ranges.first[0]
    moved.segment_features[:first] += 1.0
    moved.segment_features[first + ranges.counts[0] :] += 1.0
    again = score_choices(
        choice_task(moved), moved, embed(moved, model), weight=0.5, config=evaluation, encoder=model
    )
    assert again["task"].ranks.ranks[0] == choices["task"].ranks.ranks[0]
