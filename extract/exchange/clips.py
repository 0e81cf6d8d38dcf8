"""A clip out of another tool's features: rows checked, timed and cut, or the reason why not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np

from ..decode.clip_reader import Chunk, ClipEnd, ClipFailure
from ..decode.protocol import DecodeResult
from ..encode.clip_shard import Clip
from ..segments.cutting import frame_rows
from .keys import ClipKey
from .sources import FeatureError, FeatureSource

TOLERANCE: Final = 0.2
"""Share of a clip's duration by which its features may miss it, beside one feature's time: tools
round, and drop what does not fill a window. More speaks of a wrong rate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Timed:
    """The features of one clip."""

    values: np.ndarray
    """(n, D), n >= 1, finite."""
    sample_seconds: np.ndarray
    """(n,) float64, increasing, from the clip's start."""
    seconds: np.ndarray
    """(n,) float64; before 0 where the row's time begins before the clip."""
    duration_seconds: float
    problem: str | None


def fill(
    clip: Clip,
    source: FeatureSource,
    key: ClipKey | None,
    *,
    period: Fraction,
    width: int,
    dtype: str,
) -> None:
    """Give a clip its features, times and end; a failure with the reason where there are none.

    key: None where no features were found. period: seconds from one row to the next.
    """
    if key is None:
        reason = f"no features of it among the {len(source.files)} of the source"
        clip.end = ClipFailure(reason=reason, stage="open")
        return
    try:
        stored = source.read(key.key)
        values = checked_rows(stored.values, width=width)
        timed = _timed(values, clip.item.row, period=period, is_video=key.is_whole_video)
    except FeatureError as error:
        clip.end = ClipFailure(reason=f"the features {key.key!r}: {error}", stage="decode")
        return
    with np.errstate(over="ignore"):  # an overflow fails the clip, with its reason
        rows = timed.values.astype(dtype)
    for row in rows:
        clip.add_feature(row)
    clip.num_pictures = len(rows)
    clip.samples.append(
        Chunk(
            pictures=np.empty((0, 0, 0, 3), np.uint8),
            sample_seconds=timed.sample_seconds,
            seconds=timed.seconds,
            picture_index=np.arange(len(rows)),
        )
    )
    result = DecodeResult(
        probe=None, duration_seconds=timed.duration_seconds, problem=timed.problem
    )
    clip.end = ClipEnd(result=result, source_sha256=stored.sha256)


def checked_rows(values: np.ndarray, *, width: int | None) -> np.ndarray:
    """The same, when it is (n, width) with n >= 1 and finite. Raises FeatureError."""
    wanted = "width" if width is None else width
    if values.ndim != 2 or (width is not None and values.shape[1] != width):
        raise FeatureError(f"expected the shape (rows, {wanted}), got {values.shape}")
    if 0 in values.shape:
        raise FeatureError(f"has no values: its shape is {values.shape}")
    if num_bad := int((~np.isfinite(values)).sum()):
        raise FeatureError(f"{num_bad} of {values.size} values are NaN or infinite")
    return values


def _timed(
    values: np.ndarray, row: Mapping[str, Any], *, period: Fraction, is_video: bool
) -> _Timed:
    """Row k speaks of [k period, (k + 1) period) of the clip, or of its video, from which the clip
    is then cut. Raises FeatureError when the rate cannot be right."""
    # As k / fps of extraction: the quotient of two whole numbers, rounded once.
    seconds = np.arange(len(values)) * period.numerator / period.denominator
    covered = float(len(values) * period)
    start, end = row["start_seconds"] or 0.0, row["end_seconds"]
    if is_video and (start or end is not None):
        if start >= covered:
            raise FeatureError(
                f"they last for {covered:g} s of the video, the clip begins at {start:g} s: is the "
                "rate right?"
            )
        stop = covered if end is None else end
        (place,) = frame_rows(seconds, [(start, stop)])
        values, seconds = values[place], seconds[place] - start
        covered = min(covered, stop) - start
    duration = covered if end is None else end - start
    slack = TOLERANCE * duration + float(period)
    lengths = f"{len(values)} rows last for {covered:g} s, the clip for {duration:g} s"
    if covered > duration + slack:
        raise FeatureError(f"{lengths}: is the rate right?")
    return _Timed(
        values=values,
        sample_seconds=np.maximum(seconds, 0.0),
        seconds=seconds,
        duration_seconds=duration,
        problem=None if covered >= duration - slack else lengths,
    )
