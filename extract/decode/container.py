"""A video file opened in this process: its video stream, its frames, and any damage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Protocol

import av
import av.error
import av.logging
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from .protocol import DEMUXERS, PROTOCOLS, DecodeError

Note = Callable[[av.error.FFmpegError | str], None]
"""Called with each damage that is found."""

_METADATA_OPTIONS: Final[dict[str, Any]] = (
    {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}
)
"""Metadata that is not UTF-8 must not make a file unreadable. PyAV 18 raises unless it is asked to
replace such bytes; PyAV 19 keeps them as surrogates and has no such argument."""

DEFAULT_TIME_BASE: Final = Fraction(1, 90_000)
DEFAULT_FPS: Final = Fraction(25)
"""Where a stream does not state its own."""


class _Rational(Protocol):
    """What PyAV's rational numbers have in common: Fraction (PyAV 18) and AVRational (19)."""

    @property
    def numerator(self) -> int: ...

    @property
    def denominator(self) -> int: ...


def as_fraction(value: _Rational | None, *, default: Fraction) -> Fraction:
    """A rational number of PyAV as a Fraction; `default` where it is unset, which PyAV 18 gives as
    None and PyAV 19 as AVRational(0, 1)."""
    if value is None or not value.numerator or not value.denominator:
        return default
    return Fraction(value.numerator, value.denominator)


def time_base(stream: VideoStream) -> Fraction:
    """Seconds per tick. Like everything of a stream, to be read while its container is open."""
    return as_fraction(stream.time_base, default=DEFAULT_TIME_BASE)


def seconds_per_frame(stream: VideoStream) -> Fraction:
    """By the container's average rate."""
    return 1 / as_fraction(stream.average_rate, default=DEFAULT_FPS)


class LibavErrors:
    """Errors that libav logs from now on.

    Where libav continues after an error, such as lost pictures, the log is the only sign of it.
    Intact files log no errors.
    """

    def __init__(self) -> None:
        self._num_before = av.logging.get_last_error()[0]

    @property
    def num(self) -> int:
        return av.logging.get_last_error()[0] - self._num_before

    @property
    def last(self) -> str:
        error = av.logging.get_last_error()[1]
        return error[2].strip() if error and self.num else ""


def open_container(path: Path) -> InputContainer:
    """Open a regular file, and nothing that it may point to. Raises DecodeError."""
    options = {"protocol_whitelist": PROTOCOLS, "format_whitelist": DEMUXERS}
    try:
        container: InputContainer = av.open(
            f"file:{path}", "r", options=options, **_METADATA_OPTIONS
        )
    except (av.error.FFmpegError, UnicodeError) as error:
        raise DecodeError(f"not a video that can be read: {reason_of(error)}") from error
    return container


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
    # Many files at once, one thread each, are twice as fast as one file with many (measured).
    stream.codec_context.thread_count = 1
    return stream


def ticks_per_frame(stream: VideoStream) -> Fraction:
    """By the container's average rate."""
    return seconds_per_frame(stream) / time_base(stream)


def decoded_frames(
    container: InputContainer, stream: VideoStream, *, note: Note
) -> Iterator[VideoFrame]:
    """The stream's frames; damage is passed to `note` and skipped, as players do."""
    packets = container.demux(stream)
    torn = _TornPackets(gap=ticks_per_frame(stream), note=note)
    is_over = False
    while not is_over:
        packet: Packet[Any] | None = None  # which asks the decoder for the frames it still holds
        try:
            packet = next(packets, None)
            is_over = packet is None or packet.size == 0
        except av.error.FFmpegError as error:
            note(error)
            is_over = True
        torn.see(packet)
        if packet is not None and is_encrypted(packet):
            note("it is encrypted")
            continue
        try:
            frames = stream.decode(packet)
        except av.error.EOFError:  # it has given them already
            continue
        except av.error.MemoryError:  # the limit's doing, not the file's
            raise
        except av.error.FFmpegError as error:
            note(error)
            continue
        for frame in frames:
            if frame.is_corrupt and frame.pts not in torn.pts:
                note("a frame is corrupt")
            yield frame


def is_encrypted(packet: Packet[Any]) -> bool:
    """Whether it is of no use without a key; decoders make noise of it."""
    return packet.has_sidedata("encryption_info")


def reason_of(error: object) -> str:
    """The library's words without the path, which the reader sees beside them."""
    if isinstance(error, av.error.FFmpegError):
        return error.strerror or type(error).__name__
    return str(error)


class _TornPackets:
    """Tells damage from the joint of two recordings that were put end to end.

    In a transport stream a jump in the packets' numbers marks both, up to two packets before the
    place. At a joint nothing is missing, and a key frame follows.
    """

    def __init__(self, *, gap: Fraction, note: Note) -> None:
        """gap: ticks between frames."""
        self.pts: set[int | None] = set()
        """Of the marked packets."""
        self._gap = gap
        self._note = note
        self._last_dts: int | None = None
        self._num_open = 0
        """How many more packets are looked at after a marked one."""
        self._has_key = False
        """Whether a key frame was among them."""

    def see(self, packet: Packet[Any] | None) -> None:
        """The next packet; None or an empty one at the end."""
        is_end = packet is None or not packet.size
        if self._num_open:
            self._num_open -= 1
            self._has_key |= packet is not None and packet.is_keyframe
            if is_end or self._is_gap_before(packet) or (not self._num_open and not self._has_key):
                self._num_open = 0
                self._note("a packet is corrupt")
        if packet is not None and not is_end:
            if packet.is_corrupt:
                self.pts.add(packet.pts)
                self._num_open, self._has_key = 3, False
            self._last_dts = packet.dts

    def _is_gap_before(self, packet: Packet[Any] | None) -> bool:
        if packet is None or packet.dts is None or self._last_dts is None:
            return True
        return packet.dts - self._last_dts > self._gap * 3 / 2
