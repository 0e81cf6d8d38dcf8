"""The terms of a batch: each against its definition on the batch's own pairs."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from split_fixtures import DIM, random_split
from torch import Tensor

from mlalign.align.config import RunConfig
from mlalign.align.data.batches import Batch, LevelBatch, epoch_batches
from mlalign.align.data.split import TrainingSplit, load_training_split
from mlalign.align.head_config import HeadConfig, HeadsConfig
from mlalign.align.loss_config import LossConfig, LossName, WeakPooling
from mlalign.align.model.model import AlignmentModel, build_model
from mlalign.align.objective.losses import hinge, info_nce, sigmoid
from mlalign.align.objective.objective import loss_terms

NAMES: tuple[LossName, ...] = ("info_nce", "sigmoid", "hinge")
LINEAR = HeadsConfig(video=HeadConfig(name="linear"), text=HeadConfig(name="linear"))


def case(losses: LossConfig, seed: int) -> tuple[AlignmentModel, TrainingSplit, Batch, RunConfig]:
    torch.manual_seed(seed)
    config = RunConfig(heads=LINEAR, losses=losses)
    split = load_training_split(random_split(seed), config=config, device=torch.device("cpu"))
    batch = next(epoch_batches(split, batch_clips=8, seed=seed, epoch=1))
    return build_model(config, dim_video=DIM, dim_text=DIM), split, batch, config


def terms_of(losses: LossConfig, seed: int, epoch: int = 1) -> dict[str, float]:
    model, split, batch, config = case(losses, seed)
    terms = loss_terms(model, split, batch, config=config, epoch=epoch, with_parts=True)
    return {name: term.item() for name, term in terms.items()}


def cosines(model: AlignmentModel, split: TrainingSplit, level: LevelBatch) -> Tensor:
    segments = model.encode_segments(split.segment_features[level.videos])
    return segments @ model.encode_texts(split.text_features[level.texts]).T


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
    assert list(measured) == ["loss", "in_clip"]
    assert measured["in_clip"].item() == pytest.approx(sum(terms) / len(terms), rel=1e-4)
    assert measured["loss"].item() == pytest.approx(0.5 * measured["in_clip"].item())


@pytest.mark.parametrize("name", NAMES)
def test_the_bias_and_the_scale_learn_where_the_loss_has_them(name: LossName) -> None:
    model, split, batch, config = case(LossConfig(name=name), seed=0)
    assert (model.logit_bias is not None) == (name == "sigmoid")
    torch.autograd.backward(loss_terms(model, split, batch, config=config, epoch=1)["loss"])
    assert (model.log_logit_scale.grad is not None) == (name != "hinge")
    if model.logit_bias is not None:
        assert model.logit_bias.item() == -10
        assert model.logit_bias.grad is not None and model.logit_bias.grad.item() != 0


@pytest.mark.parametrize("name", NAMES)
def test_a_duplicated_caption_contributes_no_repulsion(name: LossName) -> None:
    """Every clip has the same caption and every span the same words: nothing is left to repel."""
    features = random_split(0)
    for text in range(len(features.texts)):
        features.texts[text] = "The same WORDS!" if text % 2 else "the same words"
    torch.manual_seed(0)
    losses = LossConfig(name=name, in_clip_weight=1)
    config = RunConfig(heads=LINEAR, losses=losses)
    split = load_training_split(features, config=config, device=torch.device("cpu"))
    batch = next(epoch_batches(split, batch_clips=8, seed=0, epoch=1))
    for level in (batch.global_level, batch.segment_level):
        assert level is not None
        related = level.positive.any(dim=1)
        assert not level.negative[related].any()
    terms = loss_terms(
        build_model(config, dim_video=DIM, dim_text=DIM), split, batch, config=config, epoch=1
    )
    assert torch.isfinite(terms["loss"])
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
    scores = torch.zeros(level.positive.shape)
    for row, clip in enumerate(batch.clips):
        own = slice(int(split.segment_offsets[clip]), int(split.segment_offsets[clip + 1]))
        segments = model.encode_segments(split.segment_features[own])
        for column, text in enumerate(level.texts.tolist()):
            cosine = segments @ model.encode_texts(split.text_features[text : text + 1])[0]
            shares = (cosine / 0.2).softmax(dim=0)
            scores[row, column] = cosine.max() if pooling == "max" else (shares * cosine).sum()
    masks = {"positive_VT": level.positive, "negative_VT": level.negative}
    expected = {
        "info_nce": info_nce(scores / 0.07, **masks),
        "sigmoid": sigmoid(scores / 0.07 - 10, **masks),
        "hinge": hinge(scores, margin=0.2, hardest=False, **masks),
    }
    measured = loss_terms(model, split, batch, config=config, epoch=1)
    assert list(measured) == ["loss", "weak_segment"]
    torch.testing.assert_close(measured["weak_segment"], expected[name])
    torch.testing.assert_close(measured["loss"], 2 * expected[name])


def test_the_weak_term_stands_beside_the_others() -> None:
    plain = terms_of(LossConfig(), seed=0)
    with_weak = terms_of(LossConfig(weak_segment_weight=0.5), seed=0)
    assert with_weak["loss"] == pytest.approx(plain["loss"] + 0.5 * with_weak["weak_segment"])
    assert {name: with_weak[name] for name in plain if name != "loss"} == {
        name: term for name, term in plain.items() if name != "loss"
    }
