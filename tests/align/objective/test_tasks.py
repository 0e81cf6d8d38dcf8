"""The tasks: their losses against loops, what they need, and that they train."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from split_fixtures import DIM, NO_TASKS, random_split
from task_fixtures import config_of, double, split_with_questions

from mlalign.align.config import OptimiserConfig
from mlalign.align.data.batches import epoch_batches, make_batch
from mlalign.align.data.split import load_training_split
from mlalign.align.data.task_items import DrawnItems, TaskDataError, moment_items, vocabulary
from mlalign.align.epoch_loop import untrained_model
from mlalign.align.loss_config import TaskConfig
from mlalign.align.model.task_heads import AnswerHead, MomentHead
from mlalign.align.objective.objective import level_losses, loss_terms
from mlalign.align.objective.tasks import choice_logits, padded_clips
from mlalign.align.runs.checkpoint import finish_run, load_run
from mlalign.align.runs.summary import RunSummary
from mlalign.align.trainer import train_heads
from mlalign.align.validation.tasks import likeliest_spans, load_task_validation, task_metrics
from mlalign.data_manifests.core.settings import save_settings
from mlalign.extract.cache.split_features import SplitFeatures

CPU = torch.device("cpu")


def one_batch(seed: int, **tasks: float):
    """Model in float64, split, and the only batch of an epoch."""
    config, split = config_of(**tasks), split_with_questions(seed)
    model = double(untrained_model(config, split))
    loaded = load_training_split(split, config=config, device=CPU, answers=model.answers)
    doubled = {
        name: getattr(loaded, name).double()
        for name in ("clip_features", "segment_features", "text_features")
    }
    items = {
        name: dataclasses.replace(own, **{field: getattr(own, field).double()})
        for name, field in (("choice", "option_features"), ("answer", "question_features"))
        if (own := getattr(loaded.tasks, name)) is not None
    }
    tasks_items = dataclasses.replace(loaded.tasks, **items)
    loaded = dataclasses.replace(loaded, **doubled, tasks=tasks_items)
    batch = next(epoch_batches(loaded, batch_clips=99, seed=0, epoch=1))
    return model, split, loaded, batch, config


def vector(head: torch.nn.Module, feature: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        out = head(torch.from_numpy(feature).double()[None])[0].numpy()
    return out / np.linalg.norm(out)


def own_segments(split: SplitFeatures, clip: int) -> np.ndarray:
    return split.segment_features[split.segment_offsets[clip] : split.segment_offsets[clip + 1]]


@pytest.mark.parametrize("seed", range(4))
def test_the_choice_term_is_a_softmax_over_each_questions_options(seed):
    model, split, loaded, batch, config = one_batch(seed, choice_weight=2.0)
    asked, losses = split.questions, []
    for k, kind in enumerate(asked.kinds):
        if kind != "multiple_choice":
            continue
        segments = [vector(model.of_segments.video, s) for s in own_segments(split, asked.clips[k])]
        clip = np.mean(segments, axis=0)
        clip /= np.linalg.norm(clip)
        logits = []
        for o in range(asked.option_offsets[k], asked.option_offsets[k + 1]):
            text = vector(model.of_segments.text, asked.option_features[o])
            score = 0.5 * text @ clip + 0.5 * max(text @ segment for segment in segments)
            logits.append(model.of_segments.scale.value.item() * score)
        total = math.log(sum(math.exp(logit) for logit in logits))
        losses.append(total - logits[asked.answer_indices[k]])
    terms = loss_terms(model, loaded, batch, config=config, epoch=1)
    assert terms["choice"].item() == pytest.approx(np.mean(losses), rel=1e-9)
    assert level_losses(terms, config)["choice"].item() == pytest.approx(
        2 * np.mean(losses), rel=1e-9
    )


@pytest.mark.parametrize("seed", range(4))
def test_the_answer_term_is_a_softmax_over_the_vocabulary(seed):
    model, split, loaded, batch, config = one_batch(seed, answer_weight=1.0)
    asked, head, losses = split.questions, model.answer_head, []
    words = {
        asked.answers[k]: asked.option_features[asked.option_offsets[k]]
        for k in range(len(asked.kinds))
    }
    vectors = [vector(model.of_segments.text, words[answer]) for answer in model.answers]
    for k, answer in enumerate(asked.answers):
        if answer is None:
            continue
        question = vector(model.of_segments.text, asked.question_features[k])
        segments = np.stack(
            [vector(model.of_segments.video, s) for s in own_segments(split, asked.clips[k])]
        )
        shares = np.exp(head.log_attention_scale.exp().item() * segments @ question)
        pooled = shares @ segments / shares.sum()
        with torch.no_grad():
            both = torch.from_numpy(np.concatenate([pooled, question, pooled * question]))
            hidden = torch.nn.functional.gelu(head.enter(head.norm(both)))
            found = pooled + question + head.leave(hidden).numpy()
        found /= np.linalg.norm(found)
        logits = [model.of_segments.scale.value.item() * found @ word for word in vectors]
        total = math.log(sum(math.exp(logit) for logit in logits))
        losses.append(total - logits[model.answers.index(answer)])
    terms = loss_terms(model, loaded, batch, config=config, epoch=1)
    assert terms["answer"].item() == pytest.approx(np.mean(losses), rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_the_moment_term_is_a_softmax_over_the_clips_segments_for_start_and_end(seed):
    model, split, loaded, batch, config = one_batch(seed, moment_weight=1.0)
    losses = []
    for text in np.flatnonzero(split.text_is_segment):
        clip = split.text_clips[text]
        spans = split.segment_spans[split.segment_offsets[clip] : split.segment_offsets[clip + 1]]
        said = vector(model.of_segments.text, split.text_features[text])
        sequence = [
            model.of_segments.scale.value.item() * said @ vector(model.of_segments.video, s)
            for s in own_segments(split, clip)
        ]
        start, end = split.text_spans[text]
        first = next((i for i, s in enumerate(spans) if s[0] <= start < s[1]), len(spans) - 1)
        last = max(first, max(i for i, s in enumerate(spans) if s[0] < end))
        for convolution, place in ((model.moment_head.start, first), (model.moment_head.end, last)):
            kernel = convolution.weight[0, 0].tolist()
            logits = [
                sum(
                    kernel[j] * sequence[i + j - 2]
                    for j in range(5)
                    if 0 <= i + j - 2 < len(sequence)
                )
                for i in range(len(sequence))
            ]
            losses.append(math.log(sum(math.exp(x) for x in logits)) - logits[place])
    terms = loss_terms(model, loaded, batch, config=config, epoch=1)
    assert terms["moment"].item() == pytest.approx(np.mean(losses), rel=1e-9)


def test_a_clips_scores_do_not_depend_on_its_company():
    model, split, loaded, _, config = one_batch(
        2, choice_weight=1, answer_weight=1, moment_weight=1
    )

    def terms(clips: list[int]) -> dict[str, float]:
        batch = make_batch(loaded, np.array(clips), rng=np.random.default_rng(0))
        return {
            name: term.item()
            for name, term in loss_terms(model, loaded, batch, config=config, epoch=1).items()
        }

    counts = {name: np.diff(items.offsets) for name, items in loaded.tasks.by_clip.items()}
    clips = [clip for clip in range(9) if all(own[clip] for own in counts.values())]
    together, apart = terms(clips), [terms([clip]) for clip in clips]
    for name, own in counts.items():
        mean = np.average([alone[name] for alone in apart], weights=own[clips])
        assert together[name] == pytest.approx(mean, rel=1e-9)


def test_at_most_so_many_items_of_a_clip_are_drawn_and_all_in_turn():
    split = split_with_questions(3)
    config = dataclasses.replace(
        config_of(choice_weight=1.0),
        tasks=dataclasses.replace(NO_TASKS, choice_weight=1, items_per_clip=1),
    )
    loaded = load_training_split(split, config=config, device=CPU)
    by_clip, seen = loaded.tasks.choice.by_clip, set()
    for epoch in range(40):
        for batch in epoch_batches(loaded, batch_clips=4, seed=0, epoch=epoch):
            drawn = batch.drawn["choice"]
            assert len(set(drawn.clips.tolist())) == len(drawn.clips)
            owners = np.searchsorted(
                by_clip.offsets, np.argsort(by_clip.values)[drawn.items], "right"
            )
            np.testing.assert_array_equal(batch.clips[drawn.clips], owners - 1)
            seen |= set(drawn.items.tolist())
    assert seen == set(by_clip.values.tolist())


def test_clips_with_questions_alone_take_part():
    split = split_with_questions(0)
    config = config_of(choice_weight=1.0)
    loaded = load_training_split(split, config=config, device=CPU)
    np.testing.assert_array_equal(loaded.clips, np.unique(split.questions.clips))


@pytest.mark.parametrize("task", ["choice", "answer", "moment"])
def test_a_task_without_items_says_what_it_needs(task):
    split = random_split(0)
    if task == "moment":
        split = dataclasses.replace(split, text_spans=np.full_like(split.text_spans, np.nan))
    config = config_of(**{f"{task}_weight": 1.0})
    with pytest.raises(TaskDataError, match="the split 'train' has no "):
        load_training_split(split, config=config, device=CPU)


def test_an_empty_vocabulary_names_the_setting_that_empties_it():
    split = split_with_questions(0)
    config = config_of(answer_weight=1.0, answers_min_count=10_000)
    with pytest.raises(TaskDataError, match="as frequent as tasks.answers_min_count asks for"):
        load_training_split(split, config=config, device=CPU)


def test_moments_need_segments_that_do_not_overlap():
    split = split_with_questions(0)
    spans = split.segment_spans.copy()
    spans[:, 1] += 0.5
    with pytest.raises(TaskDataError, match="segments of the rule 'uniform:5' overlap"):
        moment_items(dataclasses.replace(split, segment_spans=spans))


def test_the_vocabulary_is_the_training_answers_by_frequency():
    split = split_with_questions(0)
    answers = [answer for answer in split.questions.answers if answer]
    found = vocabulary(split, TaskConfig(answers_most_frequent=None))
    assert sorted(found) == sorted(set(answers))
    assert [answers.count(a) for a in found] == sorted(map(answers.count, found), reverse=True)
    assert vocabulary(split, TaskConfig(answers_most_frequent=1)) == found[:1]
    often = vocabulary(split, TaskConfig(answers_min_count=2))
    assert often == [answer for answer in found if answers.count(answer) >= 2]


def test_more_answers_than_there_are_cannot_be_asked_for():
    split = split_with_questions(0)
    different = len(set(filter(None, split.questions.answers)))
    assert len(vocabulary(split, TaskConfig(answers_most_frequent=different))) == different
    with pytest.raises(TaskDataError, match=f"have {different} different answers: leave it out"):
        vocabulary(split, TaskConfig(answers_most_frequent=different + 1))


def test_before_training_the_moment_head_takes_the_most_similar_segment():
    torch.manual_seed(0)
    logits, present = torch.randn(5, 7), torch.ones(5, 7, dtype=torch.bool)
    starts, ends = MomentHead()(logits, present)
    torch.testing.assert_close(starts, logits.log_softmax(dim=1))
    torch.testing.assert_close(starts, ends)


def test_before_training_the_answer_head_is_question_plus_attended_segments():
    torch.manual_seed(0)
    question = torch.nn.functional.normalize(torch.randn(3, 8), dim=-1)
    segments = torch.nn.functional.normalize(torch.randn(3, 1, 8), dim=-1)
    found = AnswerHead(8, hidden=4, dropout=0.5)(question, segments, torch.ones(3, 1, dtype=bool))
    expected = torch.nn.functional.normalize(question + segments[:, 0], dim=-1)
    torch.testing.assert_close(found, expected)


def test_the_likeliest_span_is_the_best_pair_of_start_and_later_end():
    rng = np.random.default_rng(0)
    starts, ends = (torch.from_numpy(rng.normal(size=(50, 6))) for _ in range(2))
    first, last = likeliest_spans(starts, ends)
    for k in range(50):
        pairs = [(i, j) for i in range(6) for j in range(i, 6)]
        best = max(pairs, key=lambda p: (starts[k, p[0]] + ends[k, p[1]]).item())
        assert (first[k], last[k]) == best


def test_validation_counts_what_the_logits_say():
    model, split, *_ = one_batch(1, choice_weight=1, answer_weight=1, moment_weight=1)
    model = model.float()
    tasks = TaskConfig(choice_weight=1, answer_weight=1, moment_weight=1)
    few = model.answers[:1]
    data = load_task_validation(split, config=tasks, answers=model.answers, device=CPU)
    metrics = task_metrics(model, data, config=tasks)
    assert set(metrics) == {"choice_accuracy", "answer_accuracy", "moment_recall_at_1"}
    own = data.items.choice
    counts = torch.from_numpy(np.diff(data.segment_offsets))
    vectors = model.encode_videos(data.clip_features, data.segment_features, counts)
    encoded = padded_clips(*vectors, counts)
    clips = split.questions.clips[np.array(split.questions.kinds) == "multiple_choice"]
    drawn = DrawnItems(items=np.arange(len(own.answers)), clips=clips)
    logits = choice_logits(model, encoded, own, drawn, global_weight=0.5).detach().numpy()
    assert metrics["choice_accuracy"] == np.mean(logits.argmax(axis=1) == own.answers)
    # Answers outside the vocabulary count as wrong.
    model.answers, model.answer_features = few, model.answer_features[:1]
    data = load_task_validation(split, config=tasks, answers=few, device=CPU)
    answers = [answer for answer in split.questions.answers if answer]
    accuracy = task_metrics(model, data, config=tasks)["answer_accuracy"]
    assert accuracy == answers.count(few[0]) / len(answers)


@pytest.mark.parametrize(
    ("task", "metric"),
    [
        ("choice", "choice_accuracy"),
        ("answer", "answer_accuracy"),
        ("moment", "moment_recall_at_1"),
    ],
)
def test_each_task_alone_learns_its_split(task, metric):
    split = split_with_questions(5, num_clips=8)
    config = config_of(**{f"{task}_weight": 1.0})
    if task == "moment":
        is_segment = split.text_is_segment
        spans = split.text_spans.copy()
        spans[is_segment] = split.segment_spans[split.segment_offsets[split.text_clips[is_segment]]]
        split = dataclasses.replace(split, text_spans=spans)
    validation = dataclasses.replace(split, split="val")
    result = train_heads(config, train=split, validation=validation)
    start = task_metrics(
        untrained_model(config, split),
        load_task_validation(split, config=config.tasks, answers=result.model.answers, device=CPU),
        config=config.tasks,
    )[metric]
    assert result.metrics[metric] > max(start, 0.6)


def test_the_vocabulary_is_kept_with_the_run(tmp_path: Path):
    split = split_with_questions(0)
    config = dataclasses.replace(config_of(answer_weight=1.0), optimiser=OptimiserConfig(epochs=1))
    result = train_heads(config, train=split, validation=None)
    save_settings(config, tmp_path / "config.yaml")
    summary = RunSummary(
        path=tmp_path,
        cache_key="key",
        decided=(),
        left_out=(),
        feature_width=DIM,
        text_feature_width=DIM,
        segment_rule="spans",
        num_train_clips=9,
        num_failed_clips=0,
        num_partial_clips=0,
        leaves_out_partial_clips=False,
        num_parameters=1,
        num_validation_clips=0,
        best_epoch=1,
        num_epochs=1,
        num_steps=1,
        metrics={},
        logit_scale=1.0,
        wall_seconds=0.0,
    )
    finish_run(tmp_path, model=result.model, last_weights=result.last_weights, summary=summary)
    model = load_run(tmp_path).model
    assert model.answers == result.model.answers
    torch.testing.assert_close(model.answer_features, result.model.answer_features)
