"""Decoding through PyAV, in this process: one thread, frames by presentation time, rotation
applied."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from .config import DecoderLimits
from .decode import (
    DEMUXERS,
    PROTOCOLS,
    DecodeError,
    Ending,
    Picture,
    Probe,
    check_picture_size,
    resized,
)
from .sampling import Sample, Timed, exact, samples


class PyavDecoder:
    """See `decode.Decoder`."""

    def __init__(
        self, path: Path, *, fps: float, start: float, end: float | None, limits: DecoderLimits
    ) -> None:
        self._path = path
        self._fps = fps
        self._start = start
        self._end = end
        self._limits = limits
        self._probe: Probe | None = None
        self._over_seconds = Fraction(0)
        self._num_frames = 0
        self._num_errors = 0
        self._first_error = ""

    def __iter__(self) -> Iterator[Sample[Picture]]:
        with open_container(self._path) as container:
            stream = video_stream(container)
            check_picture_size(
                stream.codec_context.width, stream.codec_context.height, self._limits
            )
            frames = self._timed(container, stream)
            yield from samples(frames, fps=self._fps, start=self._start, end=self._end)
        if self._num_frames == 0:
            raise DecodeError(f"no frame could be decoded{self._because()}")
        if self._over_seconds <= exact(self._start):
            raise DecodeError(
                f"the clip starts at {self._start:g} s, "
                f"the video ends at {float(self._over_seconds):g} s"
            )

    def ending(self) -> Ending:
        assert self._probe is not None, "asked before the iteration was over"
        over = self._over_seconds
        if self._end is not None:
            over = min(exact(self._end), over)
        problem = None
        if self._num_errors:
            problem = f"{self._num_errors} damaged packets or frames{self._because()}"
        return Ending(
            probe=self._probe,
            duration_seconds=float(max(over - exact(self._start), Fraction(0))),
            problem=problem,
        )

    def _timed(self, container: InputContainer, stream: VideoStream) -> Iterator[Timed[Picture]]:
        """Every frame with its time from the first one; stops after the clip's end."""
        time_base = stream.time_base or Fraction(1, 90_000)
        gap = Fraction(1) / (stream.average_rate or 25) / time_base  # in ticks
        ratio = pixel_ratio(stream)
        first: int | None = None
        shift = last = 0
        for frame in decoded_frames(container, stream, note=self._note):
            check_picture_size(*shown_size(frame, ratio), self._limits)
            # AVI has no presentation times: the ones made up for it are wrong with B-frames.
            ticks = frame.dts if container.format.name == "avi" else frame.pts
            if ticks is None:
                ticks = 0 if first is None else last - shift + round(gap)
            if first is None:
                first = last = ticks
                self._probe = probe(stream, frame, first_pts_seconds=float(ticks * time_base))
            elif ticks + shift < last:
                # A clock that was set back (joined recordings): go on where it stopped.
                shift = last + round(gap) - ticks
            last = ticks + shift
            seconds = (last - first) * time_base
            duration = (frame.duration or gap) * time_base
            self._num_frames += 1
            self._over_seconds = seconds + duration
            yield Timed(seconds, duration, _picture(frame, ratio))
            if self._end is not None and seconds >= self._end:
                return

    def _note(self, error: av.error.FFmpegError | str) -> None:
        self._num_errors += 1
        self._first_error = self._first_error or _reason(error)

    def _because(self) -> str:
        return f": {self._first_error}" if self._first_error else ""


def open_container(path: Path) -> InputContainer:
    """Open a regular file, and nothing that it may point to. Raises DecodeError."""
    options = {"protocol_whitelist": PROTOCOLS, "format_whitelist": DEMUXERS}
    try:
        return av.open(f"file:{path}", "r", options=options, metadata_errors="replace")
    except (av.error.FFmpegError, UnicodeError) as error:
        raise DecodeError(f"not a video that can be read: {_reason(error)}") from error


def decoded_frames(
    container: InputContainer,
    stream: VideoStream,
    *,
    note: Callable[[av.error.FFmpegError | str], None],
) -> Iterator[VideoFrame]:
    """The stream's frames; damage is told to `note` and passed over, as players do."""
    packets = container.demux(stream)
    is_over = False
    while not is_over:
        packet: Packet[Any] | None = None  # which asks the decoder for the frames it still holds
        try:
            packet = next(packets, None)
            is_over = packet is None or packet.size == 0
        except av.error.FFmpegError as error:
            note(error)
            is_over = True
        try:
            frames = stream.decode(packet)
        except av.error.EOFError:  # it has given them already
            continue
        except av.error.FFmpegError as error:
            note(error)
            continue
        for frame in frames:
            if frame.is_corrupt:
                note("a frame is corrupt")
            yield frame


def video_stream(container: InputContainer) -> VideoStream:
    """The default video stream as ffmpeg's libraries choose it, never a cover picture. Raises
    DecodeError."""
    real = [
        stream
        for stream in container.streams.video
        if not stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails)
    ]
    if not real:
        raise DecodeError("there is no video stream in it")
    best = container.streams.best("video")
    stream = next((stream for stream in real if stream is best), real[0])
    if stream.codec_context is None:
        raise DecodeError("there is no decoder for its codec")
    # Many files at once, one thread each, beats one file with many threads (measured: twice the
    # rate).
    stream.codec_context.thread_count = 1
    return stream


def probe(stream: VideoStream, frame: VideoFrame, *, first_pts_seconds: float) -> Probe:
    """What the stream and its first frame say."""
    return Probe(
        stream_index=stream.index,
        codec=stream.codec_context.name,
        pixel_format=frame.format.name,
        width=frame.width,
        height=frame.height,
        fps=float(stream.average_rate) if stream.average_rate else None,
        rotation_degrees=_quarter_turns(frame) * 90,
        first_pts_seconds=first_pts_seconds,
    )


def pixel_ratio(stream: VideoStream) -> Fraction:
    """Width to height of one pixel as it is meant to be shown."""
    return stream.sample_aspect_ratio or Fraction(1)


def shown_size(frame: VideoFrame, ratio: Fraction) -> tuple[int, int]:
    """Width and height, before rotation, at which the frame's pixels are square."""
    return max(1, round(frame.width * ratio)), frame.height


def _picture(frame: VideoFrame, ratio: Fraction) -> Picture:
    """The picture is widened by `ratio`, so that its pixels are square."""

    def convert() -> np.ndarray:
        try:
            # The interpolation of colours that are stored at half the resolution.
            rgb = frame.reformat(format="rgb24", interpolation="BICUBIC").to_ndarray()
        except (av.error.FFmpegError, ValueError) as error:
            raise DecodeError(f"a picture cannot be converted: {_reason(error)}") from error
        square = resized(rgb, *shown_size(frame, ratio))
        return np.ascontiguousarray(np.rot90(square, _quarter_turns(frame)))

    return convert


def _quarter_turns(frame: VideoFrame) -> int:
    """How often the stored picture is to be turned left by 90 degrees to stand upright."""
    return round(frame.rotation / 90) % 4


def _reason(error: object) -> str:
    """The library's words without the path, which the reader sees beside them."""
    if isinstance(error, av.error.FFmpegError):
        return error.strerror or type(error).__name__
    return str(error)
