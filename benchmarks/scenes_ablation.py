"""The multi-level ablation on procedural scenes, as the commands a user would type.

Makes videos, extracts features with the tiny backbone, trains heads on the global level (made from
parts, and pooled), on the segment level and on both, several seeds each, and prints the table.
Steps whose result is there are not done again.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import yaml

NO_TASKS = {"choice_weight": 0, "answer_weight": 0, "moment_weight": 0}
"""The scenes have questions, too; this table is about the levels (scenes_tasks.py: the tasks)."""
LEVELS = {
    "global-pooled": {"losses.segment_weight": 0, "levels.global_from": "pooled"},
    "global": {"losses.segment_weight": 0},
    "segment": {"losses.global_weight": 0},
    "both": {},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for everything that is made"
    )
    parser.add_argument("--clips", type=int, default=2500, help="default: 2500")
    parser.add_argument("--seeds", type=int, default=5, help="runs per row; default: 5")
    options = parser.parse_args()
    began = time.monotonic()
    out: Path = options.out

    scenes, cache = out / "scenes", out / "cache"
    step(scenes, "mlalign-manifest", "scenes", "-o", scenes, "--clips", options.clips)
    # Extraction knows by itself what is missing, so it is always called.
    step(None, "mlalign-extract", scenes, "-o", cache, "--backbone", "tiny", "--fps", 2)
    runs = train(cache, out / "levels.yaml", out / "runs", LEVELS, seeds=options.seeds)
    report = out / "report"
    step(None, "mlalign-evaluate", cache, *runs, "--baseline", "both", "-o", report)
    print(
        f"\nDone in {time.monotonic() - began:.0f} s. Every command above works on your own videos."
    )


def train(
    cache: Path,
    sweep: Path,
    out: Path,
    rows: Mapping[str, Mapping[str, object]],
    *,
    seeds: int,
    epochs: int | None = None,
) -> list[str | Path]:
    """Train the rows as a sweep without tasks; the options that name its runs."""
    base: dict[str, object] = {"tasks": NO_TASKS}
    if epochs is not None:
        base["optimiser"] = {"epochs": epochs}
    content = {
        "base": base,
        "rows": [{"name": name, "set": dict(settings)} for name, settings in rows.items()],
        "seeds": list(range(seeds)),
        "baseline": "both",
    }
    sweep.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    step(None, "mlalign-align", cache, "--sweep", sweep, "-o", out)
    names = [f"{name}-seed{seed}" for name in rows for seed in range(seeds)]
    return [word for name in names for word in ("--run", out / name)]


def step(result: Path | None, *command: object) -> None:
    """Show a command, and run it unless its result is there."""
    words = [str(word) for word in command]
    done = result is not None and result.exists()
    print(f"\n$ {shlex.join(words)}{'   # done before' if done else ''}", flush=True)
    if not done and (code := subprocess.run(words).returncode):
        sys.exit(code)


if __name__ == "__main__":
    main()
