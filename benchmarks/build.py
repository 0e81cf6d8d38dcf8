"""How long `mlalign-manifest build` takes at MSR-VTT's size, and how much memory.

python benchmarks/build.py --out DIR

Writes official files of 10,000 clips and 200,000 captions (words drawn at random, sentences as
long as MSR-VTT's are, about 43 characters), builds msrvtt-full of them three times, each time in a
process of its own, and prints the median of its seconds and its peak memory beside the size of
the file.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

SPLITS = (("train", 6513), ("validate", 497), ("test", 2990))
CAPTIONS = 20
RUNS = 3


def write_files(folder: Path) -> Path:
    """MSRVTT_data.json with the official fields, indented as the official file is not."""
    rng = np.random.default_rng(0)
    words = [
        "".join(rng.choice(list("abcdefghijklmnopqrst"), size=n)) for n in rng.integers(2, 8, 5000)
    ]
    splits = [name for name, count in SPLITS for _ in range(count)]
    videos = [
        {
            "video_id": f"video{n}",
            "url": f"https://www.youtube.com/watch?v={n:011d}",
            "category": int(rng.integers(20)),
            "start time": float(n % 100),
            "end time": float(n % 100 + 15),
            "split": split,
            "id": n,
        }
        for n, split in enumerate(splits)
    ]
    drawn = rng.choice(words, size=(len(videos) * CAPTIONS, 8))
    sentences = [
        {"caption": " ".join(row), "video_id": f"video{number // CAPTIONS}", "sen_id": number}
        for number, row in enumerate(drawn)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "MSRVTT_data.json"
    path.write_text(json.dumps({"videos": videos, "sentences": sentences}), encoding="utf-8")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="New or empty folder.")
    out = parser.parse_args().out
    path = write_files(out / "annotations")
    seconds = []
    for turn in range(RUNS):
        command = ["mlalign-manifest", "build", "msrvtt-full", "--annotations", str(path.parent)]
        start = time.perf_counter()
        done = subprocess.run(
            [*command, "-o", str(out / f"manifest-{turn}")],
            check=True,
            capture_output=True,
            text=True,
        )
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    size = path.stat().st_size / 2**20
    lines = [
        done.stdout.strip(),
        f"200,000 captions of 10,000 clips, a file of {size:.0f} MiB: "
        f"{statistics.median(seconds):.1f} s (median of {RUNS}: "
        f"{', '.join(f'{value:.1f}' for value in seconds)}), peak {peak:.0f} MiB",
    ]
    text = "\n".join(lines) + "\n"
    sys.stdout.write(text)
    (out / "build.txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
