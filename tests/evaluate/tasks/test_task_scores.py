"""Moments and open-ended answers: scores of task heads and of similarities, against loops."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from split_fixtures import random_split
from task_fixtures import config_of, double, split_with_questions

from mlalign.align.epoch_loop import untrained_model
from mlalign.align.model.model import AlignmentModel
from mlalign.align.model.scene_clock import previous_cosines
from mlalign.align.validation.tasks import load_task_validation, task_metrics
from mlalign.evaluate.config import EvaluationConfig, MomentConfig
from mlalign.evaluate.scores.vectors import ZeroShot, embed
from mlalign.evaluate.tasks.answers import answer_task, score_answers
from mlalign.evaluate.tasks.choices import choice_task, score_choices
from mlalign.evaluate.tasks.moments import moment_task, predictions_of, score_moments_of
from mlalign.evaluate.tasks.registry import count_items, find_tasks
from mlalign.extract.cache.split_features import SplitFeatures

SPLIT = split_with_questions(3, num_clips=12)
CONFIG = config_of(choice_weight=1.0, answer_weight=1.0, moment_weight=1.0)


def model_of(split: SplitFeatures) -> AlignmentModel:
    return double(untrained_model(CONFIG, split)).float().eval()


def iou(one: tuple[float, float], other: tuple[float, float]) -> float:
    inner = max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
    return inner / (one[1] - one[0] + other[1] - other[0] - inner)


@pytest.mark.parametrize("has_head", [False, True])
def test_moments_equal_loops_over_the_spans(has_head):
    model = model_of(SPLIT) if has_head else ZeroShot()
    config = MomentConfig(recall_ks=(1, 3), iou_thresholds=(0.3, 0.5))
    task = moment_task(SPLIT, config)
    embeddings = embed(SPLIT, model)
    predicted = predictions_of(task, SPLIT, embeddings, model, config=config)
    scored = score_moments_of(task, SPLIT, predicted, config=config)["task"]
    for query, row in enumerate(task.first_texts):
        clip = SPLIT.text_clips[row]
        rows = range(SPLIT.segment_offsets[clip], SPLIT.segment_offsets[clip + 1])
        spans = [tuple(SPLIT.segment_spans[segment]) for segment in rows]
        cosines = [float(embeddings.segments[s] @ embeddings.sentences[row]) for s in rows]
        if not has_head:
            ranked = [spans[i] for i in sorted(range(len(spans)), key=lambda i: -cosines[i])]
        else:
            vectors = torch.from_numpy(embeddings.segments[list(rows)])[None]
            scores, offsets = model.moment_head(
                torch.tensor([cosines]),
                previous_cosines(vectors),
                torch.ones((1, len(cosines)), dtype=torch.bool),
            )
            pairs = [(i, j) for i in range(len(spans)) for j in range(i, len(spans))]
            pairs.sort(key=lambda p: -scores[0, p[0], p[1]].item())

            inside = offsets[0].clamp(0, 1).tolist()
            lengths = [end - start for start, end in spans]
            starts = [span[0] + f[0] * n for span, f, n in zip(spans, inside, lengths, strict=True)]
            ends = [span[0] + f[1] * n for span, f, n in zip(spans, inside, lengths, strict=True)]
            moved = [(starts[i], ends[j]) for i, j in pairs]
            whole = [(spans[i][0], spans[j][1]) for i, j in pairs]
            ranked = [m if m[1] > m[0] else w for m, w in zip(moved, whole, strict=True)]
        truth = tuple(SPLIT.text_spans[row])
        ious = [iou(span, truth) for span in ranked]
        assert scored.values["mIoU"][query] == pytest.approx(100 * ious[0], rel=1e-4)
        for k in (1, 3):
            for threshold in (0.3, 0.5):
                hit = 100.0 * any(value >= threshold for value in ious[:k])
                assert scored.values[f"R@{k} IoU {threshold}"][query] == hit


def test_a_span_that_meets_the_threshold_exactly_counts_by_the_rule():
    split = dataclasses.replace(SPLIT, text_spans=SPLIT.text_spans.copy())
    is_segment = split.text_is_segment
    first = SPLIT.segment_spans[SPLIT.segment_offsets[SPLIT.text_clips[is_segment]]]
    split.text_spans[is_segment] = first * [1, 0.5]  # half of the clip's first segment
    found = []
    for comparison in (">=", ">"):
        config = MomentConfig(recall_ks=(1, 9), iou_thresholds=(0.5,), iou_comparison=comparison)
        task = moment_task(split, config)
        predicted = predictions_of(task, split, embed(split, ZeroShot()), ZeroShot(), config=config)
        scored = score_moments_of(task, split, predicted, config=config)["task"]
        found.append(scored.values["R@9 IoU 0.5"].mean())
    assert found == [100.0, 0.0]


def test_moments_of_the_head_are_those_of_the_validation():
    model = model_of(SPLIT)
    data = load_task_validation(
        SPLIT, config=CONFIG.tasks, answers=model.answers, device=torch.device("cpu")
    )
    metrics = task_metrics(model, data)
    config = MomentConfig()
    task = moment_task(SPLIT, config)
    predicted = predictions_of(task, SPLIT, embed(SPLIT, model), model, config=config)
    scored = score_moments_of(task, SPLIT, predicted, config=config)["task"]
    mean = scored.values["R@1 IoU 0.5"].mean()
    assert mean == pytest.approx(100 * metrics["moment_recall_at_1"])
    answers = answer_task(SPLIT, [model])
    found = score_answers(answers, SPLIT, embed(SPLIT, model), model)["task"]
    accuracy = found.values["accuracy"].mean()
    assert accuracy == pytest.approx(100 * metrics["answer_accuracy"])
    chosen = score_choices(
        choice_task(SPLIT),
        SPLIT,
        embed(SPLIT, model),
        weight=0.5,
        config=EvaluationConfig(),
        encoder=model,
    )
    assert list(chosen) == ["global", "segment", "fused", "task"]
    accuracy = chosen["task"].values["accuracy"].mean()
    assert accuracy == pytest.approx(100 * metrics["choice_accuracy"])


def test_without_a_head_the_answer_nearest_to_the_clip_is_given():
    model = model_of(SPLIT)
    task = answer_task(SPLIT, [model])
    embeddings = embed(SPLIT, ZeroShot())
    scored = score_answers(task, SPLIT, embeddings, ZeroShot())["task"]
    words = torch.nn.functional.normalize(model.answer_features, dim=-1).numpy()
    for query, row in enumerate(task.questions):
        given = (words @ embeddings.clips[SPLIT.questions.clips[row]]).argmax()
        right = model.answers[given] == SPLIT.questions.answers[row]
        assert scored.values["accuracy"][query] == 100.0 * right


def test_answers_outside_the_vocabulary_are_wrong_and_counted():
    model = model_of(SPLIT)
    model.answers, model.answer_features = model.answers[:1], model.answer_features[:1]
    model.answer_head.free = torch.nn.Parameter(model.answer_head.free[:1])
    task = answer_task(SPLIT, [model])
    scored = score_answers(task, SPLIT, embed(SPLIT, model), model)["task"]
    known = [answer for answer in SPLIT.questions.answers if answer]
    assert scored.values["accuracy"].mean() == pytest.approx(
        100 * known.count(model.answers[0]) / len(known)
    )
    counts = count_items(SPLIT, find_tasks(SPLIT, EvaluationConfig(), [model]))
    outside = sum(answer != model.answers[0] for answer in known)
    assert counts["answers_outside_vocabulary"] == outside
    assert counts["open_ended_questions"] == len(known)


def test_equal_answers_count_against_us():
    model = model_of(SPLIT)
    model.answer_features = model.answer_features[:1].repeat(len(model.answers), 1)
    task, zero_shot = answer_task(SPLIT, [model]), ZeroShot()
    scored = score_answers(task, SPLIT, embed(SPLIT, zero_shot), zero_shot)["task"]
    assert scored.values["accuracy"].sum() == 0 and scored.ranks.tied.all()


def test_open_ended_questions_need_a_run_that_answers_them():
    assert answer_task(SPLIT, []) is None
    assert answer_task(random_split(0), [model_of(SPLIT)]) is None
    counts = count_items(SPLIT, find_tasks(SPLIT, EvaluationConfig()))
    assert counts["open_ended_questions_not_scored"] == SPLIT.questions.kinds.count("open_ended")


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"recall_ks": (5,)}, "must have 1"), ({"iou_thresholds": (0.0,)}, r"in \(0, 1\]")],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        MomentConfig(**settings)


def test_chance_is_a_segment_at_random():
    task = moment_task(SPLIT, MomentConfig())
    hits = []
    for row in task.first_texts:
        clip = SPLIT.text_clips[row]
        rows = range(SPLIT.segment_offsets[clip], SPLIT.segment_offsets[clip + 1])
        truth = tuple(SPLIT.text_spans[row])
        hits.append(np.mean([iou(tuple(SPLIT.segment_spans[s]), truth) >= 0.5 for s in rows]))
    assert task.queries.main_metric == "R@1 IoU 0.5"
    assert task.queries.chance == pytest.approx(100 * np.mean(hits))
