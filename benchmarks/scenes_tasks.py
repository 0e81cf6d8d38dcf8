"""What the levels bring to the tasks, on procedural scenes: moments, and both kinds of questions.

    python benchmarks/scenes_tasks.py --out DIR

Uses the scenes and the cache of benchmarks/scenes_ablation.py in DIR when they are there (make demo
leaves them in demo/), and makes them otherwise. Segments are eighths of each clip, cut without a
look at the true spans, or with --segments spans the true ones. Four rows, each with all tasks that
can be trained: no level (the tasks alone), the global level, the segment level, both; several
seeds. Steps whose result is there are not done again.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

import yaml

LEVELS = {"tasks": (0, 0), "global": (1, 0), "segment": (0, 1), "both": (1, 1)}
"""Weights of the global and the segment level."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="Folder for all that is made.")
    parser.add_argument("--clips", type=int, default=2500, help="default: 2500")
    parser.add_argument("--seeds", type=int, default=5, help="runs per row; default: 5")
    parser.add_argument("--segments", default="uniform:8", help="default: uniform:8")
    options = parser.parse_args()
    out, rule = options.out, options.segments
    scenes, cache = out / "scenes", out / "cache"
    if not scenes.exists():
        step("mlalign-manifest", "scenes", "-o", scenes, "--clips", options.clips)
    step("mlalign-extract", scenes, "-o", cache, "--backbone", "tiny", "--fps", 2)
    # The ablation's own rule stays the first one.
    step("mlalign-extract", "resegment", cache, "--segments", "spans", "--segments", "uniform:8")
    base = {"data": {"segments": rule}}
    names = [f"losses.{level}_weight" for level in ("global", "segment")]
    rows = [
        {"name": name, "set": dict(zip(names, weights, strict=True))}
        for name, weights in LEVELS.items()
    ]
    sweep = {"base": base, "rows": rows, "seeds": list(range(options.seeds)), "baseline": "tasks"}
    name = f"tasks-{rule.replace(':', '-')}"
    sweep_file, runs = out / f"{name}.yaml", out / name
    sweep_file.write_text(yaml.safe_dump(sweep, sort_keys=False))
    step("mlalign-align", cache, "--sweep", sweep_file, "-o", runs)
    words = [
        word
        for level in LEVELS
        for seed in range(options.seeds)
        for word in ("--run", runs / f"{level}-seed{seed}")
    ]
    step(
        "mlalign-evaluate",
        cache,
        *words,
        *("--baseline", "tasks", "--set", f"segment_rule={rule}"),
        *("-o", out / f"{name}-report"),
    )


def step(*command: object) -> None:
    """Show a command and run it."""
    words = [str(word) for word in command]
    print(f"\n$ {shlex.join(words)}", flush=True)
    if code := subprocess.run(words).returncode:
        sys.exit(code)


if __name__ == "__main__":
    main()
