"""`mlalign-align` as a person meets it: arguments, one line, errors with exit codes."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from mlalign.align import trainer
from mlalign.align.cli import main
from mlalign.align.runs.checkpoint import load_run
from mlalign.data_manifests.core.errors import UserError
from mlalign.extract.cache.split_features import QuestionFeatures, SplitFeatures

DIM = 8


def small_split(name: str, *, num_clips: int) -> SplitFeatures:
    """Clips of two segments; each clip has a caption, each segment a sentence, all random."""
    rng = np.random.default_rng(num_clips)
    num_segments = 2 * num_clips
    clips, owner = np.arange(num_clips), np.repeat(np.arange(num_clips), 2)
    spans = np.tile([[0.0, 1.0], [1.0, 2.0]], (num_clips, 1))

    def features(count: int) -> np.ndarray:
        return rng.normal(size=(count, DIM)).astype(np.float32)

    return SplitFeatures(
        cache_key="the key",
        split=name,
        segment_rule="spans",
        clip_ids=[f"{name}{i}" for i in clips],
        clip_features=features(num_clips),
        clip_durations=np.full(num_clips, 2.0),
        segment_features=features(num_segments),
        segment_offsets=np.arange(0, num_segments + 1, 2),
        segment_spans=spans,
        text_ids=[f"text{i}" for i in range(3 * num_clips)],
        texts=[f"words {i}" for i in range(3 * num_clips)],
        text_features=features(3 * num_clips),
        text_clips=np.concatenate([clips, owner]),
        text_spans=np.concatenate([np.full((num_clips, 2), np.nan), spans]),
        num_failed_clips=3 if name == "train" else 0,
        questions=QuestionFeatures(
            question_ids=[],
            kinds=[],
            types=[],
            clips=np.zeros(0, dtype=np.int64),
            spans=np.zeros((0, 2)),
            questions=[],
            answers=[],
            answer_indices=np.zeros(0, dtype=np.int64),
            question_features=features(0),
            option_features=features(0),
            option_offsets=np.zeros(1, dtype=np.int64),
        ),
    )


class SmallStore:
    """Stands in for FeatureStore: two splits in memory."""

    key, dim, text_dim, splits = "the key", DIM, DIM, ("train", "val")

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def open(cls, path: Path) -> SmallStore:
        if not path.exists():
            raise UserError(f"no cache at {path}")
        return cls(path)

    def feature_bytes(self, name: str, **options: object) -> int:
        return 0

    def split(
        self, name: str, *, segments: str | None, leave_out_partial: bool, **options: object
    ) -> SplitFeatures:
        if segments not in (None, "spans"):
            raise UserError(f"no segments {segments!r}; there are spans")
        if name == "val":
            return small_split(name, num_clips=10)
        split = small_split(name, num_clips=18 if leave_out_partial else 20)
        return dataclasses.replace(split, num_partial_clips=2)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(trainer, "FeatureStore", SmallStore)
    (tmp_path / "cache").mkdir()
    return tmp_path


def invoke(folder: Path, *arguments: str) -> Result:
    out = ("-o", str(folder / "run"), "--set", "optimiser.epochs=2", "--set", "device=cpu")
    return CliRunner().invoke(main, [str(folder / "cache"), *out, *arguments])


def test_it_trains_and_prints_one_line(folder: Path) -> None:
    result = invoke(folder)
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == 1
    assert result.stdout.startswith(
        f"{folder / 'run'}: trained on 20 clips (3 without features left out, 2 of videos that are "
        f"cut short), epoch "
    )
    assert "(10 validation clips)" in result.stdout
    assert load_run(folder / "run").cache_key == "the key"


def test_clips_that_are_cut_short_are_left_out_when_asked_and_counted(folder: Path) -> None:
    result = invoke(folder, "--set", "data.partial_clips=leave_out")
    assert "trained on 18 clips (3 without features left out, 2 of videos" in result.stdout
    assert "cut short left out), epoch" in result.stdout
    content = json.loads((folder / "run" / "run.json").read_text())
    assert (content["num_failed_clips"], content["num_partial_clips"]) == (3, 2)
    assert content["leaves_out_partial_clips"] is True


def test_a_log_gets_plain_progress_lines(folder: Path) -> None:
    lines = invoke(folder).stderr.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("run: not trained: multiple choice (the split 'train' has no ")
    assert lines[1].startswith("run: epoch 0 of 2: validation ")
    assert lines[3].startswith("run: epoch 2 of 2: loss ")


def test_json_is_the_content_of_run_json(folder: Path) -> None:
    result = invoke(folder, "--json")
    summary = json.loads(result.stdout)
    assert summary.pop("path") == str(folder / "run")
    content = json.loads((folder / "run" / "run.json").read_text())
    assert {**content, **summary} == content


def test_metrics_hold_a_line_per_step_and_validation(folder: Path) -> None:
    invoke(folder, "--set", "optimiser.batch_clips=10")
    text = (folder / "run" / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    kinds = ["validation", "step", "step", "validation", "step", "step", "validation"]
    assert [line["kind"] for line in lines] == kinds
    assert {"loss", "global", "segment", "segment_in_clip", "logit_scale"} <= set(lines[1])
    assert {"epoch", "global_recall_at_1", "segment_recall_at_1", "score"} <= set(lines[0])


def test_the_parts_of_the_segment_term_are_logged_every_ten_steps(folder: Path) -> None:
    invoke(folder, "--set", "optimiser.batch_clips=10", "--set", "optimiser.epochs=6")
    text = (folder / "run" / "metrics.jsonl").read_text()
    steps = [line for line in map(json.loads, text.splitlines()) if line["kind"] == "step"]
    with_parts = [line["step"] for line in steps if "segment_in_clip" in line]
    assert len(steps) == 12 and with_parts == [1, 11]
    for line in steps:
        if line["step"] in with_parts:
            parts = line["segment_in_clip"] + line["segment_cross_clip"]
            assert parts == pytest.approx(line["segment"], rel=1e-5)


def test_options_file_and_overrides_name_the_same_settings(folder: Path) -> None:
    config = folder / "config.yaml"
    config.write_text("seed: 1\nlosses: {segment_weight: 0.5, global_weight: 2}\n")
    invoke(folder, "--config", str(config), "--set", "losses.global_weight=3", "--seed", "7")
    loaded = load_run(folder / "run").config
    assert (loaded.seed, loaded.losses.segment_weight, loaded.losses.global_weight) == (7, 0.5, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "data.train_split=all"], "data.train_split is 'all', .* splits train, val"),
        (["--set", "data.validation_split=dev"], "train, val: .* or null to do without"),
        (["--set", "data.segments=uniform:4"], "no segments 'uniform:4'; there are spans"),
        (["--set", "losses.segment_wieght=1"], "did you mean losses.segment_weight"),
        (["--seed", "-1"], "seed must be >= 0"),
        (["--set", "heads.video.width=3"], "keeps the width of the features, 8"),
        (["--set", "heads.video.name=identity", "--set", "heads.text.name=identity"], "zero-shot"),
    ],
)
def test_a_wrong_setting_is_one_clear_error(
    folder: Path, arguments: list[str], message: str
) -> None:
    result = invoke(folder, *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert "Traceback" not in result.stderr
    assert re.search(message, result.stderr, flags=re.DOTALL), result.stderr
    assert not (folder / "run").exists()


def test_a_missing_cache_is_an_error_and_leaves_no_folder(folder: Path) -> None:
    (folder / "cache").rmdir()
    result = invoke(folder)
    assert (result.exit_code, result.stderr) == (2, f"Error: no cache at {folder / 'cache'}\n")
    assert not (folder / "run").exists()


def test_a_finished_run_is_refused_before_any_work(folder: Path) -> None:
    invoke(folder)
    (folder / "cache").rmdir()
    result = invoke(folder)
    assert result.exit_code == 2
    assert "already holds a finished run" in result.stderr
