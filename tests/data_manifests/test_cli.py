"""mlalign-manifest as a person meets it."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from mlalign.data_manifests.cli import main


def test_scenes_then_check(tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = CliRunner().invoke(main, ["scenes", "-o", str(out), "--clips", "4", "--json"])
    assert made.exit_code == 0, made.output
    summary = json.loads(made.stdout)
    assert summary["path"] == str(out)
    assert {s: c["clips"] for s, c in summary["splits"].items()} == {
        "test": 1,
        "train": 2,
        "val": 1,
    }
    checked = CliRunner().invoke(main, ["check", str(out), "--json"])
    assert json.loads(checked.stdout)["splits"] == summary["splits"]


def test_check_counts_in_a_table(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "video_path,text,start_seconds,end_seconds,split\na.mp4,x,,,train\na.mp4,y,0,1,train\n"
    )
    result = CliRunner().invoke(main, ["check", str(tmp_path / "t.csv")])
    assert result.exit_code == 0
    assert result.stdout == (
        f"t, videos in {tmp_path}\n"
        "split  clips  videos  global texts  segment texts  questions\n"
        "train      1       1             1              1          0\n"
        "total      1       1             1              1          0\n"
    )


def test_faults_end_with_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("video_path,text\na.mp4,\n")
    result = CliRunner().invoke(main, ["check", str(tmp_path / "t.csv")])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == (
        f"Error: 1 fault in {tmp_path / 't.csv'}:\n"
        "  t.csv, line 2, column text: a value is required, got nothing\n"
    )


def test_a_folder_in_use_ends_with_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "note").touch()
    result = CliRunner().invoke(main, ["scenes", "-o", str(tmp_path)])
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: ")
