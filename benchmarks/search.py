"""Seconds that a text takes in a library of 100,000 segments, and what loading it takes.

The cache has random features of clips with twelve segments each, written by the real writer, with
the tiny backbone's settings, so that its text tower encodes the texts. Timed: opening it, the first
text, texts one at a time, many at once, and the whole command with a text, as JSON and as a page.

    python benchmarks/search.py                      # about a minute
    python benchmarks/search.py --segments 1000000
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mlalign.evaluate.config import EvaluationConfig, IndexConfig
from mlalign.evaluate.search.search import Library
from mlalign.extract.cache.contract import read_settings
from mlalign.extract.cache.writer import commit_shard, open_for_writing

SEGMENTS_PER_CLIP = 12
SHARD_CLIPS = 64
SINGLE, MANY = 50, 1000
COLOURS = ("red", "blue", "green", "white", "purple", "orange", "cyan", "yellow")
SHAPES = ("circle", "square", "ring", "cross", "triangle", "diamond")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--segments", type=int, default=100_000)
    parser.add_argument("--index", default="Flat", help="FAISS factory string [default: Flat]")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cache = synthetic_cache(Path(folder), num_clips=given.segments // SEGMENTS_PER_CLIP)
        print(f"{given.segments:,} segments, {torch.get_num_threads()} threads, {given.index}")
        time_library(cache, given.index)
        time_commands(cache, given.index)


def time_library(cache: Path, factory: str) -> None:
    config = EvaluationConfig(split=None, bootstrap_samples=1, index=IndexConfig(factory=factory))
    start = time.perf_counter()
    library = Library.open(cache, run_path=None, config=config)
    say("open the library", time.perf_counter() - start)
    texts = some_texts(SINGLE + 1)
    seconds = []
    for text in texts:
        start = time.perf_counter()
        library.search([text], top=10)
        seconds.append(time.perf_counter() - start)
    say("the first text", seconds[0])
    say("a text, median", float(np.median(seconds[1:])))
    say("a text, slowest", max(seconds[1:]))
    start = time.perf_counter()
    library.search(some_texts(MANY), top=10)
    say(f"{MANY} texts at once", time.perf_counter() - start)


def time_commands(cache: Path, factory: str) -> None:
    program = Path(sys.executable).with_name("mlalign-search")
    page = cache.parent / "hits.html"
    flags: Sequence[str] = ["--set", f"index.factory={factory}", "--json"]
    lines = "\n".join(some_texts(MANY))
    for what, words, given in (
        ("command, a text", ["a red circle"], ""),
        ("command, a page", ["a red circle", "--html", page], ""),
        (f"command, {MANY} lines", [], lines),
    ):
        start = time.perf_counter()
        done = subprocess.run(
            [program, cache, *words, *flags], input=given, text=True, capture_output=True
        )
        assert done.returncode == 0, done.stderr
        say(what, time.perf_counter() - start)


def synthetic_cache(folder: Path, *, num_clips: int) -> Path:
    """A cache as the tiny backbone makes it, of random features; `val` chooses no weight."""
    scenes, small, cache = folder / "scenes", folder / "small", folder / "cache"
    run("mlalign-manifest", "scenes", "-o", scenes, "--clips", 3)
    run("mlalign-extract", scenes, "-o", small, "--backbone", "tiny", "--fps", 1)
    made = read_settings(small)
    record = {name: made[name] for name in made if name not in ("format", "key")}
    settings, layout = record.pop("settings"), record.pop("layout")
    layout["segments"] = [f"uniform:{SEGMENTS_PER_CLIP}"]
    open_for_writing(cache, settings=settings, layout=layout, record=record)
    rng = np.random.default_rng(0)
    for start in range(0, num_clips, SHARD_CLIPS):
        commit_clips(cache, range(start, min(start + SHARD_CLIPS, num_clips)), rng, settings)
    return cache


def commit_clips(
    cache: Path, numbers: range, rng: np.random.Generator, settings: dict[str, object]
) -> None:
    width, rule = int(str(settings["width"])), f"uniform:{SEGMENTS_PER_CLIP}"
    names = [f"clip-{number:07}" for number in numbers]
    clips = [
        {
            "clip_id": name,
            "video_path": f"{name}.mp4",
            "split": "test",
            "status": "ok",
            "num_frames": 0,
            "num_segments": SEGMENTS_PER_CLIP,
            "duration_seconds": float(SEGMENTS_PER_CLIP),
            "item_digest": name,
            "generation": 0,
            "row": row,
        }
        for row, name in enumerate(names)
    ]
    segments = [
        {
            "clip_id": name,
            "rule": rule,
            "segment_index": index,
            "start_seconds": float(index),
            "end_seconds": float(index + 1),
            "num_frames": 1,
            "row": row * SEGMENTS_PER_CLIP + index,
        }
        for row, name in enumerate(names)
        for index in range(SEGMENTS_PER_CLIP)
    ]
    arrays = {
        "clips/features": random_rows(rng, len(names), width),
        "segments/features": random_rows(rng, len(segments), width),
        "frames/seconds": np.zeros(0),
        "frames/sample_seconds": np.zeros(0),
    }
    tables = {"clips": clips, "segments": segments}
    commit_shard(cache, "clips", f"clips-{numbers.start:07}", arrays=arrays, tables=tables)


def random_rows(rng: np.random.Generator, rows: int, width: int) -> np.ndarray:
    return rng.standard_normal((rows, width), dtype=np.float32).astype(np.float16)


def some_texts(number: int) -> list[str]:
    rng = np.random.default_rng(1)
    pairs = [(rng.choice(COLOURS), rng.choice(SHAPES)) for _ in range(number)]
    return [f"a {colour} {shape} moves, number {i}" for i, (colour, shape) in enumerate(pairs)]


def run(*words: object) -> None:
    program = Path(sys.executable).with_name(str(words[0]))
    subprocess.run([program, *map(str, words[1:])], check=True, capture_output=True)


def say(what: str, seconds: float) -> None:
    print(f"{what:24}{seconds:9.3f} s", flush=True)


if __name__ == "__main__":
    main()
