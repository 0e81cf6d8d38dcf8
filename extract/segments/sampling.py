"""Which frame is shown at which instant: the last one whose presentation time has come.

Times are exact fractions here: whether a frame that comes up at 1.7 s is on the screen at 1.3 + 0.4
s must not hang on how floats round.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, TypeVar

Picture = TypeVar("Picture")


def exact(seconds: float) -> Fraction:
    """The number as it is written: 1.3 is 13/10, not the nearest binary fraction."""
    return Fraction(repr(float(seconds)))


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which frames of a clip are taken."""

    fps: float = 1.0
    """What is shown at k / fps; counts when there is no rule."""
    rule: str | None = None
    """frames:N (spread evenly over the clip), every-frame, or keyframes."""

    def __post_init__(self) -> None:
        if not 0 < self.fps <= 1000:
            raise ValueError(f"fps must be > 0 and <= 1000, got {self.fps}")
        if self.rule not in (None, "every-frame", "keyframes") and not self.count:
            raise ValueError(
                f"unknown sampling {self.rule!r}; it is frames:N (N from 1 to 100000), "
                "every-frame or keyframes"
            )

    @property
    def count(self) -> int | None:
        """N of the rule frames:N."""
        kind, _, number = (self.rule or "").partition(":")
        if kind != "frames" or not (number.isascii() and number.isdecimal()):
            return None
        return int(number) if 1 <= int(number) <= 100_000 else None


@dataclass(frozen=True, slots=True)
class Timed(Generic[Picture]):
    """A decoded frame with the time it is on the screen, in seconds from the video's first
    frame."""

    seconds: Fraction
    duration_seconds: Fraction
    picture: Picture
    is_key: bool = False
    """Whether it can be decoded without any other."""


@dataclass(frozen=True, slots=True)
class Sample(Generic[Picture]):
    """What is shown at one instant; both times in seconds from the clip's start."""

    sample_seconds: float
    """The instant that was asked for."""
    seconds: float
    """When the frame that is shown then came up; negative when that was before the clip began."""
    picture: Picture


def choose(
    frames: Iterable[Timed[Picture]],
    sampling: Sampling,
    *,
    over: Callable[[], Fraction],
    start: float,
    end: float | None,
) -> Iterator[Sample[Picture]]:
    """The samples of the span [start, end) of a video.

    over: tells when the video's last frame leaves the screen; asked only where that is needed.
    """
    if sampling.count is not None:
        yield from spread(frames, count=sampling.count, over=over(), start=start, end=end)
    elif sampling.rule is not None:
        yield from each(frames, only_keys=sampling.rule == "keyframes", start=start, end=end)
    else:
        yield from samples(frames, fps=sampling.fps, start=start, end=end)


def samples(
    frames: Iterable[Timed[Picture]], *, fps: float, start: float = 0.0, end: float | None = None
) -> Iterator[Sample[Picture]]:
    """What is shown at start + k / fps, k = 0, 1, ..., before `end` and while there is a frame.

    frames come in the order they are shown. The last one is shown for its own duration. A clip that
    is shorter than 1 / fps gives one sample; one that starts after the last frame gives none.

    frames   |a  |b |c         |d |       at 1 per second
    instants 0     1     2     3     4    ->  a  b  c  c (d begins after 3)
    """
    step = 1 / exact(fps)
    return _shown_at(frames, (k * step for k in itertools.count()), start=start, end=end)


def spread(
    frames: Iterable[Timed[Picture]],
    *,
    count: int,
    over: Fraction,
    start: float = 0.0,
    end: float | None = None,
) -> Iterator[Sample[Picture]]:
    """What is shown in the middle of each of `count` equal parts of the clip.

    over: when the video's last frame leaves the screen. A clip of fewer frames gives some of them
    several times.

    duration 8, count 4  ->  |-x-|-x-|-x-|-x-|   1, 3, 5, 7
    """
    over = over if end is None else min(over, exact(end))
    step = (over - exact(start)) / count
    return _shown_at(frames, (k * step + step / 2 for k in range(count)), start=start, end=end)


def each(
    frames: Iterable[Timed[Picture]],
    *,
    only_keys: bool,
    start: float = 0.0,
    end: float | None = None,
) -> Iterator[Sample[Picture]]:
    """Every frame (or key frame) that comes up in the clip, at its own time.

    Of all frames, also the one that is on the screen when the clip starts, as its first sample. A
    clip without a key frame gives that one, too.
    """
    begin, limit = exact(start), None if end is None else exact(end)
    on_screen: Timed[Picture] | None = None
    has_given = False
    for frame in frames:
        if limit is not None and frame.seconds >= limit:
            break
        if frame.seconds <= begin:
            on_screen = frame
            continue
        if not has_given and on_screen is not None:
            if not only_keys or (on_screen.is_key and on_screen.seconds == begin):
                yield Sample(0.0, float(on_screen.seconds - begin), on_screen.picture)
                has_given = True
        if frame.is_key or not only_keys:
            seconds = float(frame.seconds - begin)
            yield Sample(seconds, seconds, frame.picture)
            has_given = True
    if not has_given and on_screen is not None:
        if begin < on_screen.seconds + on_screen.duration_seconds or on_screen.seconds == begin:
            yield Sample(0.0, float(on_screen.seconds - begin), on_screen.picture)


def _shown_at(
    frames: Iterable[Timed[Picture]],
    instants: Iterator[Fraction],
    *,
    start: float,
    end: float | None,
) -> Iterator[Sample[Picture]]:
    """What is shown at `start` plus each of the instants, which increase."""
    begin = exact(start)
    limit = None if end is None else exact(end)
    due = next(instants, None)
    is_first = True
    shown: Timed[Picture] | None = None
    for frame in frames:
        while shown is not None and due is not None and begin + due < frame.seconds:
            if limit is not None and begin + due >= limit:
                return
            yield Sample(float(due), float(shown.seconds - begin), shown.picture)
            due, is_first = next(instants, None), False
        if due is None:
            return
        shown = frame
    if shown is None:
        return
    over = shown.seconds + shown.duration_seconds
    if limit is not None:
        over = min(over, limit)
    while due is not None and (begin + due < over or (is_first and begin <= shown.seconds)):
        yield Sample(float(due), float(shown.seconds - begin), shown.picture)
        due, is_first = next(instants, None), False
