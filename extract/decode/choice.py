"""Which decoder is meant: by the name in the settings, or by what the source is."""

from __future__ import annotations

from pathlib import Path
from typing import assert_never

from ..config import DecoderLimits, DecoderName, HardwareName
from ..segments.sampling import Sampling
from .protocol import Decoder, Heartbeat, no_heartbeat


def open_decoder(
    name: DecoderName,
    path: Path,
    *,
    sampling: Sampling,
    start: float,
    end: float | None,
    limits: DecoderLimits,
    image_fps: float | None = None,
    hwaccel: HardwareName | None = None,
    heartbeat: Heartbeat = no_heartbeat,
) -> Decoder:
    """A decoder of the span [start, end) of a video; nothing is opened before it is iterated.

    image_fps: rate of the images, where path is a folder of them. hwaccel: of the ffmpeg
    decoder. heartbeat: told of progress between
    samples, by another thread as well.
    """
    if image_fps is not None and path.is_dir():
        from .images import ImagesDecoder

        return ImagesDecoder(
            path, image_fps=image_fps, sampling=sampling, start=start, end=end, limits=limits
        )
    match name:
        case "pyav":
            from .pyav import PyavDecoder

            return PyavDecoder(
                path, sampling=sampling, start=start, end=end, limits=limits, heartbeat=heartbeat
            )
        case "ffmpeg":
            from .ffmpeg import FfmpegDecoder

            assert sampling.rule is None, "ExtractConfig refuses this"
            return FfmpegDecoder(
                path,
                fps=sampling.fps,
                start=start,
                end=end,
                limits=limits,
                hwaccel=hwaccel,
                heartbeat=heartbeat,
            )
        case _:
            assert_never(name)
