"""Heads that see the segments of a clip together: where they start, what they look at."""

from __future__ import annotations

import math

import pytest
import torch
from split_fixtures import DIM, NO_TASKS, random_split
from torch import Tensor

from mlalign.align.config import OptimiserConfig, RunConfig
from mlalign.align.data.trainable import trainable
from mlalign.align.head_config import HeadConfig, HeadName, HeadsConfig
from mlalign.align.loss_config import LossConfig
from mlalign.align.model.clip_heads import AttentionPooling
from mlalign.align.model.heads import Residual, build_head
from mlalign.align.model.model import build_model
from mlalign.align.trainer import train_heads
from mlalign.data_manifests.core.errors import SettingsError
from mlalign.evaluate.scores.vectors import embed

NAMES: tuple[HeadName, ...] = ("temporal", "attention")
"""Heads that only videos have."""
WIDTH = 16


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def ragged(*counts: int) -> tuple[Tensor, Tensor, Tensor]:
    """Clips, their segments and the counts; lengths of the features differ."""
    lengths = torch.logspace(-2, 2, sum(counts))[:, None]
    segments = torch.randn(sum(counts), WIDTH) * lengths
    return torch.randn(len(counts), WIDTH), segments, torch.tensor(counts)


def shaken(name: HeadName, *, layers: int = 2, dropout: float = 0.0) -> torch.nn.Module:
    """A head whose parameters are no longer those of the start."""
    head = build_head(HeadConfig(name=name, layers=layers, dropout=dropout), dim=WIDTH)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return head


def test_temporal_starts_as_the_identity_to_the_last_bit() -> None:
    head = build_head(HeadConfig(name="temporal", dropout=0.5), dim=WIDTH)
    clips, segments, counts = ragged(3, 1, 7, 2)
    moved = head(clips, segments, counts)
    assert torch.equal(moved[0], clips)
    assert torch.equal(moved[1], segments)


def test_a_clips_vectors_do_not_depend_on_its_company() -> None:
    head = shaken("temporal").double()
    clips, segments, counts = (part.double() for part in ragged(3, 1, 7, 2, 4, 40))
    together = head(clips, segments, counts.long())
    ends = counts.long().cumsum(0).tolist()
    for clip, end in enumerate(ends):
        own = slice(end - int(counts[clip]), end)
        alone = head(clips[clip : clip + 1], segments[own], counts[clip : clip + 1].long())
        torch.testing.assert_close(alone[0][0], together[0][clip])
        torch.testing.assert_close(alone[1], together[1][own])


def test_segments_see_those_of_their_clip_and_no_others() -> None:
    head = shaken("temporal")
    clips, segments, counts = ragged(3, 2)
    before = head(clips, segments, counts)
    segments[1] += 1
    after = head(clips, segments, counts)
    for moved, still in ((0, 1), (1, 3)):
        assert not torch.equal(before[moved][0], after[moved][0])
        assert torch.equal(before[moved][still:], after[moved][still:])


def test_temporal_knows_the_order_of_the_segments() -> None:
    head = shaken("temporal")
    clips, segments, counts = ragged(5)
    forward, _ = head(clips, segments, counts)
    backward, _ = head(clips, segments.flip(0), counts)
    assert not torch.allclose(forward, backward, atol=1e-4)


def test_attention_weighs_by_a_softmax_over_each_clips_segments() -> None:
    head = shaken("attention")
    assert isinstance(head, AttentionPooling)
    _, segments, counts = ragged(3, 5)
    vectors = torch.randn(8, 6)
    with torch.no_grad():
        means = head.weighted_mean(vectors, segments, counts)
    for clip, own in enumerate((slice(0, 3), slice(3, 8))):
        tokens = head.norm(segments[own])
        weights = [math.exp((token @ head.query).item() / math.sqrt(WIDTH)) for token in tokens]
        expected = sum(w * v for w, v in zip(weights, vectors[own], strict=True)) / sum(weights)
        torch.testing.assert_close(means[clip], expected, atol=1e-4, rtol=1e-4)


def test_attention_starts_with_the_plain_mean_to_the_last_bit() -> None:
    head = build_head(HeadConfig(name="attention"), dim=WIDTH)
    assert isinstance(head, AttentionPooling)
    _, segments, counts = ragged(3, 1, 7)
    vectors = torch.randn(11, 6)
    plain = torch.segment_reduce(vectors, "mean", lengths=counts, axis=0)
    assert torch.equal(head.weighted_mean(vectors, segments, counts), plain)


def test_attention_is_residual_where_no_parts_are_weighed() -> None:
    head = build_head(HeadConfig(name="attention"), dim=WIDTH, weighs_parts=False)
    assert isinstance(head, Residual)


def test_the_direction_of_the_output_ignores_the_length_of_the_features() -> None:
    head = shaken("temporal", layers=1)
    clips, segments, counts = ragged(3, 1, 7)
    for short, long in zip(
        head(clips, segments, counts), head(50 * clips, 50 * segments, counts), strict=True
    ):
        torch.testing.assert_close(
            torch.nn.functional.normalize(short, dim=-1),
            torch.nn.functional.normalize(long, dim=-1),
            atol=1e-2,
            rtol=1e-2,
        )


def test_every_parameter_of_temporal_learns() -> None:
    head = build_head(HeadConfig(name="temporal"), dim=WIDTH)
    optimiser = torch.optim.SGD(head.parameters(), lr=0.1)
    before = [parameter.clone() for parameter in head.parameters()]
    batch = ragged(3, 1, 7)
    for _ in range(3):  # behind the zero layers gradients come one step later each
        optimiser.zero_grad()
        clips, segments = head(*batch)
        torch.autograd.backward((clips - 1).square().mean() + (segments - 1).square().mean())
        optimiser.step()
    for (parameter, new), old in zip(head.named_parameters(), before, strict=True):
        assert not torch.equal(old, new), parameter


def test_each_layer_and_the_dropout_count() -> None:
    clips, segments, counts = ragged(3, 4)
    one, two = (sum(1 for _ in shaken("temporal", layers=n).parameters()) for n in (1, 2))
    assert two > one
    head = shaken("temporal", dropout=0.5)
    assert not torch.equal(head(clips, segments, counts)[0], head(clips, segments, counts)[0])
    head.eval()
    assert torch.equal(head(clips, segments, counts)[0], head(clips, segments, counts)[0])


@pytest.mark.parametrize("name", NAMES)
def test_they_keep_the_width_and_are_no_heads_of_texts(name: HeadName) -> None:
    with pytest.raises(SettingsError, match="keeps the width"):
        build_head(HeadConfig(name=name, width=5), dim=WIDTH)
    with pytest.raises(ValueError, match=f"text.name is {name}.*texts have none"):
        HeadsConfig(text=HeadConfig(name=name))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("separate_levels", [False, True])
@pytest.mark.parametrize(
    "losses",
    [
        LossConfig(),
        LossConfig(segment_weight=0),
        LossConfig(global_weight=0),
        LossConfig(global_weight=0, segment_weight=0, weak_segment_weight=1, name="sigmoid"),
    ],
)
def test_a_training_with_them_runs_and_scores(
    name: HeadName, separate_levels: bool, losses: LossConfig
) -> None:
    heads = HeadsConfig(video=HeadConfig(name=name), separate_levels=separate_levels)
    config = RunConfig(
        heads=heads,
        losses=losses,
        tasks=NO_TASKS,
        optimiser=OptimiserConfig(epochs=3),
        device="cpu",
    )
    train, validation = random_split(0, num_clips=40), random_split(1)
    result = train_heads(config, train=train, validation=validation)
    assert result.num_steps > 0
    vectors = embed(validation, result.model)
    assert len(vectors.segments) == len(validation.segment_features)
    fresh = build_model(trainable(config, train).config, dim_video=DIM, dim_text=DIM)
    fresh.load_state_dict(result.last_weights)
