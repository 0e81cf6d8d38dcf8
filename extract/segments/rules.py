"""How a clip is cut into segments: rules by name, spans in seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Protocol

from .sampling import exact

Span = tuple[float, float]
"""Seconds from the clip's start, [start, end)."""

SHOTS: Final = "shots"
MAX_SEGMENTS: Final = 100_000
"""Of one clip by one rule. A video of 280 KB can claim to last for years."""

_KNOWN = "rules are uniform:N, fixed:SECONDS[:STRIDE], shots and spans"


class Rule(Protocol):
    """Cuts a clip: spans by start, at least one."""

    def __call__(
        self,
        duration_seconds: float,
        text_spans: Sequence[Span],
        shot_seconds: Sequence[float] = (),
        /,
    ) -> list[Span]:
        """text_spans: of the clip's texts. shot_seconds: where its second and later shots begin.

        Raises ValueError for more than MAX_SEGMENTS.
        """
        ...


def parse_rule(name: str) -> Rule:
    """The rule that a name stands for. Raises ValueError for a name that stands for none."""
    kind, colon, argument = name.partition(":")
    if name == "spans":
        return lambda duration, spans, shots=(): text_spans(duration, spans)
    if name == SHOTS:
        return lambda duration, spans, shots=(): shot_spans(duration, shots)
    if kind == "uniform" and colon:
        if not argument.isdecimal() or len(argument) > 5 or not 1 <= int(argument) <= 10_000:
            raise ValueError(
                f"segments {name!r}: N must be a whole number from 1 to 10000; {_KNOWN}"
            )
        count = int(argument)
        return lambda duration, spans, shots=(): uniform(duration, count=count)
    if kind == "fixed" and colon:
        length, colon, step = argument.partition(":")
        seconds = _seconds(name, "SECONDS", length)
        stride = _seconds(name, "STRIDE", step) if colon else None
        return lambda duration, spans, shots=(): fixed(duration, seconds=seconds, stride=stride)
    raise ValueError(f"unknown segments {name!r}; {_KNOWN}")


def _seconds(rule: str, what: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0.01 <= seconds < math.inf:
        raise ValueError(f"segments {rule!r}: {what} must be a number >= 0.01; {_KNOWN}")
    return seconds


def uniform(duration: float, *, count: int) -> list[Span]:
    """`count` spans of equal length that tile [0, duration).

    duration 9, count 3  ->  |--|--|--|   [0, 3) [3, 6) [6, 9)
    """
    edges = [duration * i / count for i in range(count + 1)]
    return list(zip(edges[:-1], edges[1:], strict=True))


def fixed(duration: float, *, seconds: float, stride: float | None = None) -> list[Span]:
    """Windows of `seconds` that begin every `stride` (None: every `seconds`, so that they tile).

    A window begins at 0, stride, 2 stride, ... until one reaches the clip's end; that one, or the
    last that begins before the end, is cut there and may be shorter.

    duration 10, seconds 4            ->  |---|---|-|   [0, 4) [4, 8) [8, 10)
    duration 10, seconds 4, stride 3  ->  |---|         [0, 4)
                                             |---|      [3, 7)
                                                |---|   [6, 10)
    duration 10, seconds 2, stride 4  ->  |-| |-| |-|   [0, 2) [4, 6) [8, 10)
    Raises ValueError for more than MAX_SEGMENTS.
    """
    length, step = exact(seconds), exact(seconds if stride is None else stride)
    # Floats: 9.9 / 3.3 is 3.0000000000000004, which must not make a fourth span.
    until_one_reaches = 1 + math.ceil(round((duration - seconds) / float(step), 6))
    before_the_end = math.ceil(round(duration / float(step), 6))
    count = max(1, min(until_one_reaches, before_the_end))
    if count > MAX_SEGMENTS:
        raise ValueError(f"more than {MAX_SEGMENTS} segments in {duration:g} s")
    spans = [(float(k * step), float(k * step + length)) for k in range(count)]
    reaches = count == until_one_reaches or spans[-1][1] > duration
    spans[-1] = (spans[-1][0], duration if reaches else spans[-1][1])
    return spans


def text_spans(duration: float, spans: Sequence[Span]) -> list[Span]:
    """The different spans of the clip's texts, by start; the whole clip when it has none."""
    return sorted(set(spans)) or [(0.0, duration)]


def shot_spans(duration: float, shot_seconds: Sequence[float]) -> list[Span]:
    """From cut to cut; the whole clip when it has none.

    shot_seconds: where the second, third ... shot begins, increasing, in (0, duration).
    """
    edges = [0.0, *shot_seconds, duration]
    return list(zip(edges[:-1], edges[1:], strict=True))
