"""Stands for the commands of all stages in tests: it leaves what they leave, at once.

What it does is steered by names: a path with "broken" in it fails; a cache that was made with
other --set flags is refused.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from mlalign.evaluate.bench.commands import CommandResult
from mlalign.extract.cache.contract import FORMAT, cache_key

TASKS = (("text_to_clip", "R@1"), ("sentence_to_clip", "R@1"), ("moments", "R@1 IoU 0.5"))
"""With their main metric, the only one."""


class Refused(Exception):
    """A command that ends with exit code 2."""


class Stub:
    """In the place of `run_command`; `calls` is what it was called with."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __call__(self, words: Sequence[str], *, folder: Path, log: Path) -> CommandResult:
        said, printed, code = io.StringIO(), io.StringIO(), 0
        if "--check" not in words:
            self.calls.append(" ".join(words))
            with (
                contextlib.redirect_stderr(said),
                contextlib.redirect_stdout(printed),
                contextlib.chdir(folder),
            ):
                try:
                    _run(list(words))
                except Refused as error:
                    said.write(f"a line before\nError: {error}\n")
                    code = 2
        summary = json.loads(printed.getvalue()) if printed.getvalue() else None
        return CommandResult(exit_code=code, summary=summary, said=said.getvalue(), seconds=0.0)


def _run(words: list[str]) -> None:
    if any("broken" in word for word in words):
        raise Refused("no video of it\n  anywhere")
    out = Path(words[words.index("-o") + 1])
    out.mkdir(parents=True, exist_ok=True)
    command = {
        "mlalign-manifest": manifest,
        "mlalign-extract": extract,
        "mlalign-align": align,
        "mlalign-evaluate": evaluate,
    }
    command[words[0]](words, out)


def manifest(words: list[str], out: Path) -> None:
    (out / "dataset.yaml").write_text(f"name: {' '.join(words)}")


def extract(words: list[str], out: Path) -> None:
    settings = {"flags": [word for word in words if "fps" in word]}
    key = cache_key(settings)
    path = out / "cache.json"
    if path.exists() and json.loads(path.read_text())["key"] != key:
        raise Refused("the cache was made with other settings")
    content = {"format": FORMAT, "key": key, "settings": settings, "layout": {}}
    path.write_text(json.dumps(content))
    (out / "index").mkdir(exist_ok=True)
    videos = [word for word in words if Path(word).is_dir() and word != str(out)]
    names = sorted(file.name for folder in videos for file in Path(folder).iterdir())
    (out / "index" / "clips.parquet").write_text(" ".join(names))
    print(json.dumps({"clips": {"ok": 1, "partial": 0, "failed": 0}}))


def align(words: list[str], out: Path) -> None:
    sweep = yaml.safe_load(Path(words[words.index("--sweep") + 1]).read_text())
    members = [(row, seed) for row in sweep["rows"] for seed in sweep["seeds"]]
    for number, (row, seed) in enumerate(members, 1):
        run = out / f"{row['name']}-seed{seed}"
        if (run / "run.json").exists():
            continue
        if row["name"] == "diverges" and seed == 1:
            said = f"{number} of {len(members)}: {run.name}: failed: not finite\n  in epoch 2"
            print(said, file=sys.stderr)
            continue
        run.mkdir(exist_ok=True)
        (run / "run.json").write_text(json.dumps(row))


def evaluate(words: list[str], out: Path) -> None:
    runs = [Path(words[i + 1]).name for i, word in enumerate(words) if word == "--run"]
    rows = dict.fromkeys(["zero-shot", *(run.rpartition("-seed")[0] for run in runs)])
    number = {"value": 50.0, "low": 40.0, "high": 60.0, "per_seed": [50.0], "seed_deviation": None}
    content = {
        "split": "test",
        "segment_rule": "spans",
        "counts": {"clips": 3, "failed_clips_left_out": 0},
        "tasks": [
            {"name": name, "kind": "x", "num_queries": 5, "chance": 10.0, "main_metric": metric}
            for name, metric in TASKS
        ],
        "rows": [
            {
                "name": row,
                "normalised": None,
                "runs": [run for run in runs if run.startswith(row)] or [None],
                "scores": [
                    {
                        "task": task,
                        "subset": None,
                        "score": "fused",
                        "num_queries": 5,
                        "metrics": {metric: number},
                    }
                    for task, metric in TASKS
                ],
            }
            for row in rows
        ],
    }
    (out / "results.json").write_text(json.dumps(content))
