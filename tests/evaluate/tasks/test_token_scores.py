"""The token score of retrieval: ranks against loops, and where it is shown."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from split_fixtures import DIM, random_split, with_tokens

from mlalign.align.cli import main as align
from mlalign.align.config import RunConfig
from mlalign.align.head_config import HeadConfig, HeadName, HeadsConfig
from mlalign.align.loss_config import LossConfig
from mlalign.align.model.model import AlignmentModel, build_model
from mlalign.data_manifests.core.errors import UserError
from mlalign.evaluate.cli import main as evaluate
from mlalign.evaluate.config import EvaluationConfig
from mlalign.evaluate.scores.vectors import Encoder, ZeroShot
from mlalign.evaluate.tasks import token_scores
from mlalign.evaluate.tasks.retrieval import retrieval_tasks
from mlalign.evaluate.tasks.token_scores import score_tokens
from mlalign.extract.cache.ragged import Ragged
from mlalign.extract.cache.split_features import SplitFeatures

CONFIG = EvaluationConfig()


def trained(video: HeadName, seed: int) -> AlignmentModel:
    torch.manual_seed(seed)
    heads = HeadsConfig(video=HeadConfig(name=video))
    losses = LossConfig(token_weight=1, token_interaction="weighted")
    config = RunConfig(heads=heads, losses=losses)
    model = build_model(config, dim_video=DIM, dim_text=DIM)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape)
    return model.eval()


def score(split: SplitFeatures, model: Encoder, clip: int, text: int) -> float:
    """Of one clip with one text, by loops."""
    assert split.frames is not None and split.tokens is not None
    frames, words = (
        torch.from_numpy(ragged.values[ragged.offsets[item] : ragged.offsets[item + 1]]).float()
        for ragged, item in ((split.frames, clip), (split.tokens, text))
    )
    frame_shares = torch.ones(len(frames)) / len(frames)
    word_shares = torch.ones(len(words)) / len(words)
    if isinstance(model, AlignmentModel):
        clip_feature = torch.from_numpy(split.clip_features[clip : clip + 1])
        frames = model.encode_frames(clip_feature, frames, torch.tensor([len(frames)]))
        words = model.encode_sentences(words)
        assert model.token_head is not None
        frame_shares = model.token_head.of_frames(frames).softmax(0)
        word_shares = model.token_head.of_words(words).softmax(0)
    total = 0.0
    for some, others, shares in ((frames, words, frame_shares), (words, frames, word_shares)):
        for one, share in zip(some, shares, strict=True):
            total += share.item() * max(
                torch.cosine_similarity(one, other, dim=0).item() for other in others
            )
    return total / 2


@pytest.mark.parametrize("video", [None, "residual", "temporal"])
@pytest.mark.parametrize("block_scores", [1, 1 << 22])
def test_ranks_equal_loops(
    video: HeadName | None, block_scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Text to clip, sentence to clip and clip to text, in blocks or at once."""
    monkeypatch.setattr(token_scores, "BLOCK_SCORES", block_scores)
    monkeypatch.setattr(token_scores, "ENCODE_ROWS", 5 if block_scores == 1 else 16384)
    split = with_tokens(random_split(3, num_clips=7), 3)
    model = ZeroShot() if video is None else trained(video, 1)
    tasks = retrieval_tasks(split, CONFIG)
    assert len(tasks) == 3
    with torch.no_grad():
        table = np.array(
            [[score(split, model, c, t) for t in range(len(split.texts))] for c in range(7)]
        )
    for task, found in zip(tasks, score_tokens(tasks, split, model, config=CONFIG), strict=True):
        scores = table[np.ix_(task.clips, task.texts)]
        scores = scores.T if task.direction == "text_to_clip" else scores
        for query, own in enumerate(scores):
            start, stop = task.correct.offsets[query : query + 2]
            right = task.correct.values[start:stop]
            rivals = np.delete(own, right)
            assert found.ranks.ranks[query] == (rivals >= own[right].max() - 1e-6).sum()
        assert (found.values["R@1"] == 100 * (found.ranks.ranks == 0)).all()


def test_a_clip_with_the_same_frames_ties_and_counts_against_us() -> None:
    split = with_tokens(random_split(3, num_clips=7), 3)
    assert split.frames is not None
    first = split.frames.values[: split.frames.offsets[1]]
    frames = Ragged(
        values=np.tile(first, (7, 1)), offsets=np.arange(8, dtype=np.int64) * len(first)
    )
    same = dataclasses.replace(split, frames=frames)
    task = retrieval_tasks(same, CONFIG)[0]
    (found,) = score_tokens([task], same, ZeroShot(), config=CONFIG)
    assert (found.ranks.ranks == 6).all()
    assert found.ranks.tied.all()


def test_vectors_that_are_not_finite_are_refused() -> None:
    split = with_tokens(random_split(3, num_clips=7), 3)
    assert split.tokens is not None
    split.tokens.values[4, 0] = np.nan
    with pytest.raises(UserError, match=r"1 of \d+ tokens have NaN"):
        score_tokens(retrieval_tasks(split, CONFIG), split, ZeroShot(), config=CONFIG)


@pytest.fixture(scope="module")
def run(token_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the token level."""
    out = tmp_path_factory.mktemp("runs") / "token-seed0"
    words = ["device=cpu", "optimiser.epochs=2", "losses.token_weight=1"]
    words = [word for setting in words for word in ("--set", setting)]
    result = CliRunner().invoke(align, [str(token_cache), "-o", str(out), *words])
    assert result.exit_code == 0, result.output
    return out


def scores_of(cache: Path, out: Path, *arguments: str | Path) -> dict[str, list[str]]:
    """Scores of text_to_clip by row; checks the printed table and the queries' file, too."""
    words = ["--set", "split=null", "--set", "bootstrap_samples=20", "-o", out, *arguments]
    result = CliRunner().invoke(evaluate, [str(word) for word in (cache, *words)])
    assert result.exit_code == 0, result.output
    content = json.loads((out / "results.json").read_text())
    found = {
        row["name"]: [score["score"] for score in row["scores"] if score["task"] == "text_to_clip"]
        for row in content["rows"]
    }
    assert ("token" in result.output) == ("token" in found["zero-shot"])
    return found


@pytest.mark.slow
def test_the_score_is_shown_for_all_rows_where_a_run_was_trained_with_it(
    token_cache: Path, small_cache: Path, run: Path, tmp_path: Path
) -> None:
    all_four, three = ["global", "segment", "token", "fused"], ["global", "segment", "fused"]
    found = scores_of(token_cache, tmp_path / "a", "--run", run)
    assert found == {"zero-shot": all_four, "token": all_four}
    # The same features without tokens: of the same key, so that the run fits.
    report = CliRunner().invoke(
        evaluate,
        [str(w) for w in (small_cache, "--run", run, "-o", tmp_path / "b", "--set", "split=null")],
    )
    assert report.exit_code == 0, report.output
    assert "token" not in json.dumps(
        json.loads((tmp_path / "b" / "results.json").read_text())["rows"][0]
    )
    assert scores_of(token_cache, tmp_path / "c") == {"zero-shot": three}
    assert scores_of(token_cache, tmp_path / "d", "--set", "token_score=true") == {
        "zero-shot": all_four
    }


def test_a_score_that_is_asked_for_needs_tokens(small_cache: Path, tmp_path: Path) -> None:
    words = ["--set", "split=null", "--set", "token_score=true", "-o", str(tmp_path / "report")]
    result = CliRunner().invoke(evaluate, [str(small_cache), *words])
    assert result.exit_code == 2
    assert "extract with --keep-tokens" in result.stderr
    assert not (tmp_path / "report").exists()
