"""A video file, opened in this process: which of its streams is the video, and its frames, with all
that went wrong on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import av.logging
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from .decode import DEMUXERS, PROTOCOLS, DecodeError

Note = Callable[[av.error.FFmpegError | str], None]
"""Is told of damage."""


class Complaints:
    """What the libraries call an error in their log from now on. Where they go on after it, as over
    lost pictures, they say it nowhere else; of intact files they say nothing."""

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
        return av.open(f"file:{path}", "r", options=options, metadata_errors="replace")
    except (av.error.FFmpegError, UnicodeError) as error:
        raise DecodeError(f"not a video that can be read: {reason_of(error)}") from error


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


def average_gap(stream: VideoStream, time_base: Fraction) -> Fraction:
    """Ticks from one frame to the next, by the container's average rate."""
    return Fraction(1) / (stream.average_rate or 25) / time_base


def decoded_frames(
    container: InputContainer, stream: VideoStream, *, note: Note
) -> Iterator[VideoFrame]:
    """The stream's frames; damage is told to `note` and passed over, as players do."""
    packets = container.demux(stream)
    gap = average_gap(stream, stream.time_base or Fraction(1, 90_000))
    torn = _TornPackets(gap=gap, note=note)
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
