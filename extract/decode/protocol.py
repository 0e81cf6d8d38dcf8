"""Interface of the decoders, and which is chosen: the frames of one clip at the sampled instants,
and what is missing (see completeness.py for what counts as such).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol, assert_never

import numpy as np
from PIL import Image

from ..config import DecoderLimits, DecoderName, HardwareName
from ..segments.sampling import Sample, Sampling

DEMUXERS: Final = (
    "asf,avi,dv,flv,gif,h264,hevc,ivf,m4v,matroska,mjpeg,mov,mp4,mpeg,mpegts,mpegvideo,mxf,nut,obu,ogg,rm,"
    "swf,vc1,webm,wtv,yuv4mpegpipe"
)
"""Containers that hold pictures of their own. Playlists and scripts (hls, concat, dash, sdp,
image2, tty, ...), which can make a decoder open other files or connections, are not among them."""

PROTOCOLS: Final = "file"


class DecodeError(Exception):
    """A video has no frame that can be decoded, and why. The text is safe to print."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """Metadata of the chosen video stream, from the container."""

    stream_index: int
    """Among all streams of the file."""
    codec: str
    pixel_format: str
    width: int
    """Pixels as stored, before rotation."""
    height: int
    fps: float | None
    """Average rate as the container claims it."""
    rotation_degrees: int
    """Counter-clockwise turn that makes the picture upright: 0, 90, 180 or 270."""
    first_pts_seconds: float
    """The stream's own time of its first frame; time 0 of everything else here."""
    hdr: Literal["pq", "hlg"] | None = None
    """The curve of a high dynamic range. It is not tone-mapped: the picture looks flat and dull to
    what was made for a standard range."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeResult:
    """Outcome of decoding a clip."""

    probe: Probe | None
    """None if the features were imported, without a video."""
    duration_seconds: float
    """Of the clip, by its decoded frames."""
    problem: str | None
    """What is missing, if not all of the clip could be decoded."""


Picture = Callable[[], np.ndarray]
"""Makes the frame's upright (height, width, 3) uint8 RGB picture. Only the frames that are kept are
converted."""


Heartbeat = Callable[[], None]
"""Called at every step of progress (a packet, a frame, a block of a file). Cheap."""


def no_heartbeat() -> None:
    """No-op heartbeat."""


class Decoder(Protocol):
    """Decodes one clip. Iterating raises DecodeError when there is no frame at all."""

    def __iter__(self) -> Iterator[Sample[Picture]]: ...

    def result(self) -> DecodeResult:
        """Outcome; to be called after the iteration."""
        ...


def resized(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """(height, width, 3) uint8: pixels made square, here for both decoders, so that they agree."""
    if picture.shape[:2] == (height, width):
        return picture
    image = Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image)


def check_picture_size(width: int, height: int, limits: DecoderLimits) -> None:
    """Raises DecodeError for a picture over the limit, before memory is spent on it."""
    if width * height > limits.max_megapixels * 1e6:
        raise DecodeError(
            f"a picture of {width} x {height} is over the limit of {limits.max_megapixels:g} "
            "megapixels (limits.max_megapixels)"
        )


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
