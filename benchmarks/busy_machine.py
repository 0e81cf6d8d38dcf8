"""One training, quiet and beside two busy loops, by how long PyTorch's threads wait busily.

    make demo && python benchmarks/busy_machine.py demo/cache

Run it on a quiet machine. It prints medians of several rounds, all variants in turn within a round.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

VARIANTS = {
    "PyTorch's default": {"GOMP_SPINCOUNT": "300000"},  # libgomp's own, where nothing is set
    "as installed": {},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
NUM_LOOPS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("cache", type=Path, help="that of make demo")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    seconds: dict[tuple[str, bool], list[float]] = {}
    for _ in range(options.rounds):
        for name, environment in VARIANTS.items():
            for is_busy in (False, True):
                with busy_loops() if is_busy else contextlib.nullcontext():
                    took = train(options.cache, environment)
                seconds.setdefault((name, is_busy), []).append(took)
    print(f"seconds of one training, median of {options.rounds}; {os.cpu_count()} cores")
    print(f"{'':20} {'quiet':>8} {'beside two busy loops':>23} {'ratio':>8}")
    for name in VARIANTS:
        quiet, busy = (statistics.median(seconds[name, is_busy]) for is_busy in (False, True))
        print(f"{name:20} {quiet:8.1f} {busy:23.1f} {busy / quiet:8.2f}")


def train(cache: Path, environment: dict[str, str]) -> float:
    """Seconds of a training with the default settings, start-up included."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["mlalign-align", str(cache), "-o", f"{folder}/run"]
        began = time.monotonic()
        subprocess.run(
            command,
            check=True,
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return time.monotonic() - began


@contextlib.contextmanager
def busy_loops() -> Iterator[None]:
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(NUM_LOOPS)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


if __name__ == "__main__":
    main()
