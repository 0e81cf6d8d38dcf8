"""The model: vectors of both levels against loops, zero-shot at the start, nothing untrained."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from split_fixtures import DIM, NO_TASKS, random_split, with_sentences, with_tokens
from task_fixtures import split_with_questions
from torch import Tensor

from mlalign.align.config import RunConfig
from mlalign.align.data.batches import epoch_batches
from mlalign.align.data.split import load_training_split
from mlalign.align.epoch_loop import untrained_model
from mlalign.align.head_config import HeadConfig, HeadName, HeadsConfig
from mlalign.align.loss_config import (
    TASK_NAMES,
    GlobalFrom,
    LevelsConfig,
    LossConfig,
    LossName,
)
from mlalign.align.model.level_heads import LogitScale
from mlalign.align.model.model import AlignmentModel, build_model
from mlalign.align.objective.objective import level_losses, loss_terms
from mlalign.data_manifests.core.errors import SettingsError
from mlalign.evaluate.scores.vectors import ZeroShot

WIDTH = 16
VIDEO_HEADS: tuple[HeadName, ...] = ("linear", "mlp", "residual", "temporal", "attention")
TRAINED = (
    LossConfig(weak_segment_weight=0),
    LossConfig(segment_weight=0, weak_segment_weight=0),
    LossConfig(global_weight=0, weak_segment_weight=0),
    LossConfig(segment_weight=0, weak_segment_weight=1),
)
"""Both levels, the global one, the segment one, both without spans."""


TERMS = ("global", "segment", "in_clip", "weak_segment", "token", *TASK_NAMES)
EVERYTHING = with_tokens(with_sentences(split_with_questions(0, num_clips=8)))
"""A split with pairs or items for each of them."""


def model_of(
    video: HeadName = "residual",
    *,
    text: HeadName = "residual",
    losses: LossConfig = TRAINED[0],
    global_from: GlobalFrom = "parts",
    path: bool = True,
    separate_levels: bool = True,
    dim: int = WIDTH,
    shaken: bool = False,
) -> AlignmentModel:
    torch.manual_seed(0)
    config = RunConfig(
        heads=HeadsConfig(
            video=HeadConfig(name=video),
            text=HeadConfig(name=text),
            separate_levels=separate_levels,
        ),
        levels=LevelsConfig(global_from=global_from, path=path),
        losses=losses,
        tasks=NO_TASKS,
    )
    model = build_model(config, dim_video=dim, dim_text=dim)
    for parameter in model.parameters() if shaken else ():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model.eval()


def ragged(*counts: int) -> tuple[Tensor, Tensor, Tensor]:
    """Items, their parts and the counts, in float64; lengths of the features differ."""
    lengths = torch.logspace(-1, 1, sum(counts), dtype=torch.float64)[:, None]
    parts = torch.randn(sum(counts), WIDTH, dtype=torch.float64) * lengths
    return torch.randn(len(counts), WIDTH, dtype=torch.float64), parts, torch.tensor(counts)


def unit(vector: Tensor) -> Tensor:
    return vector / vector.square().sum().sqrt()


@pytest.mark.parametrize("global_from", ["parts", "pooled"])
@pytest.mark.parametrize("path", [False, True])
@pytest.mark.parametrize("separate_levels", [False, True])
@pytest.mark.parametrize("losses", TRAINED)
def test_the_vectors_of_both_levels_equal_loops(
    global_from: GlobalFrom, path: bool, separate_levels: bool, losses: LossConfig
) -> None:
    model = model_of(
        global_from=global_from,
        path=path,
        separate_levels=separate_levels,
        losses=losses,
        shaken=True,
    ).double()
    wholes, parts, counts = ragged(3, 1, 4)
    pairs = [heads for heads in (model.global_heads, model.segment_heads) if heads is not None]
    has_path = path and global_from == "parts" and len(pairs) == 2
    for side in ("video", "text"):
        encode = model.encode_videos if side == "video" else model.encode_texts
        made, made_parts = encode(wholes, parts, counts)
        at_global, at_segments = (getattr(pairs[k], side) for k in (0, -1))
        first = 0
        for item, count in enumerate(counts.tolist()):
            own = parts[first : first + count]
            mean = sum(unit(at_global(part[None])[0]) for part in own) / count
            if has_path:
                mean = mean + sum(unit(at_segments(part[None])[0]) for part in own) / count
            expected = mean if global_from == "parts" else at_global(wholes[item][None])[0]
            torch.testing.assert_close(made[item], unit(expected))
            for place, part in enumerate(own):
                torch.testing.assert_close(
                    made_parts[first + place], unit(at_segments(part[None])[0])
                )
            first += count


def test_the_path_gets_no_gradient() -> None:
    model = model_of(shaken=True)
    clips, segments, counts = (part.float() for part in ragged(3, 2))
    made, _ = model.encode_videos(clips, segments, counts.long())
    torch.autograd.backward(made.square().sum() + made[:, 0].sum())
    assert model.segment_heads is not None and model.global_heads is not None
    assert all(parameter.grad is None for parameter in model.segment_heads.parameters())
    assert any(parameter.grad is not None for parameter in model.global_heads.parameters())


def test_a_level_that_is_not_trained_is_read_through_the_heads_of_the_other() -> None:
    for losses in TRAINED[1:3]:
        model = model_of(losses=losses)
        assert (model.global_heads is None) != (model.segment_heads is None)
        assert model.of_global is model.of_segments and not model.has_path


@pytest.mark.parametrize("video", ["residual", "temporal", "attention"])
@pytest.mark.parametrize("global_from", ["parts", "pooled"])
@pytest.mark.parametrize("losses", TRAINED)
def test_step_0_equals_zero_shot_pooled_alike_to_the_last_bit(
    video: HeadName, global_from: GlobalFrom, losses: LossConfig
) -> None:
    if (video, global_from) == ("attention", "pooled"):
        with pytest.raises(ValueError, match="attention, which weighs the segments"):
            model_of(video, global_from=global_from, losses=losses)
        return
    model, zero_shot = (
        model_of(video, global_from=global_from, losses=losses),
        ZeroShot(global_from),
    )
    wholes, parts, counts = ragged(3, 1, 7)
    given = (wholes.float(), parts.float(), counts)
    for side in ("encode_videos", "encode_texts"):
        for ours, theirs in zip(
            getattr(model, side)(*given), getattr(zero_shot, side)(*given), strict=True
        ):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("video", VIDEO_HEADS)
@pytest.mark.parametrize("losses", TRAINED)
@pytest.mark.parametrize("separate_levels", [False, True])
def test_every_parameter_has_a_gradient(
    video: HeadName, losses: LossConfig, separate_levels: bool
) -> None:
    config = RunConfig(
        heads=HeadsConfig(
            video=HeadConfig(name=video),
            text=HeadConfig(name="linear"),
            separate_levels=separate_levels,
        ),
        losses=losses,
        tasks=NO_TASKS,
        levels=LevelsConfig(path=True),
    )
    split = load_training_split(random_split(0), config=config, device=torch.device("cpu"))
    batch = next(epoch_batches(split, batch_clips=8, seed=0, epoch=1))
    model = build_model(config, dim_video=DIM, dim_text=DIM)
    terms = loss_terms(model, split, batch, config=config, epoch=1)
    torch.autograd.backward(list(level_losses(terms, config).values()))
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", ["info_nce", "sigmoid", "hinge"])
@pytest.mark.parametrize("separate_levels", [False, True])
@pytest.mark.parametrize(
    "trained",
    [
        *(("global", term) for term in TERMS[1:]),
        *((term,) for term in TERMS),
        ("token", "choice"),
        ("segment", "moment"),
    ],
    ids="+".join,
)
def test_every_parameter_has_a_gradient_whatever_is_trained_together(
    name: LossName, separate_levels: bool, trained: tuple[str, ...]
) -> None:
    weights = {f"{term}_weight": float(term in trained) for term in TERMS}
    tasks = {f"{task}_weight": weights.pop(f"{task}_weight") for task in TASK_NAMES}
    config = RunConfig(
        heads=HeadsConfig(
            video=HeadConfig(name="temporal"),
            text=HeadConfig(name="linear"),
            separate_levels=separate_levels,
        ),
        losses=replace(LossConfig(name=name, token_interaction="weighted"), **weights),
        tasks=replace(NO_TASKS, **tasks),
        levels=LevelsConfig(path=True),
    )
    model = untrained_model(config, EVERYTHING)
    split = load_training_split(
        EVERYTHING, config=config, device=torch.device("cpu"), answers=model.answers
    )
    batch = next(epoch_batches(split, batch_clips=8, seed=0, epoch=1))
    terms = loss_terms(model, split, batch, config=config, epoch=1)
    torch.autograd.backward(list(level_losses(terms, config).values()))
    assert [key for key, p in model.named_parameters() if p.grad is None] == []


def test_items_do_not_depend_on_their_company() -> None:
    for video in VIDEO_HEADS:
        model = model_of(video, shaken=True).double()
        clips, segments, counts = ragged(3, 1, 7)
        together = model.encode_videos(clips, segments, counts)
        alone = model.encode_videos(clips[2:], segments[4:], counts[2:])
        torch.testing.assert_close(together[0][2:], alone[0])
        torch.testing.assert_close(together[1][4:], alone[1])


def test_encoded_vectors_have_length_one() -> None:
    model = model_of(text="linear", shaken=True)
    wholes, parts, counts = ragged(4, 6)
    for encode in (model.encode_videos, model.encode_texts):
        for encoded in encode(wholes.float(), parts.float(), counts):
            torch.testing.assert_close(encoded.norm(dim=-1), torch.ones(len(encoded)))


def test_features_of_two_widths_meet_in_the_heads_width() -> None:
    heads = HeadsConfig(video=HeadConfig(name="mlp", width=6), text=HeadConfig(name="linear"))
    model = build_model(RunConfig(heads=heads, tasks=NO_TASKS), dim_video=16, dim_text=6)
    ones = torch.ones(3, dtype=torch.int64)
    assert model.encode_videos(torch.randn(3, 16), torch.randn(3, 16), ones)[0].shape == (3, 6)
    assert model.encode_texts(torch.randn(3, 6), torch.randn(3, 6), ones)[0].shape == (3, 6)
    for wrong, widths in ((HeadsConfig(), "16 and 6"), (heads, "6 and 16")):
        with pytest.raises(SettingsError, match=f"one width, got {widths}"):
            build_model(
                RunConfig(heads=wrong, tasks=NO_TASKS),
                dim_video=16,
                dim_text=6 if wrong is not heads else 16,
            )


def test_two_identities_have_nothing_to_train() -> None:
    with pytest.raises(SettingsError, match="both identity: there is nothing to train"):
        model_of("identity", text="identity")
    assert model_of("identity").has_trainable_heads


def test_the_logit_scale_starts_at_the_inverse_temperature() -> None:
    assert LogitScale(temperature=0.07).value.item() == pytest.approx(1 / 0.07)


def test_the_logit_scale_stays_at_or_below_100_and_can_come_back() -> None:
    scale = LogitScale(temperature=0.07)
    scale.log_scale.data.fill_(9.0)
    assert scale.value.item() == pytest.approx(100)
    scale.clamp()
    assert scale.log_scale.item() == pytest.approx(math.log(100))
    torch.autograd.backward(scale.value)
    assert scale.log_scale.grad is not None and scale.log_scale.grad.item() > 0


def test_each_level_has_a_scale_of_its_own_where_it_has_heads_of_its_own() -> None:
    for separate in (False, True):
        model = model_of(separate_levels=separate)
        assert (model.of_global.scale is model.of_segments.scale) != separate


def test_the_names_of_the_weights_stay_those_of_runs_on_disk() -> None:
    names = set(model_of("linear", text="linear").state_dict())
    assert names == {
        f"{level}_heads.{name}"
        for level, name in itertools.product(
            ("global", "segment"),
            (
                "video.map.weight",
                "video.map.bias",
                "text.map.weight",
                "text.map.bias",
                "scale.log_scale",
            ),
        )
    }


def test_the_last_weights_load_into_a_model_of_the_same_settings() -> None:
    model = model_of("attention", shaken=True)
    other = model_of("attention")
    other.load_state_dict(model.state_dict())
    wholes, parts, counts = ragged(3, 2)
    given = (wholes.float(), parts.float(), counts)
    assert torch.equal(model.encode_videos(*given)[0], other.encode_videos(*given)[0])
