"""The model: zero-shot at the start, unit vectors, a bounded logit scale."""

from __future__ import annotations

import math

import pytest
import torch

from mlalign.align.head_config import HeadConfig, HeadName, HeadsConfig
from mlalign.align.model.model import AlignmentModel
from mlalign.data_manifests.core.errors import SettingsError


def model_of(video: HeadConfig, text: HeadConfig) -> AlignmentModel:
    torch.manual_seed(0)
    return AlignmentModel(
        HeadsConfig(video=video, text=text), dim_video=16, dim_text=16, temperature=0.07
    )


@pytest.mark.parametrize("name", ["identity", "residual"])
def test_step_0_equals_zero_shot_to_the_last_bit(name: HeadName) -> None:
    model = model_of(HeadConfig(name=name), HeadConfig(name=name))
    features = 7 * torch.randn(100, 16)
    zero_shot = torch.nn.functional.normalize(features, dim=-1)
    for encode in (model.encode_clips, model.encode_segments, model.encode_texts):
        assert torch.equal(encode(features), zero_shot)


def test_encoded_vectors_have_length_one() -> None:
    model = model_of(HeadConfig(name="mlp", width=6), HeadConfig(name="linear", width=6))
    for encode in (model.encode_clips, model.encode_segments, model.encode_texts):
        encoded = encode(torch.randn(10, 16))
        assert encoded.shape == (10, 6)
        torch.testing.assert_close(encoded.norm(dim=-1), torch.ones(10))


def test_video_and_text_heads_must_end_in_one_width() -> None:
    with pytest.raises(SettingsError, match="one width, got 6 and 16"):
        model_of(HeadConfig(name="mlp", width=6), HeadConfig(name="residual"))


def test_the_logit_scale_starts_at_the_inverse_temperature() -> None:
    assert model_of(HeadConfig(), HeadConfig()).logit_scale.item() == pytest.approx(1 / 0.07)


def test_the_logit_scale_stays_at_or_below_100_and_can_come_back() -> None:
    model = model_of(HeadConfig(), HeadConfig())
    model.log_logit_scale.data.fill_(9.0)
    assert model.logit_scale.item() == pytest.approx(100)
    model.clamp_logit_scale()
    assert model.log_logit_scale.item() == pytest.approx(math.log(100))
    torch.autograd.backward(model.logit_scale)
    assert model.log_logit_scale.grad is not None
    assert model.log_logit_scale.grad.item() > 0


def test_two_identities_have_nothing_to_train() -> None:
    identity = HeadConfig(name="identity")
    assert not model_of(identity, identity).has_trainable_heads
    assert model_of(identity, HeadConfig()).has_trainable_heads


def test_features_of_two_widths_meet_in_the_heads_width() -> None:
    heads = HeadsConfig(video=HeadConfig(name="mlp", width=6), text=HeadConfig(name="linear"))
    model = AlignmentModel(heads, dim_video=16, dim_text=6, temperature=0.07)
    assert model.encode_clips(torch.randn(3, 16)).shape == (3, 6)
    assert model.encode_texts(torch.randn(3, 6)).shape == (3, 6)
    with pytest.raises(SettingsError, match="got 16 and 6 .*have width 16 and 6"):
        AlignmentModel(HeadsConfig(), dim_video=16, dim_text=6, temperature=0.07)


def test_levels_share_heads_unless_they_are_to_have_their_own() -> None:
    for separate_levels in (False, True):
        heads = HeadsConfig(
            video=HeadConfig(name="linear"),
            text=HeadConfig(name="linear"),
            separate_levels=separate_levels,
        )
        model = AlignmentModel(heads, dim_video=16, dim_text=16, temperature=0.07)
        features = torch.randn(5, 16)
        for at_global, at_segment in (
            (model.encode_clips, model.encode_segments),
            (model.encode_texts, model.encode_sentences),
        ):
            assert torch.equal(at_global(features), at_segment(features)) != separate_levels


def test_whole_clips_are_encoded_as_their_parts_are() -> None:
    model = model_of(HeadConfig(name="mlp"), HeadConfig())
    clips, segments = torch.randn(2, 16), torch.randn(5, 16)
    together = model.encode_videos(clips, segments, torch.tensor([2, 3]))
    assert torch.equal(together[0], model.encode_clips(clips))
    assert torch.equal(together[1], model.encode_segments(segments))


def test_the_names_of_the_weights_stay_those_of_runs_on_disk() -> None:
    names = set(model_of(HeadConfig(name="linear"), HeadConfig(name="linear")).state_dict())
    linear = {
        f"{side}_head.map.{part}" for side in ("video", "text") for part in ("weight", "bias")
    }
    assert names == {"log_logit_scale", *linear}
