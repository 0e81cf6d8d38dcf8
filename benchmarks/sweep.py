"""A sweep of 16 runs against the same runs in turn, and how often its features are in memory.

    python benchmarks/sweep.py                   # less than three minutes on two cores
    python benchmarks/sweep.py --device cuda     # on a GPU the sweep has one process

Features are random: clips of 12 segments, a caption for each clip and a sentence for each segment,
512 wide. In turn each run has all cores: once as 16 commands, which each start Python and read the
cache, and once in a single process that reads it once and has started already, which is the
stricter measure.

While the sweep works, the proportional set sizes (PSS) of all its processes are added up: a page
that n processes map counts as an n-th in each, so that the sum has it once.

Threads that wait for each other are far slower where somebody else wants a core (a step took 60 ms
with one thread and 375 to 495 ms with two, beside a busy process), so the CPU time of all other
processes stands beside each figure: above a few percent of the wall time, measure again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
import yaml

from mlalign.align.data.memory import read_splits
from mlalign.align.sweep.config import Member, load_sweep
from mlalign.align.trainer import train_run_on
from mlalign.data_manifests.core.cores import num_cores
from mlalign.extract.cache.store import FeatureStore
from mlalign.extract.cache.writer import commit_shard, open_for_writing

WIDTH, SEGMENTS = 512, 12
SEEDS = 4
RATES = (3e-4, 5e-4, 1e-3, 2e-3)
MIB = 1 << 20
RESULTS = Path(__file__).parent / "results"
PROGRAM = "from mlalign.align.cli import program; program()"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=1000, help="Of the training split.")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        print("torch sees no GPU here: nothing was measured")
        return
    with tempfile.TemporaryDirectory() as folder:
        lines = measured(Path(folder), given.clips, given.epochs, device=given.device)
    lines.insert(0, " ".join(["# python benchmarks/sweep.py", *sys.argv[1:]]))
    print("\n".join(lines))
    name = "sweep" if given.device == "cpu" else f"sweep-{given.device}"
    (RESULTS / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def measured(out: Path, clips: int, epochs: int, *, device: str) -> list[str]:
    """Lines of figures."""
    cache = make_cache(out / "cache", {"train": clips, "val": clips // 4})
    file = out / "sweep.yaml"
    file.write_text(yaml.safe_dump(sweep_settings(epochs, device)))
    _, members = load_sweep(file)
    memory, beside = Memory(), OtherProcesses()
    arguments = [str(cache), "--sweep", str(file), "-o", str(out / "sweep")]
    sweep = seconds_of(arguments, memory)
    how = "side-by-side" if device == "cpu" else "one process"
    figures = [(f"as a sweep, {how}", sweep, sweep, beside.said())]
    commands = sum(
        seconds_of([str(cache), "--config", str(config), "-o", str(out / "commands" / name)])
        for name, config in configs_of(members, out / "sweep")
    )
    figures.append(("in turn, a command each", commands, sweep, beside.said()))
    if device == "cuda":
        in_one_process(cache, members[:1], out / "warm")  # loads the kernels
    beside.said()
    process = in_one_process(cache, members, out / "process")
    figures.append(("in turn, in one process", process, sweep, beside.said()))
    cores = num_cores()
    where = torch.cuda.get_device_name() if device == "cuda" else f"{cores} cores"
    return [
        f"{len(members)} runs of {epochs} epochs, {clips:,} clips of {SEGMENTS} segments of "
        f"width {WIDTH}; {where}, torch {torch.__version__}",
        *(
            f"{name + ':':<30} {seconds:7.1f} s   {others}"
            + (f"   {seconds / fast:.2f} times as long as {fast:.1f} s" if seconds != fast else "")
            for name, seconds, fast, others in figures
        ),
        f"features: a file of {memory.file_bytes / MIB:.0f} MiB, mapped by {memory.mapped_by} "
        f"processes at once; in memory, all processes together (PSS): "
        f"{memory.features / MIB:.0f} MiB",
        f"all memory of the sweep's processes (PSS), at most: {memory.total / MIB:.0f} MiB",
    ]


def make_cache(path: Path, num_clips: dict[str, int]) -> Path:
    """A cache of random features, a shard for each split."""
    rng = np.random.default_rng(0)
    open_for_writing(
        path,
        settings={"backbone": "random", "width": WIDTH, "dtype": "float16"},
        layout={"segments": ["uniform:12"], "keep_frames": False, "keep_tokens": False},
        record={},
    )
    for split, count in num_clips.items():
        ids = [f"{split}{i:06d}" for i in range(count)]
        clips = [clip_row(name, row, split) for row, name in enumerate(ids)]
        spans = [
            (name, i, row * SEGMENTS + i) for row, name in enumerate(ids) for i in range(SEGMENTS)
        ]
        segments = [
            {"clip_id": name, "rule": "uniform:12", "segment_index": i, "start_seconds": float(i)}
            | {"end_seconds": i + 1.0, "num_frames": 1, "row": row}
            for name, i, row in spans
        ]
        texts = [text_row(name, row, split, None) for row, name in enumerate(ids)]
        texts += [text_row(name, count + row, split, i) for name, i, row in spans]
        arrays = {
            "clips/features": features(rng, count),
            "segments/features": features(rng, len(segments)),
            "frames/seconds": np.zeros(count),
        }
        tables = {"clips": clips, "segments": segments}
        commit_shard(path, "clips", f"clips-{split}", arrays=arrays, tables=tables)
        text_arrays = {"texts/features": features(rng, len(texts))}
        commit_shard(path, "texts", f"texts-{split}", arrays=text_arrays, tables={"texts": texts})
    return path


def features(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.normal(size=(count, WIDTH)).astype(np.float16)


def clip_row(clip_id: str, row: int, split: str) -> dict[str, object]:
    return {
        "clip_id": clip_id,
        "video_path": f"{clip_id}.mp4",
        "split": split,
        "status": "ok",
        "num_frames": 1,
        "num_segments": SEGMENTS,
        "duration_seconds": float(SEGMENTS),
        "item_digest": clip_id,
        "generation": 0,
        "row": row,
    }


def text_row(clip_id: str, row: int, split: str, segment: int | None) -> dict[str, object]:
    return {
        "text_id": f"{clip_id}-{segment}",
        "clip_id": clip_id,
        "kind": "caption",
        "text": f"words {row} of {split}",
        "start_seconds": None if segment is None else float(segment),
        "end_seconds": None if segment is None else segment + 1.0,
        "split": split,
        "item_digest": "d",
        "generation": 0,
        "row": row,
    }


def sweep_settings(epochs: int, device: str) -> dict[str, object]:
    return {
        "base": {
            "device": device,
            "optimiser": {"epochs": epochs},
            "validation": {"patience_epochs": None},
        },
        "grid": {"optimiser.learning_rate": list(RATES)},
        "seeds": list(range(SEEDS)),
    }


def configs_of(members: list[Member], sweep: Path) -> list[tuple[str, Path]]:
    """Name and settings of each run, as the sweep has written them."""
    return [(member.folder, sweep / member.folder / "config.yaml") for member in members]


def in_one_process(cache: Path, members: list[Member], out: Path) -> float:
    """Seconds of the runs one after the other, with reading the cache once."""
    began = time.perf_counter()
    train, validation = read_splits(FeatureStore.open(cache), members[0].config.data)
    for member in members:
        train_run_on(
            out / member.folder, member.config, train=train, validation=validation, quiet=True
        )
    return time.perf_counter() - began


class OtherProcesses:
    """CPU time that all processes take, but for this one and its children."""

    def __init__(self) -> None:
        self._seconds = self._taken()

    def said(self) -> str:
        """Since this was said before."""
        before, self._seconds = self._seconds, self._taken()
        return f"others {self._seconds - before:5.1f} CPU s"

    def _taken(self) -> float:
        user, nice, system, _, _, irq, softirq, *_ = map(
            int, Path("/proc/stat").read_text().splitlines()[0].split()[1:]
        )
        own = os.times()
        return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK") - sum(own[:4])


class Memory:
    """The most that a process and its children have in memory, by PSS."""

    def __init__(self) -> None:
        self.total = self.features = self.file_bytes = self.mapped_by = 0

    def watch(self, pid: int, is_over: threading.Event) -> None:
        while not is_over.wait(0.5):
            self._look([pid, *children(pid)])

    def _look(self, pids: list[int]) -> None:
        total = features = mapped_by = 0
        for pid in pids:
            try:
                maps = Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue  # it has ended
            is_features, is_mapped = False, False
            for line in maps.splitlines():
                word = line.split(maxsplit=1)[0]
                if "-" in word:  # the first line of a mapping
                    is_features = "/.features/" in line
                    if is_features:
                        is_mapped = True
                        self.file_bytes = max(self.file_bytes, file_size(line))
                elif word == "Pss:":
                    own = int(line.split()[1]) * 1024
                    total += own
                    features += own if is_features else 0
            mapped_by += is_mapped
        self.total, self.features = max(self.total, total), max(self.features, features)
        self.mapped_by = max(self.mapped_by, mapped_by)


def file_size(mapping: str) -> int:
    """Bytes of the file whose whole a line of smaps maps."""
    start, end = mapping.split(maxsplit=1)[0].split("-")
    return int(end, 16) - int(start, 16)


def children(pid: int) -> list[int]:
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [int(child) for child in listed] + [g for c in listed for g in children(int(c))]


def seconds_of(arguments: list[str], memory: Memory | None = None) -> float:
    """Wall time of `mlalign-align` with these arguments."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", PROGRAM, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    is_over = threading.Event()
    if memory is not None:
        watcher = threading.Thread(target=memory.watch, args=(process.pid, is_over))
        watcher.start()
    code = process.wait()
    seconds = time.perf_counter() - began
    is_over.set()
    if code != 0:
        raise SystemExit(f"mlalign-align {' '.join(arguments)} ended with {code}")
    return seconds


if __name__ == "__main__":
    main()
