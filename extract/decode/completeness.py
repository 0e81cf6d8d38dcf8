"""Whether all of a video file is there, and how much of it was decoded.

A header's duration proves nothing: it may be half of the truth or a million times it, and players
do not mind. So a file is partial when its decoding met damage (an error, or a word of the libraries
that they call one), or when its own structure leads past its end: a frame of mp4's table, a
Matroska segment, a RIFF list, a transport packet. A file without either is ok whatever it declares.
The share that is named with the damage is of what mp4's table adds up to; elsewhere of what the
container declares, where that is more than was decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Final

from av.container import InputContainer
from av.video.stream import VideoStream

from .container import seconds_per_frame, time_base

MAX_BOXES: Final = 100_000
"""Of one file that are looked at; more are fragments of a live recording."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Extent:
    """How long a video says it is, and whether the file ends before that."""

    declared_seconds: Fraction | None
    """From the first frame to where the last one leaves the screen; None: not said."""
    is_cut: bool
    gap_seconds: Fraction
    """From one frame to the next, about."""


def read_extent(path: Path, container: InputContainer, stream: VideoStream) -> Extent:
    """What the container says before anything is decoded. container: just opened."""
    size = path.stat().st_size
    gap = seconds_per_frame(stream)
    is_cut = _ends_early(path, container.format.name, size)
    if "mp4" in container.format.name:
        entries = [entry for entry in stream.index_entries if not entry.is_discard]
        if entries:
            ticks = entries[-1].timestamp - entries[0].timestamp
            return Extent(
                declared_seconds=ticks * time_base(stream) + gap,
                is_cut=is_cut and any(entry.pos + entry.size > size for entry in entries),
                gap_seconds=gap,
            )
    declared: Fraction | None = None
    if container.format.name == "avi" and stream.frames:  # its duration is cut with the file
        declared = stream.frames * gap
    elif container.duration and container.format.name != "mpegts":  # of that it is a guess
        declared = Fraction(container.duration, 1_000_000)
    return Extent(declared_seconds=declared, is_cut=is_cut, gap_seconds=gap)


def shortfall(
    extent: Extent,
    damage: str | None,
    *,
    over: Fraction,
    lost: Fraction,
    start: Fraction,
    end: Fraction | None,
) -> str | None:
    """What is missing of the clip [start, end), and its share; None when nothing is.

    over: when the last decoded frame leaves the screen. lost: seconds before that for which no
    frame came because of damage.
    """
    whole = extent.declared_seconds
    if whole is None or whole < over:
        whole = None
    is_cut = extent.is_cut and (end is None or over < end)
    if is_cut and whole is not None and over + extent.gap_seconds * 3 / 2 >= whole:
        is_cut = False  # what was cut off is no picture
    if damage is None and not is_cut:
        return None
    reasons = [damage] if damage else []
    if is_cut:
        reasons.append("the file is cut short")
    stop = over if whole is None else whole
    length = (stop if end is None else min(stop, end)) - start
    decoded = (over if end is None else min(over, end)) - start - lost
    if is_cut and whole is None:
        return "; ".join(
            [*reasons, f"{_shown(decoded)} s were decoded, it does not say of how many"]
        )
    # Damage is never nothing, however short.
    share = min(99, max(0, int(100 * decoded / length))) if length > 0 else 0
    declared = "declared " if whole is not None else ""
    return "; ".join([*reasons, f"decoded {share} % of the {declared}{_shown(length)} s"])


def _shown(seconds: Fraction) -> str:
    return f"{float(seconds):.6g}"


def _ends_early(path: Path, container: str, size: int) -> bool:
    """Whether the structure that the container's outermost parts make leads past the file's end."""
    with path.open("rb") as file:
        if "mp4" in container:
            return any(end > size for end in _box_ends(file, size))
        if "matroska" in container:
            return (_segment_end(file) or 0) > size
        if container == "avi":
            return any(end > size for end in _riff_ends(file, size))
        if container == "mpegts":
            return _has_torn_packet(file, size)
    return False


def _box_ends(file: IO[bytes], size: int) -> Iterator[int]:
    start = 0
    for _ in range(MAX_BOXES):
        file.seek(start)
        header = file.read(16)
        if len(header) < 8 or not header[4:8].isalnum():
            return  # the end, or what is no box
        length = int.from_bytes(header[:4])
        if length == 1 and len(header) == 16:
            length = int.from_bytes(header[8:])
        if length < 8:  # 0: to the file's end
            return
        start += length
        yield start
        if start >= size:
            return


def _segment_end(file: IO[bytes]) -> int | None:
    """Of a Matroska file's segment; None where its length is left open."""
    start = 0
    for identifier in (b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"):
        file.seek(start)
        header = file.read(12)
        if header[:4] != identifier or len(header) < 12 or not header[4]:
            return None
        num_bytes = 9 - header[4].bit_length()
        length = int.from_bytes(header[4 : 4 + num_bytes]) & ((1 << 7 * num_bytes) - 1)
        if length == (1 << 7 * num_bytes) - 1:
            return None
        start += 4 + num_bytes + length
    return start


def _riff_ends(file: IO[bytes], size: int) -> Iterator[int]:
    start = 0
    while start < size:
        file.seek(start)
        header = file.read(8)
        if header[:4] != b"RIFF" or len(header) < 8:
            return
        start += 8 + int(struct.unpack("<I", header[4:])[0])
        yield start
        start += start % 2


def _has_torn_packet(file: IO[bytes], size: int) -> bool:
    head = file.read(3 * 204)
    for length, first in ((188, 0), (192, 4), (204, 0)):
        if [head[first + i * length : first + i * length + 1] for i in range(3)] == [b"\x47"] * 3:
            return size % length != 0
    return False
