"""Which frame is shown at which instant: the last one whose presentation time has come.

Times are exact fractions here: whether a frame that comes up at 1.7 s is on the screen at 1.3 + 0.4
s must not hang on how floats round.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, TypeVar

Picture = TypeVar("Picture")


def exact(seconds: float) -> Fraction:
    """The number as it is written: 1.3 is 13/10, not the nearest binary fraction."""
    return Fraction(repr(float(seconds)))


@dataclass(frozen=True, slots=True)
class Timed(Generic[Picture]):
    """A decoded frame with the time it is on the screen, in seconds from the video's first
    frame."""

    seconds: Fraction
    duration_seconds: Fraction
    picture: Picture


@dataclass(frozen=True, slots=True)
class Sample(Generic[Picture]):
    """What is shown at one instant; both times in seconds from the clip's start."""

    sample_seconds: float
    """The instant that was asked for, k / fps."""
    seconds: float
    """When the frame that is shown then came up; negative when that was before the clip began."""
    picture: Picture


def samples(
    frames: Iterable[Timed[Picture]], *, fps: float, start: float = 0.0, end: float | None = None
) -> Iterator[Sample[Picture]]:
    """What is shown at start + k / fps, k = 0, 1, ..., before `end` and while there is a frame.

    frames come in the order they are shown. The last one is shown for its own duration. A clip that
    is shorter than 1 / fps gives one sample; one that starts after the last frame gives none.

    frames   |a  |b |c         |d |       at 1 per second
    instants 0     1     2     3     4    ->  a  b  c  c (d begins after 3)
    """
    step, begin = 1 / exact(fps), exact(start)
    limit = None if end is None else exact(end)
    k = 0
    shown: Timed[Picture] | None = None

    def sample(frame: Timed[Picture]) -> Sample[Picture]:
        return Sample(float(k * step), float(frame.seconds - begin), frame.picture)

    for frame in frames:
        while shown is not None and begin + k * step < frame.seconds:
            if limit is not None and begin + k * step >= limit:
                return
            yield sample(shown)
            k += 1
        shown = frame
    if shown is None:
        return
    over = shown.seconds + shown.duration_seconds
    if limit is not None:
        over = min(over, limit)
    while begin + k * step < over or (k == 0 and begin <= shown.seconds):
        yield sample(shown)
        k += 1
