"""Decoding through the ffmpeg program and ffmpeg-python: the frames of PyAV, out of a pipe.

The program chooses the frames (its fps filter, rounding up, emits what is shown at k / fps)
and tells on its error stream when each decoded frame comes up, which gives the true times.
"""

from __future__ import annotations

import bisect
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO

import ffmpeg
import numpy as np

from .config import DecoderLimits
from .decode import DEMUXERS, PROTOCOLS, DecodeError, Ending, Picture, Probe, check_picture_size
from .decode_pyav import open_container, pixel_ratio, probe, video_stream
from .sampling import Sample, exact

_SHOWN = re.compile(rb"showinfo.* n: *\d+ pts: *(-?\d+) ")
_DURATION = re.compile(rb" duration: *(\d+) ")
_TIME_BASE = re.compile(rb"showinfo.* config in time_base: (\d+)/(\d+)")
_SHOWINFO = re.compile(rb"^\[.*showinfo")
_ERROR = re.compile(rb"\[(?:error|fatal)\] *(.*)")


def ffmpeg_program() -> str:
    """The system's ffmpeg when there is one, else the one that comes with imageio-ffmpeg."""
    system = shutil.which("ffmpeg")
    if system:
        return system
    import imageio_ffmpeg

    return str(imageio_ffmpeg.get_ffmpeg_exe())


class FfmpegDecoder:
    """See `decode.Decoder`. Probing goes through PyAV, which needs no program."""

    def __init__(
        self, path: Path, *, fps: float, start: float, end: float | None, limits: DecoderLimits
    ) -> None:
        self._path = path
        self._fps = fps
        self._start = start
        self._end = end
        self._limits = limits
        self._probe: Probe | None = None
        self._log: _Log | None = None

    def __iter__(self) -> Iterator[Sample[Picture]]:
        self._probe, width, height = _probe(self._path, self._limits)
        process = subprocess.Popen(
            self._command(self._probe.stream_index, width, height),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None and process.stderr is not None
        try:
            self._log = _Log(process.stderr, gap=1 / (self._probe.fps or 25), start=self._start)
            yield from self._samples(process.stdout, (height, width, 3))
        finally:
            process.kill()
            process.stdout.close()
            process.wait()
            if self._log is not None:
                self._log.close()

    def ending(self) -> Ending:
        assert self._probe is not None and self._log is not None, "asked before the iteration"
        over = float(self._log.over_seconds)
        if self._end is not None:
            over = min(over, self._end - self._start)
        return Ending(
            probe=self._probe, duration_seconds=max(over, 0.0), problem=self._log.problem()
        )

    def _samples(self, pipe: IO[bytes], shape: tuple[int, int, int]) -> Iterator[Sample[Picture]]:
        assert self._log is not None
        step, end = 1 / exact(self._fps), None
        if self._end is not None:
            end = exact(self._end) - exact(self._start)
        size = shape[0] * shape[1] * shape[2]
        picture: np.ndarray | None = None
        k = 0
        while end is None or k * step < end:
            content = pipe.read(size)
            if len(content) == size:
                picture = np.frombuffer(content, dtype=np.uint8).reshape(shape)
            elif picture is None:
                raise DecodeError(self._no_frame())
            shown = self._log.shown_at(k * step)
            if shown is None:  # the last frame is no longer on the screen
                if k == 0:
                    raise DecodeError(
                        f"the clip starts at {self._start:g} s, the video ends at "
                        f"{self._start + float(self._log.over_seconds):g} s"
                    )
                return
            yield Sample(float(k * step), shown, _as_is(picture))
            k += 1

    def _no_frame(self) -> str:
        assert self._log is not None
        self._log.close()
        reason = self._log.first_error
        return f"no frame could be decoded{f': {reason}' if reason else ''}"

    def _command(self, stream_index: int, width: int, height: int) -> list[str]:
        """One process: choose, show right way up, convert, and write raw pictures to the pipe."""
        source = ffmpeg.input(
            f"file:{self._path}",
            protocol_whitelist=PROTOCOLS,
            format_whitelist=DEMUXERS,
            threads=1,
        )
        frames = (
            source[str(stream_index)]
            .filter("setpts", "PTS-STARTPTS")
            .filter("showinfo", checksum=0)
            # A finer clock, so that the clip's start is a whole number of ticks.
            .filter("settb", "intb/1000")
            .filter("setpts", f"PTS-round({self._start!r}/TB)")
            .filter("fps", fps=self._fps, round="up", start_time=0)
            .filter("scale", width, height, flags="bicubic")
        )
        command: list[str] = (
            frames.output("pipe:", format="rawvideo", pix_fmt="rgb24", fps_mode="passthrough")
            .global_args("-nostdin", "-hide_banner", "-nostats", "-loglevel", "level+info")
            .compile(cmd=ffmpeg_program())
        )
        return command


class _Log:
    """Reads the program's error stream as it comes: frame times, and errors."""

    def __init__(self, stream: IO[bytes], *, gap: float, start: float) -> None:
        """gap: seconds between frames by the container; start: of the clip in the video."""
        self._stream = stream
        self._gap = exact(gap)
        self._start = exact(start)
        self._seconds: list[Fraction] = []
        self._changed = threading.Condition()
        self._is_over = False
        self._num_errors = 0
        self.first_error = ""
        self.over_seconds = Fraction(0)
        """When the last frame so far leaves the screen, from the clip's start."""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def shown_at(self, seconds: Fraction) -> float | None:
        """When the frame on the screen at `seconds` came up; None when the last one has gone.

        Waits until the program has come past that instant.
        """
        with self._changed:
            while not self._is_over and not (self._seconds and self._seconds[-1] > seconds):
                self._changed.wait()
            if not self._seconds or (self._is_over and seconds >= self.over_seconds > 0):
                return None
            place = bisect.bisect_right(self._seconds, seconds) - 1
            return float(self._seconds[max(place, 0)])

    def problem(self) -> str | None:
        """What the program complained of, when it did."""
        if not self._num_errors:
            return None
        return f"{self._num_errors} decoding errors: {self.first_error}"

    def close(self) -> None:
        self._thread.join()
        self._stream.close()

    def _read(self) -> None:
        time_base = Fraction(0)
        for line in self._stream:
            if found := _SHOWN.search(line):
                seconds = int(found[1]) * time_base - self._start
                ticks = _DURATION.search(line)
                duration = int(ticks[1]) * time_base if ticks else self._gap
                with self._changed:
                    self._seconds.append(seconds)
                    self.over_seconds = seconds + duration
                    self._changed.notify_all()
            elif found := _TIME_BASE.search(line):
                time_base = Fraction(int(found[1]), int(found[2]))
            elif (found := _ERROR.search(line)) and not _SHOWINFO.match(line):
                self._num_errors += 1
                self.first_error = self.first_error or found[1].decode(errors="replace").strip()
        with self._changed:
            self._is_over = True
            self._changed.notify_all()


def _probe(path: Path, limits: DecoderLimits) -> tuple[Probe, int, int]:
    """The probe, and the width and height at which the picture is shown upright."""
    with open_container(path) as container:
        stream = video_stream(container)
        check_picture_size(stream.codec_context.width, stream.codec_context.height, limits)
        frame = next(container.decode(stream), None)
        if frame is None:
            raise DecodeError("no frame could be decoded")
        seconds = float((frame.pts or 0) * (stream.time_base or 0))
        found = probe(stream, frame, first_pts_seconds=seconds)
        width, height = max(1, round(frame.width * pixel_ratio(stream))), frame.height
    if found.rotation_degrees in (90, 270):
        width, height = height, width
    return found, width, height


def _as_is(picture: np.ndarray) -> Picture:
    return lambda: picture
