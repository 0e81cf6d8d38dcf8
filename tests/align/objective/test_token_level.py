"""The token level: its term, its heads, its metric, and runs with it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner, Result
from split_fixtures import DIM, NO_TASKS, random_split, with_tokens
from torch import Tensor

from mlalign.align.cli import main
from mlalign.align.config import RunConfig, ValidationConfig
from mlalign.align.data.batches import Batch, epoch_batches
from mlalign.align.data.split import (
    TrainingDataError,
    TrainingSplit,
    check_finite,
    load_training_split,
)
from mlalign.align.head_config import HeadConfig, HeadName, HeadsConfig
from mlalign.align.loss_config import LossConfig, LossName, TokenInteraction
from mlalign.align.model.model import AlignmentModel, build_model
from mlalign.align.model.token_interaction import token_scores
from mlalign.align.objective.losses import hinge, info_nce, sigmoid
from mlalign.align.objective.objective import level_losses, loss_terms
from mlalign.align.runs.checkpoint import load_run
from mlalign.align.validation.recall import load_validation_split, validate

LINEAR = HeadsConfig(video=HeadConfig(name="linear"), text=HeadConfig(name="linear"))
TOKENS = LossConfig(token_weight=0.5)


def case(
    losses: LossConfig, seed: int, heads: HeadsConfig = LINEAR
) -> tuple[AlignmentModel, TrainingSplit, Batch, RunConfig]:
    torch.manual_seed(seed)
    config = RunConfig(tasks=NO_TASKS, heads=heads, losses=losses)
    features = with_tokens(random_split(seed), seed)
    split = load_training_split(features, config=config, device=torch.device("cpu"))
    batch = next(epoch_batches(split, batch_clips=8, seed=seed, epoch=1))
    model = build_model(config, dim_video=DIM, dim_text=DIM)
    with torch.no_grad():
        for parameter in model.parameters():  # last layers start at zero
            parameter += 0.1 * torch.randn(parameter.shape)
    return model, split, batch, config


def table(model: AlignmentModel, split: TrainingSplit, batch: Batch) -> Tensor:
    """(clips, texts): the scores, one by one."""
    assert split.tokens is not None and batch.global_level is not None
    rows = []
    for clip in batch.clips:
        frames = part(split.tokens.frames, split.tokens.frame_offsets, clip)
        row = []
        for text in batch.global_level.texts.tolist():
            words = part(split.tokens.words, split.tokens.word_offsets, text)
            vectors = model.encode_segments(frames), model.encode_sentences(words)
            own = [np.array([0, len(part)]) for part in vectors]
            score = model.token_scores(*vectors, frame_offsets=own[0], word_offsets=own[1])
            row.append(score.squeeze())
        rows.append(torch.stack(row))
    return torch.stack(rows)


def part(features: Tensor, offsets: np.ndarray, item: int) -> Tensor:
    return features[offsets[item] : offsets[item + 1]].float()


@pytest.mark.parametrize("interaction", ["max", "weighted"])
@pytest.mark.parametrize("name", ["info_nce", "sigmoid", "hinge"])
@pytest.mark.parametrize("separate", [False, True])
def test_the_token_term_is_the_loss_over_clips_and_global_texts(
    name: LossName, interaction: TokenInteraction, separate: bool
) -> None:
    """With the masks of the global level, by the segment level's heads."""
    losses = dataclasses.replace(TOKENS, name=name, token_interaction=interaction)
    heads = dataclasses.replace(LINEAR, separate_levels=separate)
    model, split, batch, config = case(losses, 3, heads)
    cosines, level = table(model, split, batch), batch.global_level
    assert level is not None
    logits = model.of_segments.scale(cosines)
    masks = {"positive_VT": level.positive, "negative_VT": level.negative}
    expected = {
        "info_nce": info_nce(logits, **masks),
        "sigmoid": sigmoid(logits, **masks),
        "hinge": hinge(cosines, margin=0.2, hardest=False, **masks),
    }
    terms = loss_terms(model, split, batch, config=config, epoch=1)
    torch.testing.assert_close(terms["token"], expected[name])
    torch.testing.assert_close(level_losses(terms, config)["token"], 0.5 * terms["token"])


def test_the_weights_of_words_and_frames_are_learnt() -> None:
    losses = dataclasses.replace(TOKENS, token_interaction="weighted")
    model, split, batch, config = case(losses, 1)
    torch.autograd.backward(loss_terms(model, split, batch, config=config, epoch=1)["token"])
    head = model.token_head
    assert head is not None
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        if name not in ("frames.leave.bias", "words.leave.bias"):  # which a softmax cancels
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("interaction", ["max", "weighted"])
@pytest.mark.parametrize("video", ["identity", "residual", "temporal", "attention"])
def test_step_0_scores_the_raw_features_exactly(
    video: HeadName, interaction: TokenInteraction
) -> None:
    features = with_tokens(random_split(2))
    assert features.frames is not None and features.tokens is not None
    text = "residual" if video != "identity" or interaction == "max" else "identity"
    heads = HeadsConfig(video=HeadConfig(name=video), text=HeadConfig(name=text))
    losses = dataclasses.replace(TOKENS, token_interaction=interaction)
    model = build_model(
        RunConfig(tasks=NO_TASKS, heads=heads, losses=losses), dim_video=DIM, dim_text=DIM
    )
    frames = torch.from_numpy(features.frames.values).float()
    words = torch.from_numpy(features.tokens.values).float()
    offsets = {
        "frame_offsets": features.frames.offsets,
        "word_offsets": features.tokens.offsets,
    }
    counts = torch.from_numpy(np.diff(features.frames.offsets))
    clips = torch.from_numpy(features.clip_features)
    measured = model.token_scores(
        model.encode_frames(clips, frames, counts), model.encode_sentences(words), **offsets
    )
    raw = token_scores(F.normalize(frames, dim=-1), F.normalize(words, dim=-1), **offsets)
    assert torch.equal(measured, raw)


@pytest.mark.parametrize("video", ["residual", "temporal", "attention"])
def test_recall_equals_loops_and_a_clips_frames_do_not_see_other_clips(video: HeadName) -> None:
    heads = HeadsConfig(video=HeadConfig(name=video), text=HeadConfig(name="residual"))
    model, *_ = case(TOKENS, 4, heads)
    features = with_tokens(random_split(8, num_clips=20), 8)
    assert features.frames is not None and features.tokens is not None
    loaded = load_validation_split(features, device=torch.device("cpu"), with_tokens=True)
    hits = []
    for text in np.flatnonzero(~features.text_is_segment):
        words = part(torch.from_numpy(features.tokens.values), features.tokens.offsets, text)
        scores = []
        for clip in range(20):
            frames = torch.from_numpy(features.frames.values)
            own = part(frames, features.frames.offsets, clip)
            vectors = model.encode_frames(
                torch.from_numpy(features.clip_features[clip : clip + 1]),
                own,
                torch.tensor([len(own)]),
            )
            cosines = vectors @ model.encode_sentences(words).T
            both = cosines.max(dim=0).values.mean() + cosines.max(dim=1).values.mean()
            scores.append(both.item() / 2)
        rivals = np.delete(scores, features.text_clips[text])
        hits.append(scores[features.text_clips[text]] > rivals.max())
    assert 0 < np.mean(hits) < 1
    assert validate(model, loaded)["token_recall_at_1"] == pytest.approx(np.mean(hits))


def test_frames_and_tokens_that_are_not_finite_name_their_clips() -> None:
    split = with_tokens(random_split(1))
    assert split.frames is not None and split.tokens is not None
    row = int(split.frames.offsets[3])
    split.frames.values[row, 1] = np.inf
    with pytest.raises(TrainingDataError, match=r"1 of \d+ frame features .* the clips clip3:"):
        check_finite(split)
    split.frames.values[row, 1] = 0
    split.tokens.values[split.tokens.offsets[2], 0] = np.nan
    clip = split.text_clips[2]
    with pytest.raises(TrainingDataError, match=rf"1 of \d+ token features .* clip{clip}:"):
        check_finite(split)


def test_a_metric_that_is_not_trained_is_refused() -> None:
    with pytest.raises(ValueError, match=r"token_recall_at_1.*losses.token_weight is 0"):
        RunConfig(tasks=NO_TASKS, validation=ValidationConfig(metric="token_recall_at_1"))
    with pytest.raises(ValueError, match="frames_per_clip must be at least 1"):
        dataclasses.replace(RunConfig().data, frames_per_clip=0)


def invoke(cache: Path, out: Path, *settings: str, sweep: Path | None = None) -> Result:
    words = [str(cache), "-o", str(out)]
    words += [] if sweep is None else ["--sweep", str(sweep)]
    for setting in ("device=cpu", "optimiser.epochs=3", *settings):
        words += [] if sweep else ["--set", setting]
    return CliRunner().invoke(main, words)


@pytest.mark.parametrize("interaction", ["max", "weighted"])
def test_a_run_with_the_token_level_alone_is_judged_by_it(
    token_cache: Path, tmp_path: Path, interaction: TokenInteraction
) -> None:
    settings = ["losses.global_weight=0", "losses.segment_weight=0", "losses.token_weight=1"]
    result = invoke(
        token_cache, tmp_path / "run", *settings, f"losses.token_interaction={interaction}"
    )
    assert result.exit_code == 0, result.output
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert all("token" in json.loads(line) for line in lines if '"step"' in line and "loss" in line)
    run = load_run(tmp_path / "run")
    assert 0 <= run.metrics["token_recall_at_1"] <= 1
    assert (run.model.token_head is not None) == (interaction == "weighted")


def test_mapped_frames_and_tokens_give_the_same_run(token_cache: Path, tmp_path: Path) -> None:
    for name, limit in (("whole", "null"), ("mapped", "0")):
        settings = ["losses.token_weight=1", f"data.memory_gib={limit}", "data.frames_per_clip=3"]
        result = invoke(token_cache, tmp_path / name, *settings)
        assert result.exit_code == 0, result.output
        assert ("through a memory map" in result.stderr) == (name == "mapped")
    for file in ("metrics.jsonl", "heads.safetensors", "last.safetensors"):
        one, other = ((tmp_path / name / file).read_bytes() for name in ("whole", "mapped"))
        assert one == other


def test_a_cache_without_tokens_is_an_error_that_says_how_to_have_them(
    small_cache: Path, tmp_path: Path
) -> None:
    result = invoke(small_cache, tmp_path / "run", "losses.token_weight=1")
    assert result.exit_code == 2
    assert "losses.token_weight is set, which needs frames and tokens" in result.stderr
    assert "extract with --keep-tokens" in result.stderr
    (tmp_path / "sweep.yaml").write_text(
        "rows: [{name: plain}, {name: token, set: {losses.token_weight: 1}}]\nseeds: [0]\n"
    )
    result = invoke(small_cache, tmp_path / "runs", sweep=tmp_path / "sweep.yaml")
    assert result.exit_code == 2
    assert "extract with --keep-tokens" in result.stderr


@pytest.mark.slow
def test_the_members_of_a_sweep_share_frames_and_tokens(token_cache: Path, tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(
        "base: {device: cpu, optimiser: {epochs: 1}}\n"
        "rows: [{name: plain}, {name: token, set: {losses.token_weight: 1}}]\nseeds: [0]\n"
    )
    result = invoke(token_cache, tmp_path / "runs", sweep=tmp_path / "sweep.yaml")
    assert result.exit_code == 0, result.output
    runs = [load_run(tmp_path / "runs" / f"{name}-seed0") for name in ("plain", "token")]
    assert ["token_recall_at_1" in run.metrics for run in runs] == [False, True]
