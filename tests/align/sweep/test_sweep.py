"""Sweeps: what members a file means, that they get the numbers they get alone, and what fails."""

from __future__ import annotations

import csv
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner, Result

from mlalign.align.cli import main
from mlalign.align.data.shared_splits import share_splits, shared_splits
from mlalign.align.runs.checkpoint import RunError, load_run
from mlalign.align.sweep import sweep as sweep_module
from mlalign.align.sweep.config import load_sweep
from mlalign.align.sweep.leaderboard import board_lines, leaderboard
from mlalign.align.sweep.sweep import FEATURES_FOLDER, run_sweep
from mlalign.align.sweep.t_interval import central_probability, mean_of_seeds, t_quantile
from mlalign.align.sweep.worker import MemberResult
from mlalign.align.trainer import train_run
from mlalign.data_manifests.core.errors import SettingsError, UserError
from mlalign.extract.cache.store import FeatureStore

BASE = {
    "data": {"train_split": "train", "validation_split": "val"},
    "optimiser": {"epochs": 2},
    "tasks": {"choice_weight": 0, "answer_weight": 0, "moment_weight": 0},
    "device": "cpu",
}


def sweep_file(folder: Path, **content: Any) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({"base": BASE, **content}, sort_keys=False))
    return path


def sweep(cache: Path, out: Path, path: Path, *more: str) -> Result:
    return CliRunner().invoke(main, [str(cache), "-o", str(out), "--sweep", str(path), *more])


def test_a_grid_is_every_combination_with_every_seed(tmp_path):
    grid = {"losses.temperature": [0.05, 0.07], "heads.video.name": ["linear", "residual"]}
    path = sweep_file(tmp_path, grid=grid, seeds=[3, 5])
    _, members = load_sweep(path)
    assert [member.folder for member in members][:3] == [
        "temperature=0.05+name=linear-seed3",
        "temperature=0.05+name=linear-seed5",
        "temperature=0.05+name=residual-seed3",
    ]
    assert len(members) == 8
    assert members[2].config.heads.video.name == "residual"
    assert members[2].config.losses.temperature == 0.05
    assert all(member.config.optimiser.epochs == 2 for member in members)


def test_rows_are_written_out_and_settings_of_one_name_are_told_apart(tmp_path):
    rows = [{"name": "a", "set": {"losses.segment_weight": 0}}, {"name": "b"}]
    _, members = load_sweep(sweep_file(tmp_path, rows=rows, seeds=[0]))
    assert [(m.row, m.config.losses.segment_weight) for m in members] == [("a", 0.0), ("b", 1.0)]
    grid = {"heads.video.name": ["linear"], "heads.text.name": ["mlp"]}
    _, members = load_sweep(sweep_file(tmp_path, grid=grid, seeds=[0]))
    assert members[0].row == "heads.video.name=linear+heads.text.name=mlp"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "expected either a grid or rows"),
        ({"grid": {"seed": [1]}, "rows": [{"name": "a"}]}, "expected either a grid or rows"),
        ({"grid": {"losses.temprature": [1]}}, "did you mean losses.temperature?"),
        ({"grid": {"losses.temperature": [0]}}, "temperature must be at least 0.01"),
        ({"rows": [{"name": "a"}, {"name": "a"}]}, "the row 'a' is there twice"),
        ({"rows": [{"name": "../a"}]}, "a row's name is part of a folder's"),
        ({"rows": [{"name": "a"}], "seeds": [1, 1]}, "seeds must be different numbers"),
        ({"rows": [{"name": "a"}], "baseline": "b"}, "no row is called 'b'; the rows are a"),
        ({"rows": [{"name": "a", "sett": {}}]}, "did you mean"),
        (
            {"rows": [{"name": "a"}], "metric": "recall"},
            "metric must be one of recall_at_1",
        ),
        ({"grid": {"losses.temperature": [0.1, 1e-1]}}, "two rows of the grid would be called"),
    ],
)
def test_what_is_wrong_with_a_sweep_is_said_before_anything_runs(content, message, tmp_path):
    with pytest.raises(SettingsError) as error:
        load_sweep(sweep_file(tmp_path, **content))
    assert message in str(error.value)


def test_faults_of_several_rows_are_said_together(tmp_path):
    rows = [{"name": n, "set": {"losses.temperature": t}} for n, t in (("a", 0), ("b", -1))]
    with pytest.raises(SettingsError) as error:
        load_sweep(sweep_file(tmp_path, rows=rows))
    assert "the row 'a'" in str(error.value) and "the row 'b'" in str(error.value)


def test_shared_splits_are_equal_and_ones_own_to_write(small_cache, tmp_path):
    store = FeatureStore.open(small_cache)
    splits = (store.split("train"), store.split("val"))
    share_splits(splits, tmp_path / "splits")
    first, second = shared_splits(tmp_path / "splits"), shared_splits(tmp_path / "splits")
    np.testing.assert_array_equal(first[0].segment_features, splits[0].segment_features)
    np.testing.assert_array_equal(first[1].questions.clips, splits[1].questions.clips)
    assert first[0].texts == splits[0].texts
    first[0].clip_features[:] = 0
    np.testing.assert_array_equal(second[0].clip_features, splits[0].clip_features)


@pytest.fixture(scope="module")
def swept(small_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Result]:
    """Two rows that train, one that diverges, two seeds each, in two processes."""
    folder = tmp_path_factory.mktemp("sweep")
    rows = [
        {"name": "both"},
        {"name": "broken", "set": {"optimiser.learning_rate": 1e30, "optimiser.epochs": 30}},
        {"name": "global", "set": {"losses.segment_weight": 0}},
    ]
    path = sweep_file(folder, rows=rows, seeds=[0, 1], baseline="global")
    result = sweep(small_cache, folder / "runs", path, "--jobs", "2")
    return folder, path, result


def test_a_member_gets_the_numbers_that_it_gets_alone(swept, small_cache, tmp_path):
    folder, path, _ = swept
    _, members = load_sweep(path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as each of two processes on two cores has
    try:
        train_run(small_cache, tmp_path / "alone", members[0].config)
    finally:
        torch.set_num_threads(threads)
    for name in ("config.yaml", "metrics.jsonl", "heads.safetensors"):
        swept_file = folder / "runs" / members[0].folder / name
        assert swept_file.read_bytes() == (tmp_path / "alone" / name).read_bytes()


def test_a_failed_member_does_not_end_the_others(swept):
    folder, _, result = swept
    assert result.exit_code == 1
    assert "broken-seed1: failed: step" in result.stderr
    for name in ("both-seed0", "both-seed1", "global-seed0", "global-seed1"):
        assert load_run(folder / "runs" / name).config.seed == int(name[-1])
    lines = (folder / "runs" / "leaderboard.csv").read_text().splitlines()
    table = list(csv.DictReader(lines))
    assert [row["row"] for row in table][-1] == "broken"
    assert "Try a lower optimiser.learning_rate" in table[-1]["failures"]
    assert (folder / "runs" / "leaderboard.svg").stat().st_size > 1000
    assert not (folder / "runs" / FEATURES_FOLDER).exists()


def test_a_sweep_goes_on_where_it_was(swept, small_cache):
    folder, path, _ = swept
    runs = folder / "runs"
    done = [runs / f"both-seed{seed}" / "run.json" for seed in (0, 1)]
    before = [file.stat().st_mtime_ns for file in done]
    rows = yaml.safe_load(path.read_text())
    rows["rows"] = [row for row in rows["rows"] if row["name"] == "both"]
    rows["baseline"] = None
    again = folder / "again.yaml"
    again.write_text(yaml.safe_dump(rows))
    result = sweep(small_cache, runs, again)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert before == [file.stat().st_mtime_ns for file in done]
    rows["base"]["optimiser"]["epochs"] = 3
    again.write_text(yaml.safe_dump(rows))
    result = sweep(small_cache, runs, again)
    assert result.exit_code == 2 and "holds a finished run of other settings" in result.stderr


def test_one_job_trains_all_members_in_one_process(small_cache, tmp_path):
    rows = [{"name": "both"}, {"name": "global", "set": {"losses.segment_weight": 0}}]
    path = sweep_file(tmp_path, rows=rows, seeds=[0, 1])
    pids: set[int] = set()
    results: list[MemberResult] = []

    def run() -> None:
        results.extend(run_sweep(small_cache, load_sweep(path)[1], tmp_path / "runs", jobs=1))

    thread = threading.Thread(target=run)
    thread.start()
    while thread.is_alive():
        pids.update(child.pid for child in multiprocessing.active_children() if child.pid)
        time.sleep(0.01)
    assert [result.failure for result in results] == [None] * 4
    assert len(pids) == 1


def test_jobs_are_for_a_sweep_only(small_cache, tmp_path):
    arguments = [str(small_cache), "-o", str(tmp_path / "run"), "--jobs", "2"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2 and "--jobs is for a --sweep" in result.stderr


@pytest.mark.slow
def test_a_killed_process_costs_no_member(small_cache, tmp_path):
    rows = [{"name": name, "set": {"optimiser.epochs": 200}} for name in ("a", "b", "c")]
    path = sweep_file(tmp_path, rows=rows, seeds=[0])
    _, members = load_sweep(path)
    found: list[MemberResult] = []
    thread = threading.Thread(
        target=lambda: found.extend(run_sweep(small_cache, members, tmp_path / "runs", jobs=2))
    )
    thread.start()
    while not list(tmp_path.glob("runs/*/metrics.jsonl")):
        time.sleep(0.01)
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    thread.join(timeout=120)
    assert [result.failure for result in found] == [None, None, None]


def start_sweep(cache: Path, path: Path, out: Path) -> subprocess.Popen[str]:
    """The command in a process group of its own, once two of its members train."""
    code = "from mlalign.align.cli import program; program()"
    arguments = [cache, "--sweep", path, "-o", out, "--jobs", "2"]
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code, *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while len(list(out.glob("*/metrics.jsonl"))) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    return process


def is_quiet(out: Path) -> bool:
    """Whether nobody writes into the runs any more."""

    def sizes() -> list[int]:
        return [file.stat().st_size for file in sorted(out.glob("*/metrics.jsonl"))]

    time.sleep(0.5)
    before = sizes()
    time.sleep(1.0)
    return before == sizes()


@pytest.mark.slow
def test_nobody_trains_on_when_a_sweep_is_killed_and_it_is_finished_later(small_cache, tmp_path):
    rows = [{"name": name, "set": {"optimiser.epochs": 200}} for name in ("a", "b", "c")]
    base = {**BASE, "validation": {"patience_epochs": None}}
    path = sweep_file(tmp_path, base=base, rows=rows, seeds=[0])
    runs = tmp_path / "runs"
    process = start_sweep(small_cache, path, runs)
    with pytest.raises(RunError, match="another sweep is at work in"):
        run_sweep(small_cache, load_sweep(path)[1], runs, jobs=2)
    process.kill()
    process.communicate()
    assert is_quiet(runs)
    assert not list(runs.glob("*/run.json"))
    result = sweep(small_cache, runs, path, "--jobs", "2")
    assert result.exit_code == 0, result.output
    assert not (runs / FEATURES_FOLDER).exists()
    assert sweep(small_cache, tmp_path / "whole", path, "--jobs", "2").exit_code == 0
    for name in ("metrics.jsonl", "heads.safetensors"):
        finished, whole = (folder / "a-seed0" / name for folder in (runs, tmp_path / "whole"))
        assert finished.read_bytes() == whole.read_bytes()


@pytest.mark.slow
def test_ctrl_c_ends_a_sweep_at_once_and_no_waiting_member_begins(small_cache, tmp_path):
    rows = [{"name": name, "set": {"optimiser.epochs": 10**6}} for name in ("a", "b", "c")]
    base = {**BASE, "validation": {"patience_epochs": None}}
    path = sweep_file(tmp_path, base=base, rows=rows, seeds=[0])
    process = start_sweep(small_cache, path, tmp_path / "runs")
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (130, "Interrupted.\n")
    assert is_quiet(tmp_path / "runs")
    assert not (tmp_path / "runs" / "c-seed0").exists()


@pytest.mark.slow
def test_a_sweep_that_goes_on_has_the_threads_that_it_had(small_cache, tmp_path, monkeypatch):
    """The last digits depend on their number: not on how many members are left."""
    _, members = load_sweep(sweep_file(tmp_path, rows=[{"name": "a"}, {"name": "b"}], seeds=[0]))
    given = []

    def train(missing, shared, out, *, jobs, threads):
        given.append((len(missing), jobs, threads))
        for own in missing:
            yield MemberResult(member=own, summary=None, failure="not tried", is_new=True)

    monkeypatch.setattr(sweep_module, "_train", train)
    monkeypatch.setattr(sweep_module, "num_cores", lambda: 4)
    run_sweep(small_cache, members, tmp_path / "runs", jobs=None)
    train_run(small_cache, tmp_path / "runs" / members[0].folder, members[0].config)
    run_sweep(small_cache, members, tmp_path / "runs", jobs=None)
    assert given == [(2, 2, 2), (1, 2, 2)]


@pytest.mark.parametrize(
    "more", [("--seed", "1"), ("--set", "seed=2"), ("--json", "--set", "device=cpu")]
)
def test_a_sweeps_settings_stand_in_its_file(more, small_cache, tmp_path):
    result = sweep(small_cache, tmp_path, sweep_file(tmp_path, rows=[{"name": "a"}]), *more)
    assert result.exit_code == 2 and "a sweep's settings stand in its file" in result.stderr


def member(row: str, seed: int, score: float | None, seconds: float = 1.0) -> MemberResult:
    class Config:
        def __init__(self) -> None:
            self.seed = seed

    class Fake:
        def __init__(self) -> None:
            self.row, self.config, self.folder = row, Config(), f"{row}-seed{seed}"

    content = {"wall_seconds": seconds, "num_parameters": 7}
    summary = None if score is None else {**content, "metrics": {"recall": score / 100}}
    failure = "it broke" if score is None else None
    return MemberResult(member=Fake(), summary=summary, failure=failure, is_new=True)


def test_the_board_has_means_intervals_and_paired_differences():
    results = [
        *(member("base", seed, score) for seed, score in enumerate((10, 20, 30))),
        *(member("good", seed, score, 2) for seed, score in enumerate((13, 23, 34))),
        *(member("slow", seed, score, 9) for seed, score in enumerate((1, 2, None))),
    ]
    board = leaderboard(results, metric=None, baseline=None)
    assert [row.name for row in board.rows] == ["good", "base", "slow"]
    good, base, slow = board.rows
    assert good.score.mean == pytest.approx(70 / 3)
    # 3, 3, 4: mean 10/3, deviation 1/sqrt(3), t of 2 degrees 4.303
    assert good.difference.mean == pytest.approx(10 / 3)
    assert good.difference.high - good.difference.mean == pytest.approx(4.303 / 3, abs=1e-3)
    assert good.difference.p_value == pytest.approx(0.00990, abs=1e-4)
    assert base.difference is None and slow.seeds == (0, 1)
    assert slow.difference.mean == pytest.approx(-13.5) and slow.failures == ("it broke",)
    assert [row.is_pareto for row in board.rows] == [True, True, False]
    text = "\n".join(board_lines(board))
    assert "good *" in text and "2 (1 failed)" in text


def test_a_metric_that_not_every_run_has_is_refused():
    with pytest.raises(UserError, match="not every run has the metric 'other'; all have recall"):
        leaderboard([member("a", 0, 1.0)], metric="other", baseline=None)


@pytest.mark.slow
def test_a_sweep_without_a_validation_split_is_done_without_a_board(small_cache, tmp_path):
    base = {**BASE, "data": {"train_split": "train", "validation_split": None}}
    path = sweep_file(tmp_path, base=base, rows=[{"name": "a"}], seeds=[0])
    done = sweep(small_cache, tmp_path / "runs", path)
    assert done.exit_code == 0, done.output
    assert "No leaderboard: without a validation split" in done.stdout
    assert (tmp_path / "runs" / "a-seed0" / "run.json").exists()
    assert not (tmp_path / "runs" / "leaderboard.csv").exists()


def test_students_quantiles_are_those_of_the_tables():
    """Published two-sided 95 and 99 % points."""
    for degrees, five, one in ((1, 12.706, 63.657), (2, 4.303, 9.925), (4, 2.776, 4.604)):
        assert t_quantile(0.95, degrees=degrees) == pytest.approx(five, abs=2e-3 * five / 10)
        assert t_quantile(0.99, degrees=degrees) == pytest.approx(one, rel=1e-3)
    assert t_quantile(0.95, degrees=30) == pytest.approx(2.042, abs=5e-4)
    assert central_probability(2.776, degrees=4) == pytest.approx(0.95, abs=1e-4)


def test_one_seed_says_nothing_of_others_and_equal_ones_have_no_width():
    assert math.isnan(mean_of_seeds([4.0]).low)
    same = mean_of_seeds([2.0, 2.0])
    assert (same.low, same.high, same.p_value) == (2.0, 2.0, 0.0)
    assert mean_of_seeds([0.0, 0.0]).p_value == 1.0


def test_json_prints_the_board(swept, small_cache):
    folder, path, _ = swept
    rows = yaml.safe_load(path.read_text())
    rows["rows"] = [row for row in rows["rows"] if row["name"] != "broken"]
    again = folder / "json.yaml"
    again.write_text(yaml.safe_dump(rows))
    board = json.loads(sweep(small_cache, folder / "runs", again, "--json").stdout)
    assert board["baseline"] == "global" and len(board["rows"]) == 2
