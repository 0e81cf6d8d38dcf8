"""How a clip is cut into segments: rules by name, spans in seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Span = tuple[float, float]
"""Seconds from the clip's start, [start, end)."""
Rule = Callable[[float, Sequence[Span]], list[Span]]
"""(duration of the clip in seconds, spans of its texts) -> spans, by start; at least one."""

_KNOWN = "rules are uniform:N, fixed:SECONDS and spans"


def parse_rule(name: str) -> Rule:
    """The rule that a name stands for. Raises ValueError for a name that stands for none."""
    kind, colon, argument = name.partition(":")
    if name == "spans":
        return text_spans
    if kind == "uniform" and colon:
        if not argument.isdecimal() or not 1 <= int(argument) <= 10_000:
            raise ValueError(
                f"segments {name!r}: N must be a whole number from 1 to 10000; {_KNOWN}"
            )
        count = int(argument)
        return lambda duration, spans: uniform(duration, count=count)
    if kind == "fixed" and colon:
        try:
            seconds = float(argument)
        except ValueError:
            seconds = 0.0
        if not 0.01 <= seconds < float("inf"):
            raise ValueError(f"segments {name!r}: SECONDS must be a number >= 0.01; {_KNOWN}")
        return lambda duration, spans: fixed(duration, seconds=seconds)
    raise ValueError(f"unknown segments {name!r}; {_KNOWN}")


def uniform(duration: float, *, count: int) -> list[Span]:
    """`count` spans of equal length that tile [0, duration).

    duration 9, count 3  ->  |--|--|--|   [0, 3) [3, 6) [6, 9)
    """
    edges = [duration * i / count for i in range(count + 1)]
    return list(zip(edges[:-1], edges[1:], strict=True))


def fixed(duration: float, *, seconds: float) -> list[Span]:
    """Spans of `seconds` that tile [0, duration); the last one may be shorter.

    duration 10, seconds 4  ->  |---|---|-|   [0, 4) [4, 8) [8, 10)
    """
    spans: list[Span] = []
    while not spans or spans[-1][1] < duration:
        start = len(spans) * seconds
        spans.append((start, min(start + seconds, max(duration, start))))
    return spans


def text_spans(duration: float, spans: Sequence[Span]) -> list[Span]:
    """The different spans of the clip's texts, by start; the whole clip when it has none."""
    return sorted(set(spans)) or [(0.0, duration)]
