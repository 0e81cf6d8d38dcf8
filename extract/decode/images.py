"""A folder of frame images as a video: one after the other at a given rate."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..config import DecoderLimits
from ..segments.sampling import Sample, Sampling, Timed, choose, exact
from .protocol import DecodeError, DecodeResult, Picture, Probe, check_picture_size
from .sources import image_files

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")


class ImagesDecoder:
    """See `protocol.Decoder`. An image that cannot be read is passed over: its frame is not there,
    and the one before stays on the screen."""

    def __init__(
        self,
        folder: Path,
        *,
        image_fps: float,
        sampling: Sampling,
        start: float,
        end: float | None,
        limits: DecoderLimits,
    ) -> None:
        self._folder = folder
        self._gap = 1 / exact(image_fps)
        self._image_fps = image_fps
        self._sampling = sampling
        self._start = start
        self._end = end
        self._limits = limits
        self._over = Fraction(0)
        self._probe: Probe | None = None
        self._num_unreadable = 0
        self._first_error = ""

    def __iter__(self) -> Iterator[Sample[Picture]]:
        files = image_files(self._folder)
        if not files:
            raise DecodeError("no images in the folder")
        self._over = len(files) * self._gap
        if self._over <= exact(self._start):
            raise DecodeError(
                f"the clip starts at {self._start:g} s, the images end at {float(self._over):g} s"
            )
        yield from choose(
            self._frames(files),
            self._sampling,
            over=lambda: self._over,
            start=self._start,
            end=self._end,
        )
        if self._probe is None:
            raise DecodeError(f"no image could be read: {self._first_error}")

    def result(self) -> DecodeResult:
        assert self._probe is not None, "asked before the iteration was over"
        over = self._over if self._end is None else min(exact(self._end), self._over)
        problem = None
        if self._num_unreadable:
            problem = f"{self._num_unreadable} images cannot be read: {self._first_error}"
        return DecodeResult(
            probe=self._probe,
            duration_seconds=float(over - exact(self._start)),
            problem=problem,
        )

    def _frames(self, files: list[Path]) -> Iterator[Timed[Picture]]:
        for index, path in enumerate(files):
            try:
                with Image.open(path, formats=FORMATS) as image:
                    check_picture_size(image.width, image.height, self._limits)
                    image.verify()
            except DecodeError:
                raise
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
                self._note(path, error)
                continue
            if self._probe is None:
                self._probe = self._look(path)
            yield Timed(index * self._gap, self._gap, self._picture(path), is_key=True)

    def _look(self, path: Path) -> Probe:
        with Image.open(path, formats=FORMATS) as image:
            return Probe(
                stream_index=0,
                codec=(image.format or "").lower(),
                pixel_format=image.mode,
                width=image.width,
                height=image.height,
                fps=self._image_fps,
                rotation_degrees=0,
                first_pts_seconds=0.0,
            )

    def _picture(self, path: Path) -> Picture:
        def read() -> np.ndarray:
            try:
                with Image.open(path, formats=FORMATS) as image:
                    return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
            except (OSError, SyntaxError, ValueError) as error:
                raise DecodeError(f"the image {path.name} cannot be read: {error}") from error

        return read

    def _note(self, path: Path, error: Exception) -> None:
        self._num_unreadable += 1
        reason = str(error) if not isinstance(error, OSError) else "not an image"
        self._first_error = self._first_error or f"{path.name}: {reason}"
