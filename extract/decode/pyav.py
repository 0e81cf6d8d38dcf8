"""Decoding through PyAV, in this process: one thread, frames by presentation time, rotation
applied."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Final, Literal, TypeVar

import av.error
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ..config import DecoderLimits
from ..segments.sampling import Sample, Sampling, Timed, choose, exact
from .completeness import Extent, read_extent, shortfall
from .container import (
    LibavErrors,
    as_fraction,
    decoded_frames,
    open_container,
    reason_of,
    ticks_per_frame,
    time_base,
    video_stream,
)
from .orientation import Orientation, Orientations, orientation_of
from .packet_plan import PlanFailed, decode_wanted, read_timeline
from .protocol import (
    DecodeError,
    DecodeResult,
    Heartbeat,
    Picture,
    Probe,
    check_picture_size,
    no_heartbeat,
    resized,
)

P = TypeVar("P")

HDR: Final[dict[int, Literal["pq", "hlg"]]] = {16: "pq", 18: "hlg"}
"""Transfer characteristics by their number in ITU-T H.273."""


class PyavDecoder:
    """See `protocol.Decoder`."""

    def __init__(
        self,
        path: Path,
        *,
        sampling: Sampling,
        start: float,
        end: float | None,
        limits: DecoderLimits,
        heartbeat: Heartbeat = no_heartbeat,
    ) -> None:
        self._path = path
        self._heartbeat = heartbeat
        self._sampling = sampling
        self._start = start
        self._end = end
        self._limits = limits
        self._probe: Probe | None = None
        self._over_seconds = Fraction(0)
        self._num_frames = 0
        self._num_errors = 0
        self._first_error = ""
        self._libav_errors = LibavErrors()
        self._orientations = Orientations()
        self._extent: Extent | None = None
        self._lost_seconds = Fraction(0)
        """Before _over_seconds, for which no frame came because of damage."""

    def __iter__(self) -> Iterator[Sample[Picture]]:
        num_given = 0
        try:
            for sample in self._planned():
                num_given += 1
                yield sample
        except PlanFailed:
            # What was given so far is what decoding everything gives.
            if self._sampling.count is None:  # else the samples hang on it
                self._over_seconds = Fraction(0)
            yield from itertools.islice(self._whole(), num_given, None)

    def _planned(self) -> Iterator[Sample[Picture]]:
        """Decode only what the samples need. Raises PlanFailed where that may not be right, and at
        the first sign of damage: what is lost shows when everything is decoded."""
        self._libav_errors = LibavErrors()
        only_keys = self._sampling.rule == "keyframes"
        if self._sampling.rule == "every-frame":
            raise PlanFailed  # there is nothing to leave out
        with open_container(self._path) as container:
            stream = video_stream(container)
            self._check_size(stream)
            self._extent = read_extent(self._path, container, stream)
            timeline = read_timeline(
                container, stream, only_keys=only_keys, heartbeat=self._heartbeat
            )
            tick, gap = time_base(stream), ticks_per_frame(stream)
        self._check_plan()
        shown = timeline.frames(tick, gap=gap)
        self._over_seconds = timeline.over(tick, gap=gap)
        chosen = list(itertools.islice(self._choose(shown), self._limits.max_samples + 1))
        self._check_start()
        first = int(timeline.pts[timeline.is_shown].min())
        wanted = sorted({first, *(sample.picture for sample in chosen)})
        with open_container(self._path) as container:
            stream = video_stream(container)
            ratio = pixel_ratio(stream)
            frames = decode_wanted(
                container,
                stream,
                timeline,
                wanted,
                note=self._check_plan,
                heartbeat=self._heartbeat,
            )
            frame = self._checked(next(frames), ratio)
            self._probe = probe(stream, frame, first_pts_seconds=float(first * tick))
            for sample in chosen:
                while frame.pts != sample.picture:
                    frame = self._checked(next(frames), ratio)
                self._check_plan()
                yield Sample(
                    sample.sample_seconds,
                    sample.seconds,
                    _picture(frame, ratio, self._orientations.of(frame)),
                )
        self._check_plan()

    def _check_plan(self, error: av.error.FFmpegError | str | None = None) -> None:
        if error is not None or self._libav_errors.num:
            raise PlanFailed

    def _whole(self) -> Iterator[Sample[Picture]]:
        """Decode every frame up to the clip's end."""
        self._libav_errors = LibavErrors()
        with open_container(self._path) as container:
            stream = video_stream(container)
            self._check_size(stream)
            self._extent = read_extent(self._path, container, stream)
            yield from self._choose(self._timed(container, stream))
        if self._num_frames == 0:
            raise DecodeError(f"no frame could be decoded{self._because()}")
        self._check_start()

    def _choose(self, frames: Iterable[Timed[P]]) -> Iterator[Sample[P]]:
        return choose(frames, self._sampling, over=self._over, start=self._start, end=self._end)

    def _over(self) -> Fraction:
        """When the video ends. Where its container does not tell, all of it is decoded for that."""
        if not self._over_seconds:
            with open_container(self._path) as container:
                for _ in self._timed(container, video_stream(container)):
                    pass
            # The decoding that follows counts its own.
            self._num_frames = self._num_errors = 0
            self._lost_seconds, self._libav_errors = Fraction(0), LibavErrors()
        return self._over_seconds

    def _check_size(self, stream: VideoStream) -> None:
        decoder = stream.codec_context
        check_picture_size(decoder.width, decoder.height, self._limits)

    def _checked(self, frame: VideoFrame, ratio: Fraction) -> VideoFrame:
        check_picture_size(*shown_size(frame, ratio), self._limits)
        return frame

    def _check_start(self) -> None:
        if self._over_seconds <= exact(self._start):
            raise DecodeError(
                f"the clip starts at {self._start:g} s, "
                f"the video ends at {float(self._over_seconds):g} s"
            )

    def result(self) -> DecodeResult:
        assert self._probe is not None, "asked before the iteration was over"
        over = self._over_seconds
        if self._end is not None:
            over = min(exact(self._end), over)
        assert self._extent is not None
        problem = shortfall(
            self._extent,
            self._damage(),
            over=self._over_seconds,
            lost=self._lost_seconds,
            start=exact(self._start),
            end=None if self._end is None else exact(self._end),
        )
        return DecodeResult(
            probe=self._probe,
            duration_seconds=float(max(over - exact(self._start), Fraction(0))),
            problem=problem,
        )

    def _damage(self) -> str | None:
        if self._num_errors:
            return f"{self._num_errors} damaged packets or frames{self._because()}"
        if self._libav_errors.num:
            return f"damaged: {self._libav_errors.last}"
        return None

    def _timed(self, container: InputContainer, stream: VideoStream) -> Iterator[Timed[Picture]]:
        """Every frame with its time from the first one; stops after the clip's end."""
        tick, gap = time_base(stream), ticks_per_frame(stream)
        ratio = pixel_ratio(stream)
        first: int | None = None
        shift = last = 0
        num_known = 0
        for frame in decoded_frames(container, stream, note=self._note):
            self._heartbeat()
            self._checked(frame, ratio)
            # AVI has no presentation times: the ones made up for it are wrong with B-frames.
            ticks = frame.dts if container.format.name == "avi" else frame.pts
            if ticks is None:
                ticks = 0 if first is None else last - shift + round(gap)
            if first is None:
                first = last = ticks
                self._probe = probe(stream, frame, first_pts_seconds=float(ticks * tick))
            elif ticks + shift < last:
                # A clock that was set back (joined recordings): go on where it stopped.
                shift = last + round(gap) - ticks
            last = ticks + shift
            seconds = (last - first) * tick
            num_faults = self._num_errors + self._libav_errors.num
            if num_faults > num_known and self._num_frames:
                self._lost_seconds += max(seconds - self._over_seconds, Fraction(0))
            num_known = num_faults
            duration = (frame.duration or gap) * tick
            self._num_frames += 1
            self._over_seconds = max(self._over_seconds, seconds + duration)
            yield Timed(
                seconds,
                duration,
                _picture(frame, ratio, self._orientations.of(frame)),
                is_key=bool(frame.key_frame),
            )
            if self._end is not None and seconds >= self._end:
                return

    def _note(self, error: av.error.FFmpegError | str) -> None:
        self._num_errors += 1
        self._first_error = self._first_error or reason_of(error)

    def _because(self) -> str:
        reason = self._first_error or self._libav_errors.last
        return f": {reason}" if reason else ""


def probe(stream: VideoStream, frame: VideoFrame, *, first_pts_seconds: float) -> Probe:
    """What the stream and its first frame say."""
    fps = as_fraction(stream.average_rate, default=Fraction(0))
    return Probe(
        stream_index=stream.index,
        codec=stream.codec_context.name,
        pixel_format=frame.format.name,
        width=frame.width,
        height=frame.height,
        fps=float(fps) or None,
        rotation_degrees=orientation_of(frame).rotation_degrees,
        first_pts_seconds=first_pts_seconds,
        hdr=HDR.get(int(frame.color_trc)),
    )


def pixel_ratio(stream: VideoStream) -> Fraction:
    """Width to height of one pixel as it is meant to be shown."""
    return as_fraction(stream.sample_aspect_ratio, default=Fraction(1))


def shown_size(frame: VideoFrame, ratio: Fraction) -> tuple[int, int]:
    """Width and height, before rotation, at which the frame's pixels are square."""
    return max(1, round(frame.width * ratio)), frame.height


def _picture(frame: VideoFrame, ratio: Fraction, orientation: Orientation) -> Picture:
    """The picture is widened by `ratio`, so that its pixels are square, and stands upright."""

    def convert() -> np.ndarray:
        try:
            # The interpolation of colours that are stored at half the resolution. Left to itself,
            # swscale starts a thread per core for each picture.
            rgb = frame.reformat(format="rgb24", interpolation="BICUBIC", threads=1).to_ndarray()
        except av.error.MemoryError:
            raise
        except (av.error.FFmpegError, ValueError) as error:
            raise DecodeError(f"a picture cannot be converted: {reason_of(error)}") from error
        square = resized(rgb, *shown_size(frame, ratio))
        return orientation.upright(square)

    return convert
