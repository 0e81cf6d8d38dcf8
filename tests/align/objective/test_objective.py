"""The terms of a batch: each against its definition on the batch's own pairs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from split_fixtures import DIM, NO_TASKS, Text, random_split, split_of, with_sentences
from torch import Tensor

from mlalign.align.config import RunConfig
from mlalign.align.data.batches import Batch, LevelBatch, epoch_batches, make_batch
from mlalign.align.data.split import TrainingSplit, gather_sentences, load_training_split
from mlalign.align.data.trainable import trainable
from mlalign.align.head_config import HeadConfig, HeadsConfig
from mlalign.align.loss_config import LevelsConfig, LossConfig, LossName, WeakPooling
from mlalign.align.model.model import AlignmentModel, build_model
from mlalign.align.objective.losses import hinge, info_nce, sigmoid
from mlalign.align.objective.objective import level_losses, loss_terms
from mlalign.extract.cache.split_features import SplitFeatures

NAMES: tuple[LossName, ...] = ("info_nce", "sigmoid", "hinge")
LINEAR = HeadsConfig(video=HeadConfig(name="linear"), text=HeadConfig(name="linear"))


def case(losses: LossConfig, seed: int) -> tuple[AlignmentModel, TrainingSplit, Batch, RunConfig]:
    torch.manual_seed(seed)
    config = RunConfig(heads=LINEAR, losses=losses, tasks=NO_TASKS)
    features = with_sentences(random_split(seed), seed)
    config = trainable(config, features).config
    split = load_training_split(features, config=config, device=torch.device("cpu"))
    batch = next(epoch_batches(split, batch_clips=8, seed=seed, epoch=1))
    return build_model(config, dim_video=DIM, dim_text=DIM), split, batch, config


def terms_of(losses: LossConfig, seed: int, epoch: int = 1) -> dict[str, float]:
    model, split, batch, config = case(losses, seed)
    terms = loss_terms(model, split, batch, config=config, epoch=epoch, with_parts=True)
    return {name: term.item() for name, term in terms.items()}


def cosines(model: AlignmentModel, split: TrainingSplit, level: LevelBatch) -> Tensor:
    segments = model.encode_segments(split.segment_features[level.videos])
    return segments @ model.encode_sentences(split.text_features[level.texts]).T


START = 0.07
"""The temperature before training."""


def doubled(split: TrainingSplit) -> TrainingSplit:
    return dataclasses.replace(
        split,
        clip_features=split.clip_features.double(),
        segment_features=split.segment_features.double(),
        text_features=split.text_features.double(),
        sentence_features=split.sentence_features.double(),
    )


def total_of(terms: dict[str, Tensor], config: RunConfig) -> Tensor:
    return torch.stack(list(level_losses(terms, config).values())).sum()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(5))
def test_the_segment_term_is_the_loss_over_the_batchs_pairs(name: LossName, seed: int) -> None:
    model, split, batch, config = case(LossConfig(name=name), seed)
    level = batch.segment_level
    assert level is not None
    table = cosines(model, split, level)
    masks = {"positive_VT": level.positive, "negative_VT": level.negative}
    expected = {
        "info_nce": info_nce(table / 0.07, **masks),
        "sigmoid": sigmoid(table / 0.07 - 10, **masks),
        "hinge": hinge(table, margin=0.2, hardest=False, **masks),
    }
    measured = loss_terms(model, split, batch, config=config, epoch=1)["segment"]
    torch.testing.assert_close(measured, expected[name])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("weights", [(1, 1), (3, 0.5), (2, 0), (0, 2)])
def test_the_parts_inside_and_across_clips_add_up(
    name: LossName, weights: tuple[float, float]
) -> None:
    losses = LossConfig(
        name=name, in_clip_negative_weight=weights[0], cross_clip_negative_weight=weights[1]
    )
    for hardest in (None, 1):
        terms = terms_of(dataclasses.replace(losses, hardest_from_epoch=hardest), seed=1)
        parts = terms["segment_in_clip"], terms["segment_cross_clip"]
        assert terms["segment"] == pytest.approx(sum(parts), rel=1e-4)
        assert min(parts) >= -1e-6
        if weights[1] == 0:
            assert parts[1] == pytest.approx(0, abs=1e-5)
        alone = terms_of(
            dataclasses.replace(
                losses, hardest_from_epoch=hardest, cross_clip_negative_weight=1e-30
            ),
            seed=1,
        )
        if weights[0] > 0:
            assert parts[0] == pytest.approx(alone["segment"], rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_heavier_negatives_weigh_more(name: LossName) -> None:
    plain = terms_of(LossConfig(name=name), seed=2)
    heavy = terms_of(LossConfig(name=name, in_clip_negative_weight=4), seed=2)
    assert heavy["segment_in_clip"] > plain["segment_in_clip"]
    assert heavy["global"] == plain["global"]


def test_the_hardest_negative_counts_from_its_epoch_on() -> None:
    losses = LossConfig(name="hinge", hardest_from_epoch=3)
    before, after = (terms_of(losses, seed=0, epoch=epoch)["segment"] for epoch in (2, 3))
    assert before == terms_of(LossConfig(name="hinge"), seed=0)["segment"]
    assert after > before


def test_the_term_inside_the_clips_equals_a_loop_over_texts() -> None:
    losses = LossConfig(global_weight=0, segment_weight=0, in_clip_weight=0.5)
    model, split, batch, config = case(losses, seed=4)
    level = batch.segment_level
    assert level is not None and batch.global_level is None
    logits = cosines(model, split, level) / 0.07
    in_clip = torch.zeros_like(level.positive)
    in_clip[level.in_clip_rows, level.in_clip_columns] = True
    terms = []
    for column in range(len(level.texts)):
        own = logits[level.positive[:, column], column]
        other = logits[(level.negative & in_clip)[:, column], column]
        if len(own) and len(other):
            yes, no = (-own).exp().log1p().mean(), other.exp().log1p().mean()
            terms.append(((yes + no) / 2).item())
    measured = loss_terms(model, split, batch, config=config, epoch=1)
    assert list(measured) == ["in_clip"]
    assert measured["in_clip"].item() == pytest.approx(sum(terms) / len(terms), rel=1e-4)
    total = total_of(measured, config)
    assert total.item() == pytest.approx(0.5 * measured["in_clip"].item())


@pytest.mark.parametrize("name", NAMES)
def test_the_bias_and_the_scale_learn_where_the_loss_has_them(name: LossName) -> None:
    model, split, batch, config = case(LossConfig(name=name), seed=0)
    terms = loss_terms(model, split, batch, config=config, epoch=1)
    torch.autograd.backward(total_of(terms, config))
    for heads in model.level_heads:
        scale = heads.scale
        assert (scale.bias is not None) == (name == "sigmoid")
        assert (scale.log_scale.grad is not None) == (name != "hinge")
        if scale.bias is not None:
            assert scale.bias.item() == -10
            assert scale.bias.grad is not None and scale.bias.grad.item() != 0


@pytest.mark.parametrize("name", NAMES)
def test_a_duplicated_caption_contributes_no_repulsion(name: LossName) -> None:
    """Every clip has the same caption and every span the same words: nothing is left to repel."""
    features = random_split(0)
    for text in range(len(features.texts)):
        features.texts[text] = "The same WORDS!" if text % 2 else "the same words"
    torch.manual_seed(0)
    losses = LossConfig(name=name, in_clip_weight=1)
    config = RunConfig(heads=LINEAR, losses=losses, tasks=NO_TASKS)
    split = load_training_split(features, config=config, device=torch.device("cpu"))
    batch = next(epoch_batches(split, batch_clips=8, seed=0, epoch=1))
    for level in (batch.global_level, batch.segment_level):
        assert level is not None
        related = level.positive.any(dim=1)
        assert not level.negative[related].any()
    terms = loss_terms(
        build_model(config, dim_video=DIM, dim_text=DIM), split, batch, config=config, epoch=1
    )
    assert torch.isfinite(total_of(terms, config))
    if name == "info_nce":
        assert terms["global"].item() == 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pooling", ["max", "softmax"])
def test_the_weak_term_equals_a_loop_over_clips_and_captions(
    name: LossName, pooling: WeakPooling
) -> None:
    losses = LossConfig(
        name=name,
        global_weight=0,
        segment_weight=0,
        weak_segment_weight=2,
        weak_pooling=pooling,
        weak_temperature=0.2,
    )
    model, split, batch, config = case(losses, seed=3)
    level = batch.global_level
    assert level is not None and batch.segment_level is None
    model = model.double()
    split = doubled(split)
    scores = torch.zeros(level.positive.shape, dtype=torch.float64)
    assert (batch.sentence_counts > 1).any()
    for row, clip in enumerate(batch.clips):
        own = slice(int(split.segment_offsets[clip]), int(split.segment_offsets[clip + 1]))
        segments = model.encode_segments(split.segment_features[own])
        first = 0
        for column, count in enumerate(batch.sentence_counts.tolist()):
            sentences = gather_sentences(split, batch.sentences[first : first + count])
            first += count
            for sentence in model.encode_sentences(sentences):
                cosine = segments @ sentence
                shares = (cosine / 0.2).softmax(dim=0)
                best = cosine.max() if pooling == "max" else (shares * cosine).sum()
                scores[row, column] += best / count
    masks = {"positive_VT": level.positive, "negative_VT": level.negative}
    expected = {
        "info_nce": info_nce(scores / 0.07, **masks),
        "sigmoid": sigmoid(scores / 0.07 - 10, **masks),
        "hinge": hinge(scores, margin=0.2, hardest=False, **masks),
    }
    measured = loss_terms(model, split, batch, config=config, epoch=1)
    assert list(measured) == ["weak_segment"]
    torch.testing.assert_close(measured["weak_segment"], expected[name])
    torch.testing.assert_close(total_of(measured, config), 2 * expected[name])


def test_the_weak_term_stands_beside_the_others() -> None:
    plain = terms_of(LossConfig(weak_segment_weight=0), seed=0)
    with_weak = terms_of(LossConfig(weak_segment_weight=0.5), seed=0)
    assert {name: with_weak[name] for name in plain} == plain
    assert set(with_weak) == {*plain, "weak_segment"}


def test_the_terms_of_a_level_are_added_by_their_weights() -> None:
    losses = LossConfig(
        global_weight=3, segment_weight=2, in_clip_weight=0.5, weak_segment_weight=0.25
    )
    model, split, batch, config = case(losses, seed=1)
    terms = loss_terms(model, split, batch, config=config, epoch=1)
    by_level = level_losses(terms, config)
    assert list(by_level) == ["global", "segment"]
    torch.testing.assert_close(by_level["global"], 3 * terms["global"])
    of_segments = 0.25 * terms["weak_segment"] + 2 * terms["segment"] + 0.5 * terms["in_clip"]
    torch.testing.assert_close(by_level["segment"], of_segments)


def test_the_global_level_teaches_no_head_of_the_segment_level() -> None:
    losses = LossConfig(weak_segment_weight=1)
    model, split, batch, config = case(losses, seed=1)
    terms = loss_terms(model, split, batch, config=config, epoch=1)
    assert model.has_path
    torch.autograd.backward(level_losses(terms, config)["global"])
    assert model.segment_heads is not None
    assert all(parameter.grad is None for parameter in model.segment_heads.parameters())


def overlapping_split() -> SplitFeatures:
    """Clips 0 and 1 share half of their seconds, 2 is later in their video, 3 to 5 are others."""
    texts: list[Text] = [(clip, f"caption {clip}", None) for clip in range(6)]
    texts += [(clip, f"sentence {clip} {k}", (k, k + 1.0)) for clip in range(6) for k in range(2)]
    return dataclasses.replace(
        with_sentences(split_of([[(0, 1), (1, 2)]] * 6, texts)),
        clip_videos=np.array([7, 7, 7, 8, 9, 9]),
        clip_starts=np.array([0.0, 5.0, 15.0, 0.0, 0.0, 30.0]),  # of 10 s each
    )


def loop_info_nce(
    logits: Tensor, positive: list[tuple[int, int]], masked: set[tuple[int, int]]
) -> Tensor:
    """From the definition: of each row and each column with a positive, -log(P / (P + N))."""
    directions = []
    for side in (0, 1):
        terms = []
        for place in sorted({pair[side] for pair in positive}):
            own = [pair for pair in positive if pair[side] == place]
            pairs = [
                (row, column)
                for row in range(logits.shape[0])
                for column in range(logits.shape[1])
                if (row, column)[side] == place
            ]
            others = [pair for pair in pairs if pair not in masked and pair not in positive]
            above = sum(logits[pair].exp() for pair in own)
            terms.append(-(above / (above + sum(logits[pair].exp() for pair in others))).log())
        directions.append(sum(terms) / len(terms))
    return (directions[0] + directions[1]) / 2


def test_the_levels_equal_loops_over_pairs_where_clips_overlap() -> None:
    """Every term in float64, with the pairs of the definition instead of the batch's masks."""
    features = overlapping_split()
    config = RunConfig(heads=LINEAR, losses=LossConfig(weak_segment_weight=1), tasks=NO_TASKS)
    config = trainable(config, features).config
    torch.manual_seed(0)
    model = build_model(config, dim_video=DIM, dim_text=DIM).double()
    split = doubled(load_training_split(features, config=config, device=torch.device("cpu")))
    batch = next(epoch_batches(split, batch_clips=6, seed=0, epoch=1))
    assert batch.global_level is not None and batch.segment_level is not None
    measured = loss_terms(model, split, batch, config=config, epoch=1)

    clips, captions = batch.clips.tolist(), batch.global_level.texts.tolist()
    order = torch.from_numpy(np.concatenate([[2 * clip, 2 * clip + 1] for clip in clips]))
    counts = torch.full((6,), 2)
    wholes, segments = model.encode_videos(
        split.clip_features[batch.clips], split.segment_features[order], counts
    )
    texts, sentences = model.encode_texts(
        split.text_features[captions],
        gather_sentences(split, batch.sentences),
        batch.sentence_counts,
    )
    own = [(row, captions.index(clip)) for row, clip in enumerate(clips)]
    shared = {(clips.index(a), captions.index(b)) for a, b in ((0, 1), (1, 0))}
    torch.testing.assert_close(
        measured["global"], loop_info_nce(wholes @ texts.T / START, own, shared)
    )
    late = torch.zeros(6, 6, dtype=torch.float64)
    for row in range(6):
        for column, parts in enumerate(sentences.split(batch.sentence_counts.tolist())):
            for part in parts:
                cosines = [segments[2 * row + k] @ part for k in range(2)]
                shares = [(10 * cosine).exp() for cosine in cosines]
                best = sum(s * c for s, c in zip(shares, cosines, strict=True)) / sum(shares)
                late[row, column] = late[row, column] + best / len(parts)
    torch.testing.assert_close(measured["weak_segment"], loop_info_nce(late / START, own, shared))
    of_spans = batch.segment_level.texts.tolist()
    spans = model.encode_sentences(split.text_features[of_spans])
    own, shared = [], set()
    for row, segment in enumerate(order.tolist()):
        for column, text in enumerate(of_spans):
            clip, place = divmod(text - 6, 2)
            if (clip, place) == divmod(segment, 2):
                own.append((row, column))
            if {clip, segment // 2} == {0, 1}:
                shared.add((row, column))
    torch.testing.assert_close(
        measured["segment"], loop_info_nce(segments @ spans.T / START, own, shared)
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("term", ["global", "weak_segment", "segment"])
def test_clips_that_overlap_do_not_repel_each_other(name: LossName, term: str) -> None:
    """Other texts of the second clip leave the first one's gradient as it is, unless the clips are
    apart."""
    features = overlapping_split()
    losses = LossConfig(name=name, weak_segment_weight=1, margin=2)
    config = RunConfig(heads=LINEAR, losses=losses, tasks=NO_TASKS, levels=LevelsConfig(path=True))
    torch.manual_seed(0)
    model = build_model(config, dim_video=DIM, dim_text=DIM).double()
    split = doubled(load_training_split(features, config=config, device=torch.device("cpu")))
    owners = features.text_clips
    assert features.sentences is not None
    sentence_owners = np.repeat(owners, features.sentences.counts)

    def gradient(clips: list[int], *, changed: bool) -> Tensor:
        segments = split.segment_features.clone().requires_grad_()
        texts, sentences = split.text_features.clone(), split.sentence_features.clone()
        if changed:
            texts[owners == clips[1]] *= torch.tensor([1.0, -1, 2, -3])
            sentences[sentence_owners == clips[1]] *= torch.tensor([1.0, -1, 2, -3])
        own = dataclasses.replace(
            split, segment_features=segments, text_features=texts, sentence_features=sentences
        )
        batch = make_batch(split, np.array(clips), rng=np.random.default_rng(0))
        loss = loss_terms(model, own, batch, config=config, epoch=1)[term]
        (of_segments,) = torch.autograd.grad(loss, segments)
        return of_segments[2 * clips[0] : 2 * clips[0] + 2]

    for clips in ([0, 1], [1, 0]):
        assert torch.equal(gradient(clips, changed=True), gradient(clips, changed=False))
    for clips in ([0, 2], [4, 5]):
        before, after = (gradient(clips, changed=changed) for changed in (False, True))
        assert not torch.allclose(before, after, rtol=1e-6, atol=0)
