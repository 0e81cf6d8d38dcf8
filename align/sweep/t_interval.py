"""Student's t distribution: intervals and p-values of means over a few seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

GRID = 20_001
"""Points of the integral; the quantiles agree with published tables to all their digits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeanOfSeeds:
    """A mean over n seeds."""

    mean: float
    low: float
    """Lower end of the interval; NaN for one seed, which says nothing of others."""
    high: float
    """Upper end; NaN for one seed."""
    p_value: float
    """Two-sided, of the mean being 0; NaN for one seed."""


def mean_of_seeds(values: Sequence[float]) -> MeanOfSeeds:
    """The mean with Student's 95 % interval, assuming that seeds draw normally."""
    mean, num = float(np.mean(values)), len(values)
    if num < 2:
        return MeanOfSeeds(mean=mean, low=math.nan, high=math.nan, p_value=math.nan)
    error = float(np.std(values, ddof=1)) / math.sqrt(num)
    half = t_quantile(0.95, degrees=num - 1) * error
    if error > 0:
        p_value = 1 - central_probability(abs(mean) / error, degrees=num - 1)
    else:
        p_value = 1.0 if mean == 0 else 0.0
    return MeanOfSeeds(mean=mean, low=mean - half, high=mean + half, p_value=p_value)


def central_probability(t: float, *, degrees: int) -> float:
    """P(-t < T < t). With T = sqrt(degrees) tan(angle) the density is cos(angle)^(degrees - 1)."""
    angles, running = _running_integral(degrees)
    return float(np.interp(math.atan(t / math.sqrt(degrees)), angles, running))


def t_quantile(share: float, *, degrees: int) -> float:
    """The t with P(-t < T < t) = share."""
    angles, running = _running_integral(degrees)
    return math.sqrt(degrees) * math.tan(float(np.interp(share, running, angles)))


def _running_integral(degrees: int) -> tuple[np.ndarray, np.ndarray]:
    """Angles from 0 to a right one, and the share of the distribution within each of them."""
    angles = np.linspace(0, math.pi / 2, GRID)
    density = np.cos(angles) ** (degrees - 1)
    density[-1] = 1.0 if degrees == 1 else 0.0
    running = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return angles, running / running[-1]
