"""Where shots begin: PySceneDetect's content detector on the pictures that are sampled anyway."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
from typing import Any, Final

import numpy as np
from PIL import Image

from ...data_manifests.core.errors import UserError

MIN_SHOT_SECONDS: Final = 0.6
"""PySceneDetect's own least length: a flash of light is not two cuts."""
THRESHOLD: Final = 27.0
"""PySceneDetect's own: mean change of hue, saturation and value between two pictures, of 255."""
SIZE: Final = (256, 144)
"""(width, height) at which pictures are compared. PySceneDetect makes them about as wide; all of
one size, since a video may change its own midway."""


class ShotsError(UserError):
    """Shots are asked for where they cannot be found."""


def check_installed() -> None:
    """Raises ShotsError when PySceneDetect or OpenCV is missing. Loads neither."""
    if not all(map(importlib.util.find_spec, ("scenedetect", "cv2"))):
        raise ShotsError(
            "segments 'shots' needs PySceneDetect and OpenCV: pip install 'mlalign[shots]'"
        )


def detector_version() -> str:
    """Of PySceneDetect, under whichever of its two names it was installed; it is not loaded."""
    for name in ("scenedetect-headless", "scenedetect"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return "unknown"


class ShotDetector:
    """Takes a clip's pictures in order; tells at which samples a new shot is on.

    A cut lies between two samples, and the later one is taken for its time: the first frame of the
    shot that there is a feature of. Two pictures are compared at a time, so nothing depends on how
    the pictures travel afterwards.
    """

    def __init__(self) -> None:
        import cv2
        from scenedetect import ContentDetector

        cv2.setNumThreads(1)  # as many decoding processes as cores are at work already
        # The least length is kept here: the detector counts it in frames, samples are far apart.
        self._detector: Any = ContentDetector(threshold=THRESHOLD, min_scene_len=0)
        self._begins = [0.0]

    @property
    def shot_seconds(self) -> tuple[float, ...]:
        """When the second, third ... shot begins, from the clip's start."""
        return tuple(self._begins[1:])

    def add(self, picture: np.ndarray, *, sample_seconds: float) -> None:
        """picture: (any height, any width, 3) uint8 RGB, not the one before it again."""
        from scenedetect import FrameTimecode

        small = Image.fromarray(picture).resize(SIZE, Image.Resampling.BOX, reducing_gap=2.0)
        bgr = np.ascontiguousarray(np.asarray(small)[..., ::-1])
        time = FrameTimecode(float(sample_seconds), fps=1000.0)
        # A hair of room: at 5 per second, 1.4 - 0.8 is less than 0.6 in floats.
        is_long = sample_seconds - self._begins[-1] >= MIN_SHOT_SECONDS - 1e-6
        if self._detector.process_frame(time, bgr) and is_long:
            self._begins.append(float(sample_seconds))
