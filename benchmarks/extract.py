"""How fast extraction is: against a peer, and against what the machine allows.

Makes 12 clips of 20 s (640x360, 25 fps, H.264, a key frame every 10 s) and a ViT-B-32 checkpoint of
random weights, and times whole commands, each several times, in turn:

- mlalign-extract at 1 fps
- clip-video-encode, when --peer names its program (its own environment, see PEER below)

What the machine allows: the CPU seconds of the bare tower on random pictures and of bare decoding
(PyAV, one thread, every frame, no preprocessing), added, over the cores.

    python benchmarks/extract.py --out /tmp/bench --peer /tmp/cve/bin/clip-video-encode
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from mlalign.data_manifests.core.cores import num_cores

NUM_CLIPS, CLIP_SECONDS = 12, 20
SOURCES = (
    "testsrc2=size=640x360:rate=25",
    "mandelbrot=size=640x360:rate=25",
    "life=size=640x360:rate=25:mold=10:ratio=0.1:death_color=#C83232:life_color=#00ff00",
)
PEER = (
    "--take_every_nth=25 --frame_workers=2 --frame_memory_size=2 "
    "--oc_model_name=ViT-B-32 --pretrained=''"
)


@dataclass(frozen=True)
class Timing:
    """One finished command."""

    wall_seconds: float
    cpu_seconds: float
    peak_mib: float
    """Of its largest process."""


@dataclass(frozen=True)
class Tool:
    """What was measured of one extractor, runs in the order they were made."""

    name: str
    runs: list[Timing]
    """On all clips."""
    start_ups: list[Timing]
    """On one frame."""

    def apart_seconds(self) -> list[float]:
        """Wall seconds of each run without its start-up."""
        pairs = zip(self.runs, self.start_ups, strict=True)
        return [run.wall_seconds - start.wall_seconds for run, start in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for clips and caches")
    parser.add_argument("--peer", type=Path, help="the program clip-video-encode")
    parser.add_argument("--runs", type=int, default=3, help="of each command; default: 3")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    clips, one = make_clips(options.out)
    weights = make_weights(options.out)
    extra = [word for value in options.overrides for word in ("--set", value)]
    ours, our_start_ups, peers, peer_start_ups = [], [], [], []
    for _ in range(options.runs):
        ours.append(extract(clips, options.out, weights, extra))
        our_start_ups.append(extract(one, options.out, weights, extra))
        if options.peer:
            peers.append(encode_with_peer(options.peer, clips, options.out))
            peer_start_ups.append(encode_with_peer(options.peer, one, options.out))
    report(
        Tool("mlalign-extract", ours, our_start_ups),
        Tool("clip-video-encode", peers, peer_start_ups) if peers else None,
        tower=tower_seconds(weights),
        decode=decode_seconds(clips),
    )


def make_clips(out: Path) -> tuple[Path, Path]:
    """The folder of clips, and a folder of one clip that is shorter than a second."""
    import ffmpeg

    from mlalign.data_manifests.core.ffmpeg_program import ffmpeg_program

    clips, one = out / "clips", out / "one"
    for folder, number, seconds in ((clips, NUM_CLIPS, CLIP_SECONDS), (one, 1, 0.5)):
        folder.mkdir(exist_ok=True)
        for index in range(number):
            path = folder / f"clip{index:02d}.mp4"
            if not path.exists():
                source = ffmpeg.input(SOURCES[index % len(SOURCES)], f="lavfi", t=seconds)
                encoded = source.output(
                    str(path), vcodec="libx264", preset="medium", g=250, pix_fmt="yuv420p"
                )
                encoded.run(cmd=ffmpeg_program(), quiet=True)
    return clips, one


def make_weights(out: Path) -> Path:
    path = out / "vit-b-32.pt"
    if not path.exists():
        import open_clip
        import torch

        torch.manual_seed(0)
        torch.save(open_clip.create_model("ViT-B-32").state_dict(), path)
    return path


def extract(videos: Path, out: Path, weights: Path, extra: list[str]) -> Timing:
    cache = out / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    command = ["mlalign-extract", videos, "-o", cache, "--backbone", "ViT-B-32"]
    return timed([*command, "--pretrained", weights, *extra])


def encode_with_peer(program: Path, videos: Path, out: Path) -> Timing:
    target = out / "peer"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    listed = out / "clips.txt"
    listed.write_text("".join(f"{path.resolve()}\n" for path in sorted(videos.iterdir())))
    done = timed([program, listed, f"--dest={target}", *PEER.split()])
    expected = len(list(videos.iterdir()))
    assert len(list(target.glob("*.npy"))) == expected, "the peer has not encoded every clip"
    return done


def timed(command: list[object]) -> Timing:
    began = time.monotonic()
    process = subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command[0]} failed: {errors.decode()[-2000:]}")
    return Timing(
        wall_seconds=time.monotonic() - began,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_mib=usage.ru_maxrss / 1024,
    )


def tower_seconds(weights: Path) -> float:
    """CPU seconds of the bare tower for the pictures of all clips."""
    import numpy as np

    from mlalign.extract.encode.backbones import load_backbone

    tower = load_backbone(
        "ViT-B-32", tag=None, checkpoint=weights, precision="auto", device="cpu", with_text=False
    )
    batch = np.random.default_rng(0).integers(0, 256, (32, 224, 224, 3), dtype=np.uint8)
    tower.encode_pictures(batch)
    rounds = 5
    began = cpu_now()
    for _ in range(rounds):
        tower.encode_pictures(batch)
    return (cpu_now() - began) / (rounds * len(batch)) * NUM_CLIPS * CLIP_SECONDS


def decode_seconds(clips: Path) -> float:
    """CPU seconds of decoding every frame of all clips, one thread each."""
    import av

    began = cpu_now()
    for path in sorted(clips.iterdir()):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            for _ in container.decode(stream):
                pass
    return cpu_now() - began


def cpu_now() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def report(ours: Tool, peer: Tool | None, *, tower: float, decode: float) -> None:
    frames, cores = NUM_CLIPS * CLIP_SECONDS, num_cores()
    print(f"{frames} frames of {NUM_CLIPS} clips, {cores} cores, medians of {len(ours.runs)} runs")
    print(
        f"{'':20}{'wall s':>8}{'CPU s':>8}{'peak MiB':>10}{'start-up s':>12}{'frames/s apart':>16}"
    )
    for tool in (ours, peer) if peer else (ours,):
        wall = median(run.wall_seconds for run in tool.runs)
        cpu = median(run.cpu_seconds for run in tool.runs)
        peak = max(run.peak_mib for run in tool.runs)
        start_up = median(run.wall_seconds for run in tool.start_ups)
        rate = frames / median(tool.apart_seconds())
        print(f"{tool.name:20}{wall:8.1f}{cpu:8.1f}{peak:10.0f}{start_up:12.1f}{rate:16.1f}")
    apart, allowed = median(ours.apart_seconds()), (tower + decode) / cores
    print(
        f"bare tower {tower:.1f} + bare decoding {decode:.1f} CPU s over {cores} cores = "
        f"{allowed:.1f} s, {frames / allowed:.1f} frames/s; reached {allowed / apart:.0%} of that"
    )
    if peer:
        pairs = list(zip(peer.runs, ours.runs, strict=True))
        whole = median(theirs.wall_seconds / own.wall_seconds for theirs, own in pairs)
        without = median(
            theirs / own
            for theirs, own in zip(peer.apart_seconds(), ours.apart_seconds(), strict=True)
        )
        print(f"faster than {peer.name}: {without:.1f} times apart, {whole:.1f} times in all")


def median(values) -> float:
    return statistics.median(values)


if __name__ == "__main__":
    main()
