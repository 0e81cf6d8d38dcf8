"""Decoding through the ffmpeg program and ffmpeg-python: the frames of PyAV, out of a pipe.

The program chooses the frames (its fps filter, rounding up, emits what is shown at k / fps)
and tells on its error stream, in this order, when each decoded frame comes up and which instant
it emits a picture for: that gives the true times.
"""

from __future__ import annotations

import math
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO

import ffmpeg
import numpy as np

from ...data_manifests.core.ffmpeg_program import ffmpeg_program
from ...data_manifests.core.file_names import name_text, text_name
from ..config import DecoderLimits, HardwareName
from ..segments.sampling import Sample, exact
from .completeness import Extent, read_extent, shortfall
from .container import (
    LibavErrors,
    decoded_frames,
    open_container,
    reason_of,
    seconds_per_frame,
    time_base,
    video_stream,
)
from .ffmpeg_log import FRAMES, INSTANTS, FfmpegLog, StallGuard
from .protocol import (
    DEMUXERS,
    PROTOCOLS,
    DecodeError,
    DecodeResult,
    Heartbeat,
    Picture,
    Probe,
    check_picture_size,
    no_heartbeat,
    resized,
)
from .pyav import pixel_ratio, probe, shown_size


class FfmpegDecoder:
    """See `protocol.Decoder`. Probing goes through PyAV, which needs no program."""

    def __init__(
        self,
        path: Path,
        *,
        fps: float,
        start: float,
        end: float | None,
        limits: DecoderLimits,
        hwaccel: HardwareName | None = None,
        heartbeat: Heartbeat = no_heartbeat,
    ) -> None:
        self._path = path
        self._hwaccel = hwaccel
        self._heartbeat = heartbeat
        self._fps = fps
        self._start = start
        self._end = end
        self._limits = limits
        self._probe: Probe | None = None
        self._extent: Extent | None = None
        self._log: FfmpegLog | None = None
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
        guard = StallGuard(process, stall_seconds=self._limits.stall_seconds)

        def heartbeat() -> None:
            guard.progress()
            self._heartbeat()

        try:
            self._log = FfmpegLog(
                process.stderr,
                gap=source.gap,
                start=self._start,
                fps=self._fps,
                heartbeat=heartbeat,
            )
            yield from self._samples(process.stdout, source, guard)
            if self._is_over:
                with guard.waiting():
                    process.wait()
            if guard.has_fired:
                raise DecodeError(
                    f"the ffmpeg program made no progress for {self._limits.stall_seconds:g} s "
                    "and was ended"
                )
            if self._is_over and process.returncode != 0:  # it prints nothing when it is killed
                self._log.note(f"the program ended with exit code {process.returncode}")
        finally:
            process.kill()
            process.stdout.close()
            process.wait()
            guard.close()
            if self._log is not None:
                self._log.close()

    def result(self) -> DecodeResult:
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
        return DecodeResult(
            probe=self._probe, duration_seconds=float(max(over, Fraction(0))), problem=problem
        )

    def _samples(
        self, pipe: IO[bytes], source: _Source, guard: StallGuard
    ) -> Iterator[Sample[Picture]]:
        assert self._log is not None
        step, end = 1 / exact(self._fps), None
        if self._end is not None:
            end = exact(self._end) - exact(self._start)
        shape = source.stored_height, source.stored_width, 3
        size = math.prod(shape)
        picture: np.ndarray | None = None
        k = 0
        while end is None or k * step < end:
            with guard.waiting():
                content = pipe.read(size)
                self._is_over = len(content) < size
                if not self._is_over:
                    picture = np.frombuffer(content, dtype=np.uint8).reshape(shape)
                shown = self._log.shown_at(k)
            if guard.has_fired or shown is None or picture is None:  # the last frame has gone
                break
            yield Sample(float(k * step), shown, _picture(picture, source))
            k += 1
        else:  # not asked for yet: by then every frame of the clip is in the log
            with guard.waiting():
                self._log.shown_at(k)
        if k == 0 and not guard.has_fired:
            raise DecodeError(self._no_sample())

    def _no_sample(self) -> str:
        assert self._log is not None
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
            .filter(FRAMES, checksum=0)
            # A finer clock, so that the clip's start is a whole number of ticks.
            .filter("settb", "if(gt(intb,1e-6),intb/1000,intb)")
            .filter("setpts", f"PTS-round({self._start!r}/TB)")
            .filter("fps", fps=self._fps, round="up", start_time=0)
            .filter(INSTANTS, checksum=0)
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
    libav_errors = LibavErrors()
    with open_container(path) as container:
        stream = video_stream(container)
        check_picture_size(stream.codec_context.width, stream.codec_context.height, limits)
        extent = read_extent(path, container, stream)
        frame = next(decoded_frames(container, stream, note=problems.append), None)
        if frame is None:
            reason = reason_of(problems[0]) if problems else libav_errors.last
            raise DecodeError(f"no frame could be decoded{reason and f': {reason}'}")
        first = frame.dts if container.format.name == "avi" else frame.pts
        seconds = float((first or 0) * time_base(stream))
        found = probe(stream, frame, first_pts_seconds=seconds)
        width, height = shown_size(frame, pixel_ratio(stream))
        check_picture_size(width, height, limits)
        gap = seconds_per_frame(stream)
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
