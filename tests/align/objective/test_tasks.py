"""The tasks: their losses against loops, what they need, and that they train."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from split_fixtures import DIM, NO_TASKS, random_split
from task_fixtures import config_of, double, split_with_questions

from mlalign.align.config import OptimiserConfig
from mlalign.align.data.batches import epoch_batches, make_batch
from mlalign.align.data.moment_items import TaskDataError, moment_items
from mlalign.align.data.split import load_training_split
from mlalign.align.data.task_items import DrawnItems, vocabulary
from mlalign.align.epoch_loop import untrained_model
from mlalign.align.loss_config import TaskConfig
from mlalign.align.model.answer_head import AnswerHead
from mlalign.align.model.choice_head import ChoiceHead
from mlalign.align.model.moment_head import MomentHead, bounded_spans
from mlalign.align.objective.objective import level_losses, loss_terms
from mlalign.align.objective.tasks import choice_logits, padded_segments
from mlalign.align.runs.checkpoint import finish_run, load_run
from mlalign.align.runs.summary import RunSummary
from mlalign.align.trainer import train_heads
from mlalign.align.validation.tasks import likeliest_spans, load_task_validation, task_metrics
from mlalign.data_manifests.core.settings import save_settings
from mlalign.extract.cache.split_features import SplitFeatures

CPU = torch.device("cpu")


def one_batch(seed: int, *, change=None, **tasks: float):
    """Model in float64, split, and the only batch of an epoch. change: of the split."""
    config, split = config_of(**tasks), split_with_questions(seed)
    split = split if change is None else change(split)
    model = double(untrained_model(config, split))
    loaded = load_training_split(split, config=config, device=CPU, answers=model.answers)
    doubled = {
        name: getattr(loaded, name).double()
        for name in ("clip_features", "segment_features", "text_features")
    }
    items = {
        name: dataclasses.replace(
            own,
            **{
                field: getattr(own, field).double()
                for field in ("option_features", "question_features")
                if hasattr(own, field)
            },
        )
        for name in ("choice", "answer")
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


def softmax(values: np.ndarray) -> np.ndarray:
    shares = np.exp(values - values.max())
    return shares / shares.sum()


@pytest.mark.parametrize("seed", range(4))
def test_the_choice_term_is_a_softmax_over_each_questions_options(seed):
    model, split, loaded, batch, config = one_batch(seed, choice_weight=2.0)
    model.eval()
    asked, head, losses = split.questions, model.choice_head, []
    for k, kind in enumerate(asked.kinds):
        if kind != "multiple_choice":
            continue
        own = own_segments(split, asked.clips[k])
        segments = np.stack([vector(model.of_segments.video, s) for s in own])
        question = vector(model.of_segments.text, asked.question_features[k])
        shares = softmax(
            head.attention_scale.value.item() * segments @ vector(head.question, question)
        )
        with torch.no_grad():
            weights = head.shift(head.norm(torch.from_numpy(question))).softmax(dim=0).numpy()
        passed = scenes_passed(head.clock, segments)
        shifted = np.array(
            [
                sum(
                    weights[k + 2] * share * math.exp(-4 * (passed[to] - passed[since] - k) ** 2)
                    for since, share in enumerate(shares)
                    for k in range(-2, 3)
                )
                for to in range(len(segments))
            ]
        )
        found = (shifted / shifted.sum()) @ segments
        found /= np.linalg.norm(found)
        logits = np.array(
            [
                head.scale.value.item()
                * found
                @ vector(head.option, vector(model.of_segments.text, asked.option_features[o]))
                for o in range(asked.option_offsets[k], asked.option_offsets[k + 1])
            ]
        )
        losses.append(-math.log(softmax(logits)[asked.answer_indices[k]]))
    terms = loss_terms(model, loaded, batch, config=config, epoch=1)
    assert terms["choice"].item() == pytest.approx(np.mean(losses), rel=1e-9)
    assert level_losses(terms, config)["choice"].item() == pytest.approx(
        2 * np.mean(losses), rel=1e-9
    )


def scenes_passed(clock: torch.nn.Module, segments: np.ndarray) -> list[float]:
    passed = [0.0]
    for before, segment in itertools.pairwise(segments):
        step = clock.slope.item() * (clock.threshold.item() - before @ segment)
        passed.append(passed[-1] + 1 / (1 + math.exp(-step)))
    return passed


@pytest.mark.parametrize("seed", range(4))
def test_the_answer_term_is_a_softmax_over_the_vocabulary_question_by_question(seed):
    model, split, loaded, batch, config = one_batch(seed, answer_weight=1.0)
    model.eval()
    asked, head, losses = split.questions, model.answer_head, []
    words = {
        asked.answers[k]: asked.option_features[asked.option_offsets[k]]
        for k in range(len(asked.kinds))
    }
    answers = torch.from_numpy(
        np.stack([vector(model.of_segments.text, words[answer]) for answer in model.answers])
    )
    for k, answer in enumerate(asked.answers):
        if answer is None:
            continue
        own = own_segments(split, asked.clips[k])
        segments = np.stack([vector(model.of_segments.video, s) for s in own])
        question = vector(model.of_segments.text, asked.question_features[k])
        with torch.no_grad():  # alone: without padding
            logits = head(
                torch.from_numpy(question)[None],
                torch.from_numpy(segments)[None],
                torch.ones(1, len(own), dtype=torch.bool),
                answers,
            )[0].numpy()
        losses.append(-math.log(softmax(logits)[model.answers.index(answer)]))
    terms = loss_terms(model, loaded, batch, config=config, epoch=1)
    assert terms["answer"].item() == pytest.approx(np.mean(losses), rel=1e-9)


def test_the_answer_head_knows_the_order_of_the_segments_and_the_question():
    torch.manual_seed(0)
    head = AnswerHead(8, num_answers=3, hidden=8, dropout=0.0).eval()
    question, segments, answers = torch.randn(1, 8), torch.randn(1, 5, 8), torch.randn(3, 8)
    present = torch.ones(1, 5, dtype=torch.bool)
    logits = head(question, segments, present, answers)
    assert not torch.allclose(logits, head(question, segments.flip(1), present, answers))
    assert not torch.allclose(logits, head(-question, segments, present, answers))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("has_several", [False, True])
def test_the_moment_term_is_a_softmax_over_the_spans_of_the_clip_and_an_offset_loss(
    seed, has_several
):
    model, split, loaded, batch, config = one_batch(
        seed, change=one_query_a_clip if has_several else None, moment_weight=1.0
    )
    queries: dict[str, list[int]] = {}
    for text in np.flatnonzero(split.text_is_segment):
        queries.setdefault(split.text_ids[text].split("/")[0], []).append(text)
    assert has_several == (max(map(len, queries.values())) > 1)
    losses = []
    for texts in queries.values():
        clip = split.text_clips[texts[0]]
        spans = split.segment_spans[split.segment_offsets[clip] : split.segment_offsets[clip + 1]]
        scores, offsets = moment_oracle(model, split, texts[0])
        right = [places_of(split.text_spans[text], spans) for text in texts]
        for text, own in zip(texts, right, strict=True):
            rivals = [span for span in scores if span == own or span not in right]
            shares = softmax(np.array([scores[span] for span in rivals]))
            loss = -math.log(shares[rivals.index(own)]) / 2
            for side, place in enumerate(own):
                inside = (split.text_spans[text][side] - spans[place][0]) / 2
                off = abs(offsets[side][place] - np.float32(min(1, max(0, inside))))
                loss += (off**2 / 0.2 if off < 0.1 else off - 0.05) / 2
            losses.append(loss / len(texts))
    terms = loss_terms(model, loaded, batch, config=config, epoch=1)
    assert terms["moment"].item() == pytest.approx(sum(losses) / len(queries), rel=1e-6)


def one_query_a_clip(split: SplitFeatures) -> SplitFeatures:
    """The texts with a span of a clip are one query with several moments."""
    names, texts = list(split.text_ids), list(split.texts)
    for place in np.flatnonzero(split.text_is_segment):
        names[place] = f"query{split.text_clips[place]}/{place}"
        texts[place] = f"words of clip {split.text_clips[place]}"
    return dataclasses.replace(split, text_ids=names, texts=texts)


def places_of(span: np.ndarray, segments: np.ndarray) -> tuple[int, int]:
    first = next((i for i, s in enumerate(segments) if s[0] <= span[0] < s[1]), len(segments) - 1)
    return first, max(first, max(i for i, s in enumerate(segments) if s[0] < span[1]))


def moment_oracle(model, split: SplitFeatures, text: int):
    """Scores of the spans (first, last) of the clip of a text, and the offsets of its segments."""
    head = model.moment_head
    sentence = vector(model.of_segments.text, split.text_features[text])
    segments = [
        vector(model.of_segments.video, own) for own in own_segments(split, split.text_clips[text])
    ]
    cosines = [sentence @ segment for segment in segments]
    length = len(segments)
    joins = [segments[i] @ segments[i + 1] for i in range(length - 1)]
    logits = [head.scale.value.item() * cosine for cosine in cosines]
    behind = [10 * (cosine - max(cosines)) for cosine in cosines]
    joined = [10 * join for join in joins]
    seen = [logits, behind, [0.0, *joined], [*joined, 0.0]]
    hidden = gelu(convolved(head.inner, gelu(convolved(head.enter, seen))))
    added = convolved(head.leave, hidden)
    starts, ends = convolved(head.start, [logits])[0], convolved(head.end, [logits])[0]
    scores = {
        (i, j): starts[i]
        + added[0][i]
        + ends[j]
        + added[1][j]
        + head.length[min(15, ((j - i + 1) * 16 - 1) // length)].item()
        for i in range(length)
        for j in range(i, length)
    }
    whole = head.whole[:, 0].tolist()
    offsets = [[value + whole[side] for value in added[2 + side]] for side in range(2)]
    return scores, offsets


def convolved(convolution: torch.nn.Conv1d, channels: list[list[float]]) -> list[list[float]]:
    length, reach = len(channels[0]), convolution.kernel_size[0] // 2
    kernels = convolution.weight.tolist()
    biases = [0.0] * len(kernels) if convolution.bias is None else convolution.bias.tolist()
    return [
        [
            bias
            + sum(
                kernel[c][j] * channels[c][i + j - reach]
                for c in range(len(channels))
                for j in range(2 * reach + 1)
                if 0 <= i + j - reach < length
            )
            for i in range(length)
        ]
        for kernel, bias in zip(kernels, biases, strict=True)
    ]


def gelu(channels: list[list[float]]) -> list[list[float]]:
    return [[x * 0.5 * (1 + math.erf(x / math.sqrt(2))) for x in own] for own in channels]


def test_every_parameter_of_a_tasks_head_has_a_gradient():
    model, _, loaded, batch, config = one_batch(
        0, choice_weight=1, answer_weight=1, moment_weight=1
    )
    terms = loss_terms(model, loaded, batch, config=config, epoch=1)
    sum(terms[task] for task in ("choice", "answer", "moment")).backward()
    for head in model.task_heads:
        for name, parameter in head.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().max() > 1e-12, name


def test_a_clips_scores_do_not_depend_on_its_company():
    model, split, loaded, _, config = one_batch(
        2, choice_weight=1, answer_weight=1, moment_weight=1
    )
    model.eval()

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


def test_before_training_the_moment_head_takes_the_most_similar_segment_as_it_is():
    torch.manual_seed(0)
    cosines, previous = torch.rand(2, 5, 7) * 2 - 1
    scores, offsets = MomentHead()(cosines, previous, torch.ones(5, 7, dtype=torch.bool))
    first, last = likeliest_spans(scores)
    assert torch.equal(first, cosines.argmax(dim=1)) and torch.equal(first, last)
    assert torch.equal(offsets, torch.tensor([0.0, 1.0]).expand(5, 7, 2))


def test_before_training_the_choice_is_what_is_like_the_place_of_the_question():
    torch.manual_seed(0)
    question, segments = torch.eye(6)[:1], torch.eye(6)[None, :4]
    options = torch.eye(6)[[0, 1, 3, 5]]
    head = ChoiceHead(6, hidden=4, dropout=0.5).eval()
    logits = head(
        question, options, torch.zeros(4, dtype=torch.int64), segments, torch.ones(1, 4).bool()
    )
    # Where it points, within two scenes of it, farther, not in the clip.
    assert logits[0] > 2 * logits[1] > logits[2] > logits[3] - 1e-6


def test_the_likeliest_span_is_the_highest_score_of_all_spans():
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.normal(size=(50, 6, 6)))
    scores = scores.masked_fill(~torch.ones(6, 6, dtype=torch.bool).triu(), -torch.inf)
    first, last = likeliest_spans(scores)
    for k in range(50):
        pairs = [(i, j) for i in range(6) for j in range(i, 6)]
        best = max(pairs, key=lambda p: scores[k, p[0], p[1]].item())
        assert (first[k], last[k]) == best


def test_offsets_move_the_bounds_inside_their_segments_only():
    segments = torch.tensor([[0.0, 2.0], [2.0, 4.0], [4.0, 5.0]])
    offsets = torch.tensor([[0.25, 0.5], [0.9, 0.2], [-3.0, 7.0]])
    first, last = torch.tensor([0, 0, 1, 2, 1]), torch.tensor([1, 2, 2, 2, 1])
    spans = bounded_spans(segments, first, last, offsets).tolist()
    assert spans[0] == pytest.approx([0.5, 2.4]) and spans[1] == pytest.approx([0.5, 5])
    assert spans[2] == pytest.approx([3.8, 5]) and spans[3] == pytest.approx([4, 5])
    assert spans[4] == pytest.approx([2, 4])  # its end would come before its start


def test_validation_counts_what_the_logits_say():
    model, split, *_ = one_batch(1, choice_weight=1, answer_weight=1, moment_weight=1)
    model = model.float()
    tasks = TaskConfig(choice_weight=1, answer_weight=1, moment_weight=1)
    few = model.answers[:1]
    data = load_task_validation(split, config=tasks, answers=model.answers, device=CPU)
    metrics = task_metrics(model, data)
    assert set(metrics) == {"choice_accuracy", "answer_accuracy", "moment_recall_at_1"}
    own = data.items.choice
    counts = torch.from_numpy(np.diff(data.segment_offsets))
    encoded = padded_segments(model.encode_segments(data.segment_features), counts)
    clips = split.questions.clips[np.array(split.questions.kinds) == "multiple_choice"]
    drawn = DrawnItems(items=np.arange(len(own.answers)), clips=clips)
    logits = choice_logits(model.eval(), encoded, own, drawn).detach().numpy()
    assert metrics["choice_accuracy"] == np.mean(logits.argmax(axis=1) == own.answers)
    # Answers outside the vocabulary count as wrong.
    model.answers, model.answer_features = few, model.answer_features[:1]
    model.answer_head.free = torch.nn.Parameter(model.answer_head.free[:1])
    data = load_task_validation(split, config=tasks, answers=few, device=CPU)
    answers = [answer for answer in split.questions.answers if answer]
    accuracy = task_metrics(model, data)["answer_accuracy"]
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
