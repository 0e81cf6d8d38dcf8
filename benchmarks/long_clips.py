"""Peak memory of an extraction: ten minutes against three hours, 360p against 8K.

The clips are sampled once a second, as by default, and at every frame (5 a second), which gives
54,000 frame features of three hours. Prints the peak resident memory of the main process and of the
largest decoding process.

    python benchmarks/long_clips.py --out DIR
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import ffmpeg

from mlalign.data_manifests.core.ffmpeg_program import ffmpeg_program
from mlalign.extract.cache.store import FeatureStore

FPS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A video to extract."""

    name: str
    seconds: int
    width: int
    height: int


CASES = (
    Case(name="10 min, 640x360", seconds=600, width=640, height=360),
    Case(name="1 h, 640x360", seconds=3600, width=640, height=360),
    Case(name="3 h, 640x360", seconds=10800, width=640, height=360),
    Case(name="8 s, 1920x1080", seconds=8, width=1920, height=1080),
    Case(name="8 s, 7680x4320", seconds=8, width=7680, height=4320),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for videos and caches")
    parser.add_argument("--backbone", nargs="*", default=["--backbone", "tiny"])
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    print(
        f"{'clip':18}{'sampling':14}{'frames':>8}{'main MiB':>10}{'decoder MiB':>13}{'seconds':>9}"
    )
    for case, sampling in itertools.product(CASES, (["--fps", "1"], ["--every-frame"])):
        video = make_video(case, given.out)
        cache = given.out / "cache"
        shutil.rmtree(cache, ignore_errors=True)
        start = time.perf_counter()
        main_mib, decoder_mib = peaks(
            ["mlalign-extract", video, "-o", cache, *given.backbone, *sampling]
            + ["--segments", "fixed:4", "--workers", "1"]
        )
        seconds = time.perf_counter() - start
        frames = FeatureStore.open(cache).clips["num_frames"][0].as_py()
        name = f"{case.name:18}{' '.join(sampling):14}"
        print(f"{name}{frames:8,}{main_mib:10.0f}{decoder_mib:13.0f}{seconds:9.1f}", flush=True)


def make_video(case: Case, out: Path) -> Path:
    path = out / f"{case.width}x{case.height}-{case.seconds}s.mp4"
    if not path.exists():
        size = f"{case.width}x{case.height}"
        source = ffmpeg.input(f"testsrc2=s={size}:r={FPS}", f="lavfi", t=case.seconds)
        encoded = source.output(str(path), vcodec="libx264", preset="ultrafast", pix_fmt="yuv420p")
        encoded.run(cmd=ffmpeg_program(), quiet=True)
    return path


def peaks(command: list[object]) -> tuple[float, float]:
    """Peak MiB of a command's own process and of its largest child, as Linux counts them."""
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL)
    own, largest = 0.0, 0.0
    while process.poll() is None:
        own = max(own, peak_mib(process.pid))
        largest = max([largest, *map(peak_mib, children(process.pid))])
        time.sleep(0.05)
    assert process.returncode == 0, f"exit code {process.returncode}"
    return own, largest


def children(pid: int) -> list[int]:
    try:
        tasks = Path(f"/proc/{pid}/task").glob("*/children")
        return [int(child) for task in tasks for child in task.read_text().split()]
    except OSError:
        return []


def peak_mib(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


if __name__ == "__main__":
    main()
