"""Rows of two reports: the numbers of one report where they could stand in it, else every fault."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from split_fixtures import NO_TASKS

from mlalign.align.config import DataConfig, OptimiserConfig, RunConfig
from mlalign.align.trainer import train_run
from mlalign.evaluate.cli import main

SETTINGS = ("split=train", "validation_split=null", "bootstrap_samples=100", "shown_neighbours=0")


def command(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.fixture(scope="module")
def reports(small_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `both` (zero-shot and run), `zero` (zero-shot) and `val` (zero-shot, elsewhere)."""
    folder = tmp_path_factory.mktemp("reports")
    data = DataConfig(train_split="train", validation_split="val")
    train_run(
        small_cache,
        folder / "run",
        RunConfig(data=data, optimiser=OptimiserConfig(epochs=3), tasks=NO_TASKS),
    )
    wanted = {"both": ["--run", str(folder / "run")], "zero": [], "val": ["--set", "split=val"]}
    for name, more in wanted.items():
        settings = [part for setting in SETTINGS for part in ("--set", setting)]
        done = command(str(small_cache), "-o", str(folder / name), *settings, *more)
        assert done.exit_code == 0, done.output
    return folder


def test_two_reports_give_the_numbers_of_one(reports: Path) -> None:
    first, second = str(reports / "both"), str(reports / "zero")
    done = command("compare", first, second, "--rows", "run", "zero-shot", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    content = json.loads((reports / "both" / "results.json").read_text())
    expected = [item for item in content["comparisons"] if item["p_holm"] is not None]
    same = ("task", "score", "metric", "num_queries", "num_clips", "mcnemar")
    for mine, theirs in zip(found, expected, strict=True):
        assert (mine["row"], mine["baseline"]) == (f"run ({first})", f"zero-shot ({second})")
        assert [mine[key] for key in same] == [theirs[key] for key in same]
        # Few clips: every flip is counted. The bootstrap draws by place, and the order is another.
        for key in ("difference", "p_permutation", "p_holm"):
            assert mine[key] == pytest.approx(theirs[key])
        assert mine["low"] <= mine["difference"] <= mine["high"]


def test_rows_of_one_name_are_paired_by_themselves(reports: Path) -> None:
    done = command("compare", str(reports / "both"), str(reports / "zero"))
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    title = f"zero-shot ({reports / 'both'}) vs zero-shot ({reports / 'zero'}), paired"
    assert " ".join(lines).count("vs") == 1 and title in " ".join(line.strip() for line in lines)
    assert "text→clip global R@1:" in done.stdout and "+0.0" in done.stdout
    assert "p = 1.000" in done.stdout and "after Holm over" in done.stdout


def test_another_split_is_refused_with_every_reason(reports: Path) -> None:
    done = command("compare", str(reports / "both"), str(reports / "val"), "--rows", "x", "y")
    assert done.exit_code == 2
    first, second = (
        {task["name"]: task["num_queries"] for task in json.loads(path.read_text())["tasks"]}
        for path in (reports / name / "results.json" for name in ("both", "val"))
    )
    for reason in (
        "has no row 'x', only zero-shot, run",
        "has no row 'y', only zero-shot",
        "split 'train' and split 'val'",
        *(
            f"{task}: {first[task]} queries only in the first and {second[task]} only in the second"
            for task in ("text_to_clip", "clip_to_text", "grounding")
        ),
        "text_to_clip: chance is ",
    ):
        assert reason in done.stderr


def test_queries_about_another_clip_are_refused(reports: Path, tmp_path: Path) -> None:
    changed = copy(reports / "zero", tmp_path)
    lines = pq.read_table(changed / "queries.parquet")
    clips = pc.if_else(pc.equal(lines["clip_id"], lines["clip_id"][0]), "other", lines["clip_id"])
    rewrite(changed, lines.set_column(lines.schema.get_field_index("clip_id"), "clip_id", clips))
    done = command("compare", str(reports / "zero"), str(changed))
    assert done.exit_code == 2 and "queries about another clip" in done.stderr


def test_ranks_that_do_not_give_the_numbers_are_refused(reports: Path, tmp_path: Path) -> None:
    changed = copy(reports / "zero", tmp_path)
    lines = pq.read_table(changed / "queries.parquet")
    ranks = pa.array([1] * lines.num_rows)
    rewrite(changed, lines.set_column(lines.schema.get_field_index("rank"), "rank", ranks))
    done = command("compare", str(changed), str(reports / "zero"))
    assert done.exit_code == 2 and "do not give its R@1" in done.stderr


@pytest.mark.parametrize("damage", ["nothing", "empty", "not json", "no queries"])
def test_what_is_no_report_is_named(reports: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "r"
    if damage != "nothing":
        copy(reports / "zero", tmp_path)
    if damage in ("empty", "not json"):
        (folder / "results.json").write_text({"empty": "{}", "not json": "<html>"}[damage])
    if damage == "no queries":
        (folder / "queries.parquet").write_bytes(b"PAR1")
    done = command("compare", str(folder), str(reports / "zero"))
    assert done.exit_code == 2
    assert f"Error: {folder}: expected the folder of a report" in done.stderr


def copy(report: Path, folder: Path) -> Path:
    return Path(shutil.copytree(report, folder / "r"))


def rewrite(report: Path, lines: Any) -> None:
    """As it was written: a row group per row, run, task and score."""
    names = ["row", "run", "task", "score"]
    keys = list(dict.fromkeys(tuple(line.values()) for line in lines.select(names).to_pylist()))
    whole = [tuple(line.values()) for line in lines.select(names).to_pylist()]
    with pq.ParquetWriter(report / "queries.parquet", lines.schema) as writer:
        for key in keys:
            writer.write_table(lines.filter(pa.array([line == key for line in whole])))
