"""A benchmark: what is missing is done, what changed is done again, what fails fails alone."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from bench_stub import Stub
from browser import BROWSER, look_at
from click.testing import CliRunner, Result

from mlalign.data_manifests.cards.card import load_card
from mlalign.data_manifests.core.errors import SettingsError
from mlalign.data_manifests.core.settings import load_settings
from mlalign.evaluate.bench import checks as bench_checks
from mlalign.evaluate.bench import commands as bench_commands
from mlalign.evaluate.bench import run as bench
from mlalign.evaluate.bench.board import DatasetBoard, main_tasks
from mlalign.evaluate.bench.commands import CommandResult, failed_members, run_command
from mlalign.evaluate.bench.plan import load_plan
from mlalign.evaluate.bench.steps import set_words
from mlalign.evaluate.cli import main
from mlalign.evaluate.config import EvaluationConfig

CARD = {
    "name": "toys",
    "title": "Toys",
    "tasks": ["retrieval", "moments"],
    "importer": "moments_csv",
    "files": {"train": {"names": ["train.csv"]}},
    "where": "here",
    "licence": "ours",
    "splits": {"train": {}, "test": {}},
    "train_split": "train",
    "test_split": "test",
    "queries": "each_sentence",
    "retrieval": {},
    "moments": {"iou_thresholds": [0.5]},
    "references": [
        {"method": "Read", "numbers": {"R@1": 31.25}, "source": "a paper", "checked": True},
        {"method": "Heard", "numbers": {"R@1, IoU 0.5": 12.5, "HL mAP": 3}, "source": "a talk"},
    ],
    "notes": ["Toys are small."],
}
PLAN: dict[str, Any] = {
    "datasets": [
        {"name": "shapes", "scenes": {"clips": 9}},
        {"name": "toys", "card": "toys.yaml", "annotations": "official", "videos": "videos"},
    ],
    "backbones": [{"name": "tiny", "set": {"fps": 2}}],
    "runs": [{"name": "both"}, {"name": "global", "set": {"losses.segment_weight": 0}}],
    "seeds": [0, 1],
    "evaluate": {"bootstrap_samples": 50},
}


class Workplace:
    """A folder with a plan, whose commands are stubs."""

    def __init__(self, folder: Path, stub: Stub) -> None:
        self.folder = folder
        self.out = folder / "bench"
        self._stub = stub

    def start(self, plan: dict[str, Any], *options: str) -> Result:
        path = self.folder / "plan.yaml"
        path.write_text(yaml.safe_dump(plan))
        return CliRunner().invoke(main, ["bench", str(path), "-o", str(self.out), *options])

    def calls(self) -> list[str]:
        """The commands since the last time."""
        calls, self._stub.calls = self._stub.calls, []
        return calls

    def called(self) -> list[str]:
        """The programs since the last time, with the folder that each made."""
        return [re.sub(r"^mlalign-(\w+) .*?-o (\S+).*", r"\1 \2", call) for call in self.calls()]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    stub = Stub()
    monkeypatch.setattr(bench, "run_command", stub)
    monkeypatch.setattr(bench_checks, "run_command", stub)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toys.yaml").write_text(yaml.safe_dump(CARD))
    for name in ("official", "videos"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "one").touch()
    return Workplace(tmp_path, stub)


def changed(**parts: Any) -> dict[str, Any]:
    return {**PLAN, **parts}


def table_of(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "leaderboard.csv").read_text().splitlines(keepends=True)))


EVERYTHING = [
    "manifest shapes/manifest",
    "extract shapes/tiny/cache",
    "align shapes/tiny/runs",
    "evaluate shapes/tiny/report",
    "manifest toys/manifest",
    "extract toys/tiny/cache",
    "align toys/tiny/runs",
    "evaluate toys/tiny/report",
]


def test_every_step_is_done_once_and_never_again(place: Workplace) -> None:
    done = place.start(PLAN)
    assert done.exit_code == 0, done.output
    assert place.called() == EVERYTHING
    again = place.start(PLAN)
    assert again.exit_code == 0, again.output
    assert place.called() == []
    assert again.stdout == done.stdout


def test_a_benchmark_may_be_moved_and_started_from_elsewhere(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    absolute = [
        PLAN["datasets"][0],
        {
            **PLAN["datasets"][1],
            "card": str(place.folder / "toys.yaml"),
            "annotations": str(place.folder / "official"),
            "videos": str(place.folder / "videos"),
        },
    ]
    place.start(changed(datasets=absolute))
    place.called()
    place.out = place.out.rename(place.folder / "moved")
    monkeypatch.chdir("/")
    assert place.start(changed(datasets=absolute)).exit_code == 0
    assert place.called() == []


@pytest.mark.parametrize("lost", ["cache", "runs/both-seed1", "report", "manifest"])
def test_what_is_lost_is_made_again_with_what_was_made_of_it(place: Workplace, lost: str) -> None:
    """Not more: a cache that comes out the same is no reason to train again."""
    place.start(PLAN)
    place.called()
    path = "shapes/manifest" if lost == "manifest" else f"shapes/tiny/{lost}"
    shutil.rmtree(place.out / path)
    assert place.start(PLAN).exit_code == 0
    made = {"cache": "extract", "report": "evaluate", "manifest": "manifest"}.get(lost, "align")
    target = "shapes/tiny/runs" if made == "align" else path
    assert place.called() == [f"{made} {target}"]


def test_a_changed_run_is_trained_again_and_the_old_one_is_kept(place: Workplace) -> None:
    place.start(PLAN)
    place.called()
    runs = [{"name": "both"}, {"name": "global", "set": {"losses.segment_weight": 0.1}}]
    done = place.start(changed(runs=runs))
    assert done.exit_code == 0, done.output
    assert [call.split()[0] for call in place.called()] == ["align", "evaluate"] * 2
    old = place.out / "replaced/shapes/tiny/runs/global-seed0-1/run.json"
    new = place.out / "shapes/tiny/runs/global-seed0/run.json"
    weights = [json.loads(p.read_text())["set"]["losses.segment_weight"] for p in (old, new)]
    assert weights == [0, 0.1]
    assert "global-seed0: made otherwise; it is kept as replaced/" in done.stderr
    assert not (place.out / "replaced/shapes/tiny/runs/both-seed0-1").exists()


def test_a_new_row_trains_what_is_new(place: Workplace) -> None:
    place.start(PLAN)
    before = (place.out / "shapes/tiny/runs/both-seed0/run.json").stat().st_mtime_ns
    place.called()
    place.start(changed(runs=[*PLAN["runs"], {"name": "new", "set": {"precision": "medium"}}]))
    assert [call.split()[0] for call in place.called()] == ["align", "evaluate"] * 2
    assert (place.out / "shapes/tiny/runs/both-seed0/run.json").stat().st_mtime_ns == before


def test_a_refused_cache_is_set_aside_and_all_of_it_is_made_again(place: Workplace) -> None:
    place.start(PLAN)
    place.called()
    done = place.start(changed(backbones=[{"name": "tiny", "set": {"fps": 4}}]))
    assert done.exit_code == 0, done.output
    called = [call for call in place.called() if call.endswith("shapes/tiny/cache")]
    assert len(called) == 2, "refused, then anew"
    assert (place.out / "replaced/shapes/tiny/cache-1/cache.json").exists()
    assert (place.out / "replaced/shapes/tiny/runs/both-seed0-1/run.json").exists()
    back = place.start(PLAN)
    assert back.exit_code == 0 and (place.out / "replaced/shapes/tiny/cache-2").exists()


def test_settings_that_a_cache_does_not_depend_on_leave_it_where_it_is(place: Workplace) -> None:
    place.start(PLAN)
    place.called()
    place.start(changed(backbones=[{"name": "tiny", "set": {"fps": 2, "workers": 3}}]))
    assert place.called() == ["extract shapes/tiny/cache", "extract toys/tiny/cache"]
    assert not (place.out / "replaced").exists()


def test_a_cache_that_is_not_to_blame_is_put_back(place: Workplace) -> None:
    """Extraction refuses, but not because of the cache: it refuses without it, too."""
    place.start(PLAN)
    place.called()
    videos = place.folder / "broken-videos"
    shutil.copytree(place.folder / "videos", videos)
    manifest = place.folder / "m.csv"
    manifest.touch()
    ready = {"name": "shapes", "manifest": "m.csv", "videos": "broken-videos"}
    done = place.start(changed(datasets=[ready]))
    assert done.exit_code == 1
    assert (place.out / "shapes/tiny/cache/cache.json").exists()


def test_new_videos_are_extracted_and_all_runs_trained_on_them(place: Workplace) -> None:
    place.start(PLAN)
    place.called()
    (place.folder / "videos" / "two").touch()
    assert place.start(PLAN).exit_code == 0
    assert place.called() == [call for call in EVERYTHING if " toys/" in call]


def test_a_card_with_other_rules_is_evaluated_by_them(place: Workplace) -> None:
    """Its tables come out the same, so that nothing is extracted or trained again."""
    place.start(PLAN)
    place.called()
    card = {**CARD, "moments": {"iou_thresholds": [0.7]}}
    (place.folder / "toys.yaml").write_text(yaml.safe_dump(card))
    assert place.start(PLAN).exit_code == 0
    assert place.called() == ["manifest toys/manifest", "evaluate toys/tiny/report"]


def test_a_dataset_that_fails_leaves_the_others_alone(place: Workplace) -> None:
    (place.folder / "broken").mkdir()
    datasets = [{**PLAN["datasets"][1], "videos": "broken"}, PLAN["datasets"][0]]
    done = place.start(changed(datasets=datasets))
    assert done.exit_code == 1
    assert place.called() == ["manifest toys/manifest", *EVERYTHING[:4]]
    reason = "no video of it\n  anywhere"
    assert f"failed (tiny: zero-shot, both, global): {reason}" in done.stdout
    assert "shapes: text to clip R@1" in done.stdout
    rows = table_of(place.out)
    failed = [
        (row["dataset"], row["row"], row["note"]) for row in rows if row["status"] == "failed"
    ]
    assert failed == [("toys", name, reason) for name in ("zero-shot", "both", "global")]
    page = (place.out / "leaderboard.html").read_text()
    assert reason in page and '<a class="failed" href="#toys">failed</a>' in page
    # What failed is tried again, and only that.
    place.start(changed(datasets=datasets))
    assert place.called() == ["manifest toys/manifest"]


def test_a_run_that_fails_leaves_the_other_rows_alone(place: Workplace) -> None:
    runs = [{"name": "both"}, {"name": "diverges", "set": {"optimiser.epochs": 9}}]
    plan = changed(datasets=[PLAN["datasets"][0]], runs=runs, evaluate={"baseline": "diverges"})
    done = place.start(plan, "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["failures"] == [
        {
            "dataset": "shapes",
            "backbone": "tiny",
            "row": "diverges-seed1",
            "reason": "not finite\n  in epoch 2",
        }
    ]
    evaluated = next(call for call in place.calls() if call.startswith("mlalign-evaluate"))
    assert "diverges-seed0" in evaluated and "diverges-seed1" not in evaluated
    plan["runs"] = [{"name": "both"}, {"name": "diverges", "set": {"optimiser.epochs": 8}}]
    plan["seeds"] = [1]
    assert place.start(plan).exit_code == 1
    evaluated = next(call for call in place.calls() if call.startswith("mlalign-evaluate"))
    assert "baseline" not in evaluated, "the baseline has no run: the others have numbers"
    overview = (place.out / "leaderboard.html").read_text().split("</table>")[0]
    assert overview.count(">failed</a>") == 1, "a row whose only seed failed is no empty cell"


def test_published_numbers_stand_beside_ours_under_their_metric(place: Workplace) -> None:
    place.start(PLAN)
    rows = table_of(place.out)
    published = [
        tuple(row[name] for name in ("dataset", "row", "status", "task", "metric", "value"))
        for row in rows
        if row["status"].startswith("published")
    ]
    unchecked = "published, not checked"
    assert published == [
        ("toys", "Read", "published", "sentence_to_clip", "R@1", "31.25"),
        ("toys", "Heard", unchecked, "moments", "R@1 IoU 0.5", "12.5"),
        ("toys", "Heard", unchecked, "", "HL mAP", "3.0"),
    ]
    page = re.sub(r"\s+", " ", (place.out / "leaderboard.html").read_text())
    assert 'class="method">Read<small>a paper</small></td><td>31.25</td>' in page
    assert 'class="method">Heard †<small>a talk</small></td><td>12.5</td>' in page
    assert "<li>Heard †: HL mAP 3" in page and "Toys are small." in page


def test_the_assumptions_of_normalised_rows_are_those_of_the_results() -> None:
    normalised = {"row": "a + b", "name": "qb_norm", "assumption": "a bank"}
    rows = [{"name": "a + b", "normalised": None}]
    rows.append({"name": "a + b + QB-Norm", "normalised": normalised})
    board = DatasetBoard(
        name="toys",
        title="",
        split="test",
        tables=(),
        results={"tiny": {"rows": rows}},
        failures={},
        elsewhere=(),
        notes=(),
    )
    assert board.assumptions == {"QB-Norm": "a bank"}


def test_the_page_asks_for_nothing_outside_the_benchmark(place: Workplace) -> None:
    place.start(PLAN)
    page = (place.out / "leaderboard.html").read_text()
    links = set(re.findall(r'(?:src|href)="([^"]*)"', page))
    reports = {f"{name}/tiny/report/report.html" for name in ("shapes", "toys")}
    assert links == {"#shapes", "#toys", *reports}
    assert "<script" not in page and "prefers-color-scheme: dark" in page


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs chromium")
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_the_leaderboard_whole(place: Workplace, width: int, dark: bool) -> None:
    (place.folder / "broken").mkdir()
    failing = {**PLAN["datasets"][1], "name": "failing", "videos": "broken"}
    place.start(changed(datasets=[*PLAN["datasets"], failing]))
    seen = look_at(place.out / "leaderboard.html", place.folder, width=width, dark=dark)
    assert seen["scroll"] <= width and (seen["width"], seen["wide"]) == (width, [])
    assert seen["contrast"] > 7


def test_the_card_decides_splits_and_rules_and_the_plan_has_the_last_word(place: Workplace) -> None:
    datasets = [{**PLAN["datasets"][1], "evaluate": {"moments.iou_comparison": ">="}}]
    place.start(changed(datasets=datasets))
    said = next(call for call in place.calls() if call.startswith("mlalign-evaluate"))
    assert f"card={json.dumps(str(place.folder / 'toys.yaml'))}" in said and "split=" not in said
    assert 'moments.iou_comparison=">="' in said
    sweep = yaml.safe_load((place.out / "toys/tiny/sweep.yaml").read_text())
    settings = sweep["rows"][0]["set"]
    assert settings == {"data.train_split": "train", "data.validation_split": None}
    datasets[0]["splits"] = {"validation": "dev", "test": "held"}
    place.start(changed(datasets=datasets))
    said = next(call for call in place.calls() if call.startswith("mlalign-evaluate"))
    assert "--set split=held --set validation_split=dev" in said


def test_numbers_of_a_corpus_do_not_stand_beside_those_of_ones_own_clip() -> None:
    card = load_card("tvr")
    there = ["sentence_to_clip", "clip_to_text", "moments", "corpus_moments"]
    assert main_tasks(card, there) == ["sentence_to_clip", "corpus_moments"]
    assert main_tasks(load_card("charades-sta"), there) == ["moments"]


def test_another_benchmark_in_the_same_folder_is_refused(place: Workplace) -> None:
    place.start(PLAN)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import filelock, sys; lock = filelock.FileLock(sys.argv[1]); lock.acquire();"
            "print('held', flush=True); sys.stdin.read()",
            place.out / ".bench.lock",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    done = place.start(PLAN)
    holder.communicate()
    assert done.exit_code == 2 and "another benchmark is at work in" in done.stderr


def test_a_folder_of_something_else_is_left_alone(place: Workplace) -> None:
    place.out.mkdir()
    (place.out / "thesis.tex").touch()
    done = place.start(PLAN)
    assert done.exit_code == 2 and "holds no benchmark" in done.stderr
    assert [path.name for path in place.out.iterdir()] == ["thesis.tex"]


def test_all_faults_of_a_plan_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(
        """
datasets:
  - {name: a/b, scenes: {clips: 1}}
  - {name: both, card: msvd, manifest: x.csv}
  - {name: steps, manifest: x.csv, anotations: y}
  - {name: twice, scenes: {}}
  - {name: twice, scenes: {}}
backbone: []
runs:
  - {name: zero-shot, sett: {}}
  - {name: one, set: {seed: 3}}
seeds: [1, 1]
"""
    )
    with pytest.raises(SettingsError) as error:
        load_plan(path)
    for said in (
        "datasets[0]: a name is part of a folder's",
        "datasets[0].scenes: clips must be at least 3",
        "datasets[1]: expected one of card, manifest and scenes, got card and manifest",
        "datasets[2].anotations: no such setting; did you mean datasets.annotations?",
        "runs[0].sett: no such setting; did you mean runs.set?",
        "datasets[2]: 'steps' is a folder of the benchmark itself",
        "backbone: no such setting; did you mean backbones?",
        "backbones: required, but not given",
        "runs[0]: zero-shot is the name of the row that is always there",
        "runs[1]: set.seed: the plan's seeds say it",
    ):
        assert said in str(error.value), said


@pytest.mark.slow
def test_the_stages_own_faults_are_told_at_once_and_nothing_is_done(tmp_path: Path) -> None:
    """By the real commands, which alone know their settings."""
    plan = changed(
        datasets=[
            {"name": "shapes", "scenes": {}, "extract": {"segments": ["uniform:x"]}},
            {"name": "none", "card": "nosuch", "annotations": "a", "videos": "v"},
        ],
        backbones=[{"name": "tiny", "set": {"fpss": 2}}],
        runs=[
            {"name": "one", "set": {"losses.segment_wait": 0}},
            {"name": "two", "set": {"optimiser.epochs": "many"}},
            {"name": "same"},
            {"name": "again"},
        ],
        evaluate={"bootstrap_sample": 3, "baseline": "nobody"},
    )
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(plan))
    done = CliRunner().invoke(main, ["bench", str(path), "-o", str(tmp_path / "bench")])
    assert done.exit_code == 2
    for said in (
        "dataset none: no card is called 'nosuch'",
        "fpss: no such setting; did you mean fps?",
        "uniform:x",
        "losses.segment_wait: no such setting; did you mean losses.segment_weight?",
        "optimiser.epochs: expected a whole number, got 'many'",
        "'same' and 'again' have the same settings",
        "bootstrap_sample: no such setting; did you mean bootstrap_samples?",
    ):
        assert said in done.stderr, (said, done.stderr)
    assert not (tmp_path / "bench").exists()


def test_set_words_read_as_what_they_were_made_of() -> None:
    settings = {
        "split": "null",
        "validation_split": None,
        "recall_ks": [1, 7],
        "moments.iou_comparison": ">",
        "index.factory": "IVF4,PQ2",
        "segment_score": {"pooling": "top_mean", "top_k": 2},
        "fused_weight": 0.25,
        "baseline": "yes",
    }
    config = load_settings(EvaluationConfig, None, set_words(settings))
    assert (config.split, config.validation_split, config.recall_ks) == ("null", None, (1, 7))
    assert (config.moments.iou_comparison, config.index.factory) == (">", "IVF4,PQ2")
    assert (config.segment_score.pooling, config.segment_score.top_k) == ("top_mean", 2)
    assert (config.fused_weight, config.baseline) == (0.25, "yes")


@pytest.mark.parametrize(
    ("exit_code", "said", "reason"),
    [
        (2, "noise\nError: two\n  lines\n", "two\n  lines"),
        (1, "Traceback\n  ...\nZeroDivisionError: by zero\n\n", "ZeroDivisionError: by zero"),
        (3, "", "exit code 3"),
        (-signal.SIGKILL, "half a", "ended by SIGKILL (out of memory?)"),
    ],
)
def test_the_reason_is_the_last_word_of_the_command(exit_code: int, said: str, reason: str) -> None:
    outcome = CommandResult(exit_code=exit_code, summary=None, said=said, seconds=1.0)
    assert outcome.reason == reason


def test_the_members_of_a_sweep_that_failed_are_read_from_what_it_said() -> None:
    said = (
        "a warning: x: failed: no\n1 of 3: a-seed0: mean 3.0 %, 1.2 s\n"
        "2 of 3: b-seed0: failed: one\n  and two\n3 of 3: c=1.5-seed0: failed: E: x\n"
    )
    assert failed_members(said) == {"b-seed0": "one\n  and two", "c=1.5-seed0": "E: x"}


def program(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "mlalign-extract"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(bench_commands, "program_path", lambda name: folder / name)


def test_a_command_leaves_all_that_it_said_in_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = 'echo "in $PWD" >&2; echo not this; echo \'{"clips": {}}\'; exit 3'
    program(tmp_path, script, monkeypatch)
    log = tmp_path / "steps" / "x.log"
    for _ in range(2):
        done = run_command(["mlalign-extract", "a b"], folder=tmp_path, log=log)
        assert (done.exit_code, done.summary, done.said) == (3, {"clips": {}}, f"in {tmp_path}\n")
    said = re.sub(r"\d+\.\d s", "? s", log.read_text())
    once = f"$ mlalign-extract 'a b'\nin {tmp_path}\nnot this\n{{\"clips\": {{}}}}\n"
    assert said == 2 * f"{once}exit code 3, ? s\n\n"


def test_a_command_that_is_killed_is_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "kill -9 $$", monkeypatch)
    done = run_command(["mlalign-extract"], folder=tmp_path, log=tmp_path / "log")
    assert done.exit_code == -9 and done.reason == "ended by SIGKILL (out of memory?)"


def shown_plans() -> list[str]:
    """The plans that the documentation shows."""
    text = (Path(__file__).parents[3] / "docs" / "benchmarking.md").read_text(encoding="utf-8")
    return re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)


@pytest.mark.slow
def test_the_plan_that_is_explained_has_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(shown_plans()[1])
    bench_checks.check_plan(load_plan(path))


@pytest.mark.slow
def test_a_killed_benchmark_is_finished_by_the_same_command(
    tmp_path: Path,
) -> None:
    """The plan of the documentation, by the real commands, and a dataset that is not there."""
    plan = yaml.safe_load(shown_plans()[0])
    plan["datasets"].append({"name": "gone", "manifest": "gone.csv", "videos": "gone"})
    path, out = tmp_path / "plan.yaml", tmp_path / "bench"
    path.write_text(yaml.safe_dump(plan))
    code = "from mlalign.evaluate.cli import program; program()"
    command = [sys.executable, "-P", "-c", code, "bench", str(path), "-o", str(out)]
    said = ""
    for sign in ("shapes/tiny/cache/cache.json", "shapes/tiny/runs/*/metrics.jsonl"):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        while not list(out.glob(sign)):
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        said += process.communicate()[1]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1, "the dataset that is gone failed"
    assert said.count("$ mlalign-manifest scenes") == 1, "what was done is not done again"
    assert "shapes/tiny/cache: done before" in done.stderr
    assert "failed (tiny: zero-shot, both, global): the folder of" in done.stdout
    whole = tmp_path / "whole"
    assert subprocess.run([*command[:-1], str(whole)], capture_output=True).returncode == 1
    metrics = [
        {row["name"]: row["scores"] for row in json.loads(path.read_text())["rows"]}
        for path in (folder / "shapes/tiny/report/results.json" for folder in (out, whole))
    ]
    assert metrics[0] == metrics[1], "as if it had never been killed"
    again = subprocess.run(command, capture_output=True, text=True)
    assert "$ mlalign-align" not in again.stderr and "$ mlalign-evaluate" not in again.stderr
