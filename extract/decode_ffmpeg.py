"""Decoding through the ffmpeg program and ffmpeg-python: the frames of PyAV, out of a pipe.

The program chooses the frames (its fps filter, rounding up, emits what is shown at k / fps)
and tells on its error stream, in this order, when each decoded frame comes up and which instant
it emits a picture for: that gives the true times.
"""

from __future__ import annotations

import math
import re
import subprocess
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO

import ffmpeg
import numpy as np

from ..data_manifests.ffmpeg_program import ffmpeg_program
from ..data_manifests.file_names import name_text, text_name
from .completeness import Extent, read_extent, shortfall
from .config import DecoderLimits, HardwareName
from .container import Complaints, decoded_frames, open_container, reason_of, video_stream
from .contract import CacheError
from .decode import (
    DEMUXERS,
    PROTOCOLS,
    Beat,
    DecodeError,
    Ending,
    Picture,
    Probe,
    check_picture_size,
    no_beat,
    resized,
)
from .decode_pyav import pixel_ratio, probe, shown_size
from .sampling import Sample, exact

_FRAME = re.compile(rb"showinfo@frames .* n: *\d+ pts: *(-?\d+) ")
_INSTANT = re.compile(rb"showinfo@instants .* n: *(\d+) pts:")
_DURATION = re.compile(rb" duration: *(\d+) ")
_TIME_BASE = re.compile(rb"showinfo@frames .* config in time_base: (\d+)/(\d+)")
_SHOWINFO = re.compile(rb"^\[.*showinfo")
_TORN = re.compile(rb"\[warning\] *(corrupt input packet)")
_ERROR = re.compile(rb"\[(?:error|fatal)\] *(.*)")


def check_hwaccel(hwaccel: HardwareName) -> None:
    """Raises CacheError, with the program's words, when it cannot decode on such hardware here."""
    command = [ffmpeg_program(), "-v", "error", "-init_hw_device", hwaccel]
    command += ["-f", "lavfi", "-i", "nullsrc", "-frames:v", "1", "-f", "null", "-"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise CacheError(
            f"hwaccel {hwaccel} was asked for, and {command[0]} cannot use it on this machine: "
            f"{re.sub(r'^.*?] ', '', said[0])}; leave hwaccel out to decode on the processor"
        )


class FfmpegDecoder:
    """See `decode.Decoder`. Probing goes through PyAV, which needs no program."""

    def __init__(
        self,
        path: Path,
        *,
        fps: float,
        start: float,
        end: float | None,
        limits: DecoderLimits,
        hwaccel: HardwareName | None = None,
        beat: Beat = no_beat,
    ) -> None:
        self._path = path
        self._hwaccel = hwaccel
        self._beat = beat
        self._fps = fps
        self._start = start
        self._end = end
        self._limits = limits
        self._probe: Probe | None = None
        self._extent: Extent | None = None
        self._log: _Log | None = None
        self._is_over = False
        """Whether the program has given its last picture."""

    def __iter__(self) -> Iterator[Sample[Picture]]:
        source = _look(self._path, self._limits)
        self._probe, self._extent = source.probe, source.extent
        process = subprocess.Popen(
            self._command(source),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None and process.stderr is not None
        try:
            self._log = _Log(
                process.stderr,
                gap=source.gap,
                start=self._start,
                fps=self._fps,
                beat=self._beat,
            )
            yield from self._samples(process.stdout, source)
            if self._is_over and process.wait() != 0:  # without a word when it was killed
                self._log.note(f"the program ended with exit code {process.returncode}")
        finally:
            process.kill()
            process.stdout.close()
            process.wait()
            if self._log is not None:
                self._log.close()

    def ending(self) -> Ending:
        assert self._probe is not None and self._log is not None, "asked before the iteration"
        over = self._log.over_seconds
        if self._end is not None:
            over = min(over, exact(self._end) - exact(self._start))
        assert self._extent is not None
        start = exact(self._start)
        problem = shortfall(
            self._extent,
            self._log.problem(),
            over=self._log.over_seconds + start,
            lost=self._log.lost_seconds,
            start=start,
            end=None if self._end is None else exact(self._end),
        )
        return Ending(
            probe=self._probe, duration_seconds=float(max(over, Fraction(0))), problem=problem
        )

    def _samples(self, pipe: IO[bytes], source: _Source) -> Iterator[Sample[Picture]]:
        assert self._log is not None
        step, end = 1 / exact(self._fps), None
        if self._end is not None:
            end = exact(self._end) - exact(self._start)
        shape = source.stored_height, source.stored_width, 3
        size = math.prod(shape)
        picture: np.ndarray | None = None
        k = 0
        while end is None or k * step < end:
            content = pipe.read(size)
            self._is_over = len(content) < size
            if not self._is_over:
                picture = np.frombuffer(content, dtype=np.uint8).reshape(shape)
            shown = self._log.shown_at(k)
            if shown is None or picture is None:  # the last frame is no longer on the screen
                break
            yield Sample(float(k * step), shown, _picture(picture, source))
            k += 1
        if k == 0:
            raise DecodeError(self._no_sample())
        self._log.shown_at(k)  # by then every frame of the clip is in the log

    def _no_sample(self) -> str:
        assert self._log is not None
        self._log.shown_at(0)
        if self._log.num_frames and self._log.over_seconds <= 0:
            over = self._start + float(self._log.over_seconds)
            return f"the clip starts at {self._start:g} s, the video ends at {over:g} s"
        reason = self._log.first_error
        return f"no frame could be decoded{f': {reason}' if reason else ''}"

    def _command(self, source: _Source) -> list[str]:
        """One process: choose, show right way up, convert, and write raw pictures to the pipe."""
        # Without an output format the frames come back to memory, for the filters that follow.
        hardware = {} if self._hwaccel is None else {"hwaccel": self._hwaccel}
        container = ffmpeg.input(
            name_text(f"file:{self._path}"),  # ffmpeg-python takes text only
            protocol_whitelist=PROTOCOLS,
            format_whitelist=DEMUXERS,
            threads=1,
            # Filters made anew, where the video changes its size midway, would begin at time 0.
            reinit_filter=0,
            **hardware,
        )
        # Where the clock is set back (joined recordings) it goes on where it stopped.
        passed = f"if(isnan(PTS)+lt(PTS,PREV_INPTS),round({float(source.gap)!r}/TB),PTS-PREV_INPTS)"
        frames = (
            container[str(source.probe.stream_index)]
            .filter("setpts", f"if(isnan(PREV_OUTPTS),0,PREV_OUTPTS+{passed})")
            .filter("showinfo@frames", checksum=0)
            # A finer clock, so that the clip's start is a whole number of ticks.
            .filter("settb", "if(gt(intb,1e-6),intb/1000,intb)")
            .filter("setpts", f"PTS-round({self._start!r}/TB)")
            .filter("fps", fps=self._fps, round="up", start_time=0)
            .filter("showinfo@instants", checksum=0)
            # Also where the video changes its size midway.
            .filter("scale", source.stored_width, source.stored_height, flags="bicubic")
        )
        command: list[str] = (
            frames.output("pipe:", format="rawvideo", pix_fmt="rgb24", fps_mode="passthrough")
            # copyts: the program's own idea of a jump in time is left out.
            .global_args("-nostdin", "-hide_banner", "-nostats", "-copyts")
            .global_args("-filter_complex_threads", "1")
            .global_args("-loglevel", "level+info")
            .compile(cmd=ffmpeg_program())
        )
        return [text_name(word) for word in command]


class _Log:
    """Reads the program's error stream as it comes: frame times, and errors."""

    def __init__(
        self, stream: IO[bytes], *, gap: Fraction, start: float, fps: float, beat: Beat
    ) -> None:
        """gap: seconds between frames by the container; start: of the clip in the video."""
        self._stream = stream
        self._beat = beat
        self._gap = gap
        self._start = exact(start)
        self._step = 1 / exact(fps)
        self._frames: deque[Fraction] = deque()
        """When the frame shown at the last instant came up, and those after it."""
        self._shown: dict[int, float | None] = {}
        """Instants whose picture has left the program: when their frame came up."""
        self._changed = threading.Condition()
        self._is_over = False
        self._num_errors = 0
        self.num_frames = 0
        self._is_torn = False
        """Packets are damaged, or two recordings were put end to end: then no frame is missing."""
        self.first_error = ""
        self.lost_seconds = Fraction(0)
        """For which no frame came because of damage."""
        self.over_seconds = Fraction(0)
        """When the last frame so far leaves the screen, from the clip's start."""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def shown_at(self, k: int) -> float | None:
        """When the frame on the screen at instant k came up; None when the last one has gone.

        To be asked for k = 0, 1, ...; waits until the program has come past that instant.
        """
        with self._changed:
            while k not in self._shown and not self._is_over:
                self._changed.wait()
            return self._shown.pop(k) if k in self._shown else self._frame_at(k * self._step)

    def _frame_at(self, seconds: Fraction) -> float | None:
        """The frames that are no longer shown are forgotten."""
        while len(self._frames) > 1 and self._frames[1] <= seconds:
            self._frames.popleft()
        if not self._frames or (len(self._frames) == 1 and seconds >= self.over_seconds):
            return None
        return float(self._frames[0])

    def problem(self) -> str | None:
        """What the program complained of, when it did."""
        if not self._num_errors:
            return None
        return f"{self._num_errors} decoding errors: {self.first_error}"

    def note(self, error: str) -> None:
        self._num_errors += 1
        self.first_error = self.first_error or error

    def close(self) -> None:
        self._thread.join()
        self._stream.close()

    def _read(self) -> None:
        time_base = Fraction(0)
        num_known = 0
        for line in self._stream:
            if found := _FRAME.search(line):
                self._beat()
                seconds = int(found[1]) * time_base - self._start
                ticks = _DURATION.search(line)
                duration = int(ticks[1]) * time_base if ticks else Fraction(0)
                with self._changed:
                    hole = seconds - self.over_seconds if self.num_frames else Fraction(0)
                    if self._is_torn and hole > self._gap / 2:
                        self.note("a packet is corrupt")
                    if self._num_errors > num_known:
                        self.lost_seconds += max(hole, Fraction(0))
                    num_known = self._num_errors
                    self.num_frames += 1
                    self._frames.append(seconds)
                    self.over_seconds = seconds + (duration or self._gap)
            elif found := _INSTANT.search(line):
                with self._changed:
                    k = int(found[1])
                    self._shown[k] = self._frame_at(k * self._step)
                    self._changed.notify_all()
            elif found := _TIME_BASE.search(line):
                time_base = Fraction(int(found[1]), int(found[2]))
            elif _TORN.search(line):
                self._is_torn = True
            elif (found := _ERROR.search(line)) and not _SHOWINFO.match(line):
                self.note(found[1].decode(errors="replace").strip())
        with self._changed:
            self._is_over = True
            self._changed.notify_all()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Source:
    """What must be known of a video before the program is started."""

    probe: Probe
    stored_width: int
    """Of the upright picture, its pixels not yet square."""
    stored_height: int
    width: int
    """Of the upright picture as it is shown."""
    height: int
    gap: Fraction
    """Seconds between frames, as the container claims."""
    extent: Extent


def _look(path: Path, limits: DecoderLimits) -> _Source:
    problems: list[object] = []
    complaints = Complaints()
    with open_container(path) as container:
        stream = video_stream(container)
        check_picture_size(stream.codec_context.width, stream.codec_context.height, limits)
        extent = read_extent(path, container, stream)
        frame = next(decoded_frames(container, stream, note=problems.append), None)
        if frame is None:
            reason = reason_of(problems[0]) if problems else complaints.last
            raise DecodeError(f"no frame could be decoded{reason and f': {reason}'}")
        first = frame.dts if container.format.name == "avi" else frame.pts
        seconds = float((first or 0) * (stream.time_base or 0))
        found = probe(stream, frame, first_pts_seconds=seconds)
        width, height = shown_size(frame, pixel_ratio(stream))
        check_picture_size(width, height, limits)
        gap = Fraction(1) / (stream.average_rate or 25)
    stored_width, stored_height = found.width, found.height
    if found.rotation_degrees in (90, 270):
        width, height = height, width
        stored_width, stored_height = stored_height, stored_width
    return _Source(
        probe=found,
        stored_width=stored_width,
        stored_height=stored_height,
        width=width,
        height=height,
        gap=gap,
        extent=extent,
    )


def _picture(stored: np.ndarray, source: _Source) -> Picture:
    return lambda: resized(stored, source.width, source.height)
