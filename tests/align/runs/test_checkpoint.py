"""The run folder: written whole, read back equal, damage named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from split_fixtures import NO_TASKS

from mlalign.align.config import RunConfig
from mlalign.align.head_config import HeadConfig, HeadsConfig
from mlalign.align.loss_config import LevelsConfig
from mlalign.align.model.model import AlignmentModel, build_model, cpu_weights
from mlalign.align.runs import checkpoint
from mlalign.align.runs.checkpoint import RunError, begin_run, finish_run, load_run
from mlalign.align.runs.summary import RunSummary

CONFIG = RunConfig(
    heads=HeadsConfig(
        video=HeadConfig(name="mlp", width=5, hidden=7), text=HeadConfig(name="linear", width=5)
    ),
    tasks=NO_TASKS,
    seed=3,
)
SUMMARY = RunSummary(
    path=Path("runs/both"),
    cache_key="abc",
    decided=("levels.path=true",),
    left_out=(),
    feature_width=8,
    text_feature_width=8,
    segment_rule="spans",
    num_train_clips=100,
    num_failed_clips=0,
    num_partial_clips=0,
    leaves_out_partial_clips=False,
    num_parameters=1,
    num_validation_clips=20,
    best_epoch=4,
    num_epochs=9,
    num_steps=90,
    metrics={"global_recall_at_1": 0.25, "segment_recall_at_1": 0.9},
    logit_scale=15.0,
    wall_seconds=1.26,
)

DECIDED = replace(CONFIG, levels=LevelsConfig(path=True))
"""What the run was trained with: its data have sentences with spans."""


def random_model() -> AlignmentModel:
    torch.manual_seed(0)
    return build_model(DECIDED, dim_video=8, dim_text=8)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = tmp_path / "runs" / "both"
    with begin_run(path, CONFIG) as metrics_file:
        metrics_file.write("{}\n")
    model = random_model()
    finish_run(path, model=model, last_weights=cpu_weights(model), summary=SUMMARY)
    return path


def test_a_run_is_read_back_equal(run: Path) -> None:
    loaded = load_run(run)
    assert (loaded.path, loaded.config, loaded.cache_key) == (run, DECIDED, "abc")
    assert (loaded.metrics, loaded.segment_rule) == (SUMMARY.metrics, "spans")
    assert not loaded.model.training
    for name, weight in random_model().state_dict().items():
        assert torch.equal(weight, loaded.model.state_dict()[name])


def test_a_run_folder_holds_these_files_and_no_temporary_ones(run: Path) -> None:
    names = {"config.yaml", "metrics.jsonl", "heads.safetensors", "last.safetensors", "run.json"}
    assert {path.name for path in run.iterdir()} == names
    content = json.loads((run / "run.json").read_text())
    assert set(content["versions"]) == {"python", "mlalign", "numpy", "safetensors", "torch"}
    assert content["best_epoch"] == 4 and "path" not in content


def test_a_finished_run_is_never_overwritten(run: Path) -> None:
    with pytest.raises(RunError, match="already holds a finished run.* choose another"):
        with begin_run(run, CONFIG):
            raise AssertionError("not reached")
    load_run(run)


def test_an_unfinished_run_starts_afresh(run: Path) -> None:
    (run / "run.json").unlink()
    with pytest.raises(RunError, match=r"unfinished run \(run.json is missing\)"):
        load_run(run)
    (run / "notes.txt").write_text("mine")
    with begin_run(run, CONFIG):
        pass
    assert (run / "metrics.jsonl").read_text() == ""
    assert not (run / "heads.safetensors").exists()
    assert (run / "notes.txt").read_text() == "mine"


def test_a_file_in_the_way_is_said(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    for path in (tmp_path / "run", tmp_path / "run" / "below"):
        with pytest.raises(RunError, match="a file is in its way"):
            with begin_run(path, CONFIG):
                raise AssertionError("not reached")


def test_what_is_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run folder at"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(RunError, match="is not a run folder: it has no run.json"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("heads.safetensors", b""),
        ("heads.safetensors", b"\xff" * 100),
        ("run.json", b"{"),
        ("run.json", b"[]"),
        ("run.json", b'{"format": 2}'),
        ("config.yaml", b"heads: 3"),
        ("config.yaml", b"heads: {video: {name: mlp, width: 6}, text: {name: mlp, width: 6}}"),
    ],
)
def test_a_damaged_run_is_said(run: Path, name: str, content: bytes) -> None:
    (run / name).write_bytes(content)
    with pytest.raises(RunError, match=r"(?s)is damaged \(.*train it again"):
        load_run(run)


@pytest.mark.parametrize("name", ["heads.safetensors", "config.yaml"])
def test_a_run_without_a_file_is_damaged(run: Path, name: str) -> None:
    (run / name).unlink()
    with pytest.raises(RunError, match="is damaged"):
        load_run(run)


def test_another_format_is_said(run: Path) -> None:
    content = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**content, "format": 9}))
    with pytest.raises(RunError, match="run format 9, this mlalign reads 2"):
        load_run(run)


def test_a_failed_write_leaves_no_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / "run.json").unlink()
    before = (run / "heads.safetensors").read_bytes()

    def full_disk(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(checkpoint, "save_file", full_disk)
    model = random_model()
    with pytest.raises(OSError, match="no space"):
        finish_run(run, model=model, last_weights=cpu_weights(model), summary=SUMMARY)
    assert (run / "heads.safetensors").read_bytes() == before
    assert not (run / "run.json").exists()
    assert not list(run.glob(".*"))


def test_the_summary_is_one_line() -> None:
    assert SUMMARY.line() == (
        "runs/both: trained on 100 clips, epoch 4 of 9 kept, global recall@1 25.0 %, "
        "segment recall@1 90.0 % (20 validation clips), 1.3 s"
    )
    bare = replace(SUMMARY, metrics={}, num_failed_clips=2)
    assert bare.line() == (
        "runs/both: trained on 100 clips (2 without features left out), epoch 4 of 9 kept, 1.3 s"
    )
