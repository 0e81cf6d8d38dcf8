"""What the levels bring to the tasks, on procedural scenes: moments, and both kinds of questions.

    python benchmarks/scenes_tasks.py --out DIR

Uses the scenes and the cache of benchmarks/scenes_ablation.py in DIR when they are there (make demo
leaves them in demo/), and makes them otherwise. Segments are eighths of each clip, cut without a
look at the true spans. Five rows, each with all three tasks: no level (the tasks alone), the global
level, the segment level, both, both with the token level; five seeds. Steps whose result is there
are not done again.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

import yaml

RULE = "uniform:8"
LEVELS = {
    "tasks": (0, 0, 0),
    "global": (1, 0, 0),
    "segment": (0, 1, 0),
    "both": (1, 1, 0),
    "token": (1, 1, 1),
}
"""Weights of the global, the segment and the token level."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="Folder for all that is made.")
    parser.add_argument("--clips", type=int, default=2500, help="default: 2500")
    parser.add_argument("--seeds", type=int, default=5, help="runs per row; default: 5")
    options = parser.parse_args()
    out: Path = options.out
    scenes, cache = out / "scenes", out / "cache"
    if not scenes.exists():
        step("mlalign-manifest", "scenes", "-o", scenes, "--clips", options.clips)
    # Adds the tokens of the texts to the ablation's cache, without decoding.
    as_before = ["--backbone", "tiny", "--fps", 2]
    step("mlalign-extract", scenes, "-o", cache, *as_before, "--keep-tokens")
    # The ablation's own rule stays the first one.
    step("mlalign-extract", "resegment", cache, "--segments", "spans", "--segments", RULE)
    base = {
        "data": {"segments": RULE},
        "tasks": {"choice_weight": 1, "answer_weight": 1, "moment_weight": 1},
    }
    names = [f"losses.{level}_weight" for level in ("global", "segment", "token")]
    rows = [
        {"name": name, "set": dict(zip(names, weights, strict=True))}
        for name, weights in LEVELS.items()
    ]
    sweep = {"base": base, "rows": rows, "seeds": list(range(options.seeds)), "baseline": "tasks"}
    (out / "tasks.yaml").write_text(yaml.safe_dump(sweep, sort_keys=False))
    runs = out / "tasks"
    step("mlalign-align", cache, "--sweep", out / "tasks.yaml", "-o", runs)
    words = [
        word
        for name in LEVELS
        for seed in range(options.seeds)
        for word in ("--run", runs / f"{name}-seed{seed}")
    ]
    step(
        "mlalign-evaluate",
        cache,
        *words,
        *("--baseline", "tasks", "--set", f"segment_rule={RULE}"),
        *("-o", out / "tasks-report"),
    )


def step(*command: object) -> None:
    """Show a command and run it."""
    words = [str(word) for word in command]
    print(f"\n$ {shlex.join(words)}", flush=True)
    if code := subprocess.run(words).returncode:
        sys.exit(code)


if __name__ == "__main__":
    main()
