"""Draws the scenes of a procedural clip and writes them as an H.264 mp4 file."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np

from ..core.errors import UserError
from .plan import (
    BACKGROUNDS,
    COLOURS,
    FRAMES_PER_SECOND,
    HEIGHT,
    OTHER_RADIUS_PIXELS,
    RADIUS_PIXELS,
    WIDTH,
    Scene,
)

# threads=1: x264 promises the same bits only with the same number of threads.
X264_OPTIONS: Final = {
    "preset": "veryfast",
    "crf": "18",
    "g": str(FRAMES_PER_SECOND),
    "threads": "1",
}


def draw_scene(scene: Scene) -> np.ndarray:
    """(num_frames, HEIGHT, WIDTH, 3) uint8 RGB."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    frames = np.empty((scene.num_frames, HEIGHT, WIDTH, 3), dtype=np.uint8)
    frames[:] = BACKGROUNDS[scene.background]
    if scene.other is not None:
        colour, shape = scene.other
        x, y = scene.corner
        frames[:, _inside(shape, columns - x, rows - y, OTHER_RADIUS_PIXELS)] = COLOURS[colour]
    for index, frame in enumerate(frames):
        x, y = scene.centre(index)
        mask = _inside(scene.shape, columns - x, rows - y, _radius(scene, index))
        frame[mask] = _colour(scene, index)
    return frames


def _radius(scene: Scene, frame: int) -> float:
    full = RADIUS_PIXELS[scene.size]
    done = frame / (scene.num_frames - 1)
    if scene.motion == "grows":
        return full * (0.4 + 0.6 * done)
    return full * (1 - 0.6 * done) if scene.motion == "shrinks" else full


def _colour(scene: Scene, frame: int) -> tuple[int, ...]:
    colour = COLOURS[scene.colour]
    if scene.motion == "blinks" and frame % 3 == 2:
        # Dimmed, not gone: a reader of a single frame must still see the object.
        pairs = zip(colour, BACKGROUNDS[scene.background], strict=True)
        return tuple(round(0.35 * own + 0.65 * behind) for own, behind in pairs)
    return colour


def _inside(shape: str, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """(HEIGHT, WIDTH) bool; x, y: pixels from the shape's centre, y downwards."""
    wide, high = np.abs(x), np.abs(y)
    mask: np.ndarray
    match shape:
        case "circle":
            mask = x**2 + y**2 <= radius**2
        case "ring":
            square = x**2 + y**2
            mask = (square <= radius**2) & (square >= (0.55 * radius) ** 2)
        case "square":
            mask = np.maximum(wide, high) <= 0.85 * radius
        case "diamond":
            mask = wide + high <= 1.05 * radius
        case "triangle":
            mask = (wide <= 0.6 * (y + radius)) & (y <= 0.8 * radius)
        case "cross":
            arm = 0.32 * radius
            mask = (np.minimum(wide, high) <= arm) & (np.maximum(wide, high) <= radius)
        case _:
            raise AssertionError(shape)
    return mask


def write_clip(scenes: Sequence[Scene], path: Path) -> None:
    """Write the scenes one after the other; the first frame is shown at 0 seconds.

    Raises UserError when the file cannot be written, or PyAV was built without libx264.
    """
    if "libx264" not in av.codecs_available:
        raise UserError("this PyAV has no H.264 encoder (libx264); install the one of PyPI: av")
    try:
        _encode(np.concatenate([draw_scene(scene) for scene in scenes]), path)
    except av.FFmpegError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def _encode(pictures: np.ndarray, path: Path) -> None:
    """pictures: (num_frames, HEIGHT, WIDTH, 3) uint8 RGB."""
    with av.open(str(path), mode="w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options=X264_OPTIONS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        time_base = Fraction(1, FRAMES_PER_SECOND)
        stream.codec_context.time_base = time_base
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
