"""The settings of an extraction."""

import math

import pytest

from mlalign.extract.config import (
    DEFAULT_BACKBONE,
    DEFAULT_PRETRAINED,
    DecoderLimits,
    ExtractConfig,
)


def test_the_defaults_are_valid():
    assert ExtractConfig().tag == DEFAULT_PRETRAINED
    assert ExtractConfig().backbone == DEFAULT_BACKBONE


@pytest.mark.parametrize("fps", [0, -1, 1001, math.nan, math.inf])
def test_a_rate_that_is_none_is_refused_with_its_value(fps):
    with pytest.raises(ValueError, match=f"fps must be > 0 and <= 1000, got {fps}"):
        ExtractConfig(fps=fps)


@pytest.mark.parametrize("name", ["workers", "batch_frames", "shard_clips"])
def test_counts_begin_at_one(name):
    with pytest.raises(ValueError, match=f"{name} must be >= 1, got 0"):
        ExtractConfig(**{name: 0})


@pytest.mark.parametrize("name", ["max_megapixels", "max_samples", "stall_seconds", "memory_gib"])
@pytest.mark.parametrize("value", [0, -1, math.nan])
def test_limits_are_above_zero(name, value):
    with pytest.raises(ValueError, match=f"{name} must be > 0, got {value}"):
        DecoderLimits(**{name: value})


def test_all_problems_are_told_together():
    with pytest.raises(ValueError) as caught:
        ExtractConfig(
            fps=0,
            workers=0,
            segments=("uniform:0", "scenes", "scenes"),
            backbone="tiny",
            pretrained="x",
        )
    for part in ("fps", "workers", "uniform:0", "scenes", "twice", "tiny has weights of its own"):
        assert part in str(caught.value)


def test_a_tag_is_no_checkpoint():
    config = ExtractConfig(backbone="ViT-B-32", pretrained="laion2b_s34b_b79k")
    assert config.tag == "laion2b_s34b_b79k"
    assert config.checkpoint is None


@pytest.mark.parametrize("name", ["weights/last", "model.pt", "model.safetensors", "~/a.bin"])
def test_what_looks_like_a_file_is_a_checkpoint_and_no_tag(name):
    config = ExtractConfig(backbone="ViT-B-32", pretrained=name)
    assert config.tag is None
    assert config.checkpoint is not None and "~" not in str(config.checkpoint)


def test_an_existing_file_of_any_name_is_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").write_bytes(b"")
    config = ExtractConfig(backbone="ViT-B-32", pretrained="weights")
    assert config.tag is None and config.checkpoint is not None


def test_other_backbones_have_no_default_tag():
    assert ExtractConfig(backbone="ViT-B-16").tag is None
    assert ExtractConfig(backbone="tiny").tag is None
