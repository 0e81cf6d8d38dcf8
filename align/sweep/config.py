"""A sweep as a YAML file: which settings, which seeds, and the members that follow from them."""

from __future__ import annotations

import itertools
import math
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...data_manifests.core.errors import SettingsError
from ...data_manifests.core.settings import load_settings, settings_of
from ..config import RunConfig, ValidationMetric

METRICS = tuple(name for name in typing.get_args(ValidationMetric) if name != "mean")
"""What a validation may measure."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedSettings:
    """One row of a sweep that is written out."""

    name: str
    """Of the row, and the beginning of its run folders."""
    set: Mapping[str, Any] = field(default_factory=dict)
    """Dotted setting to value, on top of the base."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepConfig:
    """Which runs a sweep has: every combination of the grid, or the rows, each with every seed."""

    base: Mapping[str, Any] = field(default_factory=dict)
    """Settings of all runs, as in a run's config file."""
    grid: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Dotted setting to the values that it takes; every combination is a row."""
    rows: tuple[NamedSettings, ...] = ()
    """Or the rows themselves."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each row is trained with each."""
    baseline: str | None = None
    """Name of the row that the others are compared with; null: the first."""
    metric: str | None = None
    """Of the validation split, which orders the leaderboard; null: the first that all rows have."""

    def __post_init__(self) -> None:
        faults = []
        if bool(self.grid) == bool(self.rows):
            faults.append("expected either a grid or rows")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            faults.append(f"seeds must be different numbers, at least one, got {list(self.seeds)}")
        faults += [f"grid.{name} has no values" for name, own in self.grid.items() if not own]
        if not faults and len(_rows(self)) < math.prod(map(len, self.grid.values())):
            faults.append("two rows of the grid would be called alike: a value is there twice")
        if self.metric is not None and self.metric not in METRICS:
            faults.append(f"metric must be one of {', '.join(METRICS)}, got {self.metric!r}")
        names = [row.name for row in self.rows]
        faults += [f"the row {n!r} is there twice" for n in sorted({*names}) if names.count(n) > 1]
        faults += [
            f"a row's name is part of a folder's: letters, digits and . = + - _ only, got {name!r}"
            for name in names
            if not re.fullmatch(r"[\w.=+-]{1,150}", name) or name.startswith(".")
        ]
        if faults:
            raise ValueError("; ".join(faults))


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One run of a sweep."""

    row: str
    """Name of its row."""
    config: RunConfig
    """Resolved."""

    @property
    def folder(self) -> str:
        """Of the run: ROW-seedN."""
        return f"{self.row}-seed{self.config.seed}"


def load_sweep(path: Path) -> tuple[SweepConfig, list[Member]]:
    """The sweep of a YAML file, and its members by row and seed.

    Raises SettingsError with everything that is wrong, in the settings of any member too.
    """
    sweep = load_settings(SweepConfig, path)
    members, faults = [], []
    for name, values in _rows(sweep).items():
        for seed in sweep.seeds:
            try:
                config = settings_of(
                    RunConfig,
                    _merged(sweep.base, {**values, "seed": seed}),
                    source=f"the row {name!r} of {path}",
                )
            except SettingsError as error:
                faults.append(str(error))
                break  # the other seeds have the same faults
            members.append(Member(row=name, config=config))
    if sweep.baseline is not None and sweep.baseline not in _rows(sweep):
        names = ", ".join(_rows(sweep))
        faults.append(f"{path}: no row is called {sweep.baseline!r}; the rows are {names}")
    if faults:
        raise SettingsError("\n".join(faults))
    return sweep, members


def _rows(sweep: SweepConfig) -> dict[str, Mapping[str, Any]]:
    """Name of each row to its own settings."""
    if sweep.rows:
        return {row.name: row.set for row in sweep.rows}
    short = {name: name.rpartition(".")[2] for name in sweep.grid}
    words = list(short.values())
    labels = {name: label if words.count(label) == 1 else name for name, label in short.items()}
    rows: dict[str, Mapping[str, Any]] = {}
    for values in itertools.product(*sweep.grid.values()):
        chosen = dict(zip(sweep.grid, values, strict=True))
        parts = [f"{labels[name]}={_word(value)}" for name, value in chosen.items()]
        rows["+".join(parts)] = chosen
    return rows


def _word(value: Any) -> str:
    """A value as part of a folder's name."""
    text = "null" if value is None else str(value)
    return re.sub(r"[^\w.-]+", "_", text.lower() if isinstance(value, bool) else text)


def _merged(base: Mapping[str, Any], dotted: Mapping[str, Any]) -> dict[str, Any]:
    """The base with the dotted settings in their places; neither is changed."""
    tree = {name: _copied(value) for name, value in base.items()}
    for name, value in dotted.items():
        *groups, leaf = name.split(".")
        place = tree
        for group in groups:
            below = place.get(group)
            place[group] = below if isinstance(below, dict) else {}
            place = place[group]
        place[leaf] = value
    return tree


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _copied(item) for name, item in value.items()}
    return value
