"""Small videos whose frames carry their number, so that a test can say which frame it got."""

import os
import shutil
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

# Several test processes share the cores: torch's threads, one per core in each, would fight.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SLOW_SECONDS = 600
"""Time limit of a slow test; pyproject.toml has that of the others."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_SECONDS))


MARKER = (True, True, False, True)
"""The top row of cells: it tells which side is up."""


def barcode(number: int, *, width: int = 96, height: int = 64) -> np.ndarray:
    """(height, width, 3) uint8: 4 x 4 cells, the marker on top and 12 bits of the number below."""
    bits = [*MARKER, *(bool(number >> bit & 1) for bit in range(12))]
    rows = np.arange(height) * 4 // height
    columns = np.arange(width) * 4 // width
    lit = np.array(bits).reshape(4, 4)[rows[:, None], columns]
    # Bright cells are orange and dark ones blue: wrong colour conversion shows, too.
    colours = np.array([(20, 30, 80), (250, 210, 170)], dtype=np.uint8)
    return colours[lit.astype(np.uint8)]


def read_barcode(picture: np.ndarray) -> int:
    """The number on an upright picture of any size; -1 when it does not stand upright."""
    height, width = picture.shape[:2]
    lit = [
        picture[
            (4 * row + 1) * height // 16 + 1 : (4 * row + 3) * height // 16,
            (4 * column + 1) * width // 16 + 1 : (4 * column + 3) * width // 16,
        ].mean()
        > 127
        for row in range(4)
        for column in range(4)
    ]
    if tuple(lit[:4]) != MARKER:
        return -1
    return sum(1 << bit for bit, is_lit in enumerate(lit[4:]) if is_lit)


def write_video(
    path: Path,
    pts: Sequence[int],
    *,
    time_base: Fraction = Fraction(1, 1000),
    last_duration: int | None = None,
    codec: str = "libx264",
    size: tuple[int, int] = (96, 64),
    b_frames: int = 0,
    keyframe_every: int = 12,
    pixel_ratio: Fraction | None = None,
    pixel_format: str = "yuv420p",
    rotation: int = 0,
    container: str | None = None,
    container_options: dict[str, str] | None = None,
    first_number: int = 0,
) -> Path:
    """A video whose frame i is barcode(first_number + i), shown from pts[i] * time_base seconds.

    rotation: counter-clockwise degrees by which players turn the stored picture (mp4 and mov).
    The picture is stored turned the other way, so that it stands upright when shown.
    """
    width, height = size
    ends = [*pts[1:], pts[-1] + (last_duration or (pts[-1] - pts[-2] if len(pts) > 1 else 1))]
    durations = {start: end - start for start, end in zip(pts, ends, strict=True)}
    options = container_options or {}
    with av.open(str(path), "w", format=container, container_options=options) as output:
        rate = max(1, round(1 / (min(durations.values()) * time_base)))
        stream = output.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        stream.time_base = stream.codec_context.time_base = time_base
        stream.codec_context.gop_size = keyframe_every
        if codec == "libx264":
            stream.options = {"preset": "ultrafast", "crf": "18", "bf": str(b_frames)}
            if b_frames:
                stream.options |= {"b-adapt": "0"}
        elif b_frames:
            stream.codec_context.max_b_frames = b_frames
        stream.codec_context.thread_count = 1
        if pixel_ratio is not None:
            stream.codec_context.sample_aspect_ratio = pixel_ratio
        packets = []
        for index, ticks in enumerate(pts):
            upright = (width, height) if rotation % 180 == 0 else (height, width)
            picture = barcode(first_number + index, width=upright[0], height=upright[1])
            stored = np.ascontiguousarray(np.rot90(picture, -rotation // 90))
            frame = av.VideoFrame.from_ndarray(stored, format="rgb24").reformat(format=pixel_format)
            frame.pts, frame.time_base = ticks, time_base
            packets += stream.encode(frame)
        packets += stream.encode(None)
        for packet in packets:
            packet.duration = durations.get(packet.pts, 0)
            output.mux(packet)
    if rotation:
        path.write_bytes(_with_rotation(path.read_bytes(), rotation))
    return path


def _with_rotation(content: bytes, degrees: int) -> bytes:
    """The mp4 with the display matrix of its one track set."""
    cosine, sine = {90: (0, -1), 180: (-1, 0), 270: (0, 1)}[degrees]
    matrix = [cosine << 16, sine << 16, 0, -sine << 16, cosine << 16, 0, 0, 0, 1 << 30]
    start = content.index(b"tkhd") + 44
    return content[:start] + np.array(matrix, dtype=">i4").tobytes() + content[start + 36 :]


@pytest.fixture(scope="session")
def make_video():
    """write_video, for tests that cannot import from here."""
    return write_video


@pytest.fixture(scope="session")
def number_of():
    """read_barcode, for tests that cannot import from here."""
    return read_barcode


@pytest.fixture(scope="session")
def mlalign_extract():
    """The command, in this process: its arguments to a click result."""
    from click.testing import CliRunner

    from mlalign.extract.cli import main

    def run(*arguments):
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    return run


@pytest.fixture(scope="session")
def small_scenes(tmp_path_factory):
    """A dataset of 6 clips with texts, spans and questions."""
    from mlalign.data_manifests.scenes.make import write_scenes

    folder = tmp_path_factory.mktemp("small") / "scenes"
    write_scenes(folder, num_clips=6, seed=3, num_processes=1)
    return folder


@pytest.fixture(scope="session")
def small_options():
    """What small_cache was extracted with."""
    return ["--backbone", "tiny", "--fps", "2", "--set", "shard_clips=2", "--workers", "1"]


@pytest.fixture(scope="session")
def small_cache(small_scenes, small_options, mlalign_extract, tmp_path_factory):
    """small_scenes, extracted. To be copied, not changed."""
    cache = tmp_path_factory.mktemp("small") / "cache"
    done = mlalign_extract(small_scenes, "-o", cache, *small_options)
    assert done.exit_code == 0, done.output
    return cache


@pytest.fixture(scope="session")
def token_cache(small_scenes, small_options, mlalign_extract, tmp_path_factory):
    """small_scenes, extracted with tokens. To be copied, not changed."""
    cache = tmp_path_factory.mktemp("small") / "cache"
    done = mlalign_extract(small_scenes, "-o", cache, *small_options, "--keep-tokens")
    assert done.exit_code == 0, done.output
    return cache


@pytest.fixture
def copied_cache(small_cache, tmp_path):
    """small_cache, to be changed."""
    return Path(shutil.copytree(small_cache, tmp_path / "copied"))


@pytest.fixture(scope="session")
def files_of():
    """A cache to its files' bytes, but for those that tell of runs."""

    def read(cache):
        return {
            str(path.relative_to(cache)): path.read_bytes()
            for path in sorted(cache.rglob("*"))
            if path.is_file() and path.name != "cache.json" and path.parent.name != "runs"
        }

    return read
