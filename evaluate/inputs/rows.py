"""The rows of the table: zero-shot, and the runs, those that differ only in the seed together."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...align.loss_config import GlobalFrom
from ...align.runs.checkpoint import Run
from ...data_manifests.core.errors import UserError
from ...data_manifests.core.settings import settings_dict
from ...extract.cache.store import FeatureStore

ZERO_SHOT: Final = "zero-shot"
ZERO_SHOT_POOLED: Final = "zero-shot (pooled)"
"""Beside ZERO_SHOT, where some runs make the global level from parts and others do not."""
IGNORED_SETTINGS: Final = ("seed", "device")
"""Settings of a run that do not set it apart from its neighbours."""
KEY_CHARACTERS: Final = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    """What it is called; unique."""
    runs: tuple[Run, ...]
    """One per seed, by seed; empty for zero-shot."""
    zero_shot: GlobalFrom = "parts"
    """Of a row without runs, how its global level is made."""


def table_rows(runs: Sequence[Run], *, has_zero_shot: bool = True) -> list[Row]:
    """Zero-shot first (where there is one), then the runs' rows in the order given.

    The global level of zero-shot is made as that of the runs (`levels.global_from`), in a row for
    each way that they have.

    A row is named after its first run's folder, less the seed ("both-seed0", "both_s0" and
    "both/seed0" are "both"); rows that would share a name take the parent folder's name before it.
    Raises UserError for runs that are the same but for their folder.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(_settings_key(run), []).append(run)
    short = {key: _row_name(group[0].path, parents=0) for key, group in groups.items()}
    taken = [ZERO_SHOT, *short.values()]
    rows = _zero_shot_rows(runs) if has_zero_shot else []
    for key, group in groups.items():
        by_seed = sorted(group, key=lambda run: run.config.seed)
        for first, second in zip(by_seed, by_seed[1:], strict=False):
            if first.config.seed == second.config.seed:
                raise UserError(
                    f"{first.path} and {second.path} have the same settings and the same seed "
                    f"({first.config.seed}): give only one of them"
                )
        name = short[key]
        if taken.count(name) > 1:
            name = _row_name(group[0].path, parents=1)
        if name in [row.name for row in rows]:
            raise UserError(
                f"two rows would be called {name!r} (the second begins with {group[0].path}): "
                f"rename a run folder"
            )
        rows.append(Row(name=name, runs=tuple(by_seed)))
    return rows


def _zero_shot_rows(runs: Sequence[Run]) -> list[Row]:
    made_from = {run.config.levels.global_from for run in runs} or {"parts"}
    if len(made_from) == 1:
        return [Row(name=ZERO_SHOT, runs=(), zero_shot=made_from.pop())]
    return [
        Row(name=ZERO_SHOT, runs=(), zero_shot="parts"),
        Row(name=ZERO_SHOT_POOLED, runs=(), zero_shot="pooled"),
    ]


def check_cache_keys(runs: Sequence[Run], store: FeatureStore) -> None:
    """Raise UserError when a run was trained on the features of another cache."""
    for run in runs:
        if run.cache_key != store.key:
            raise UserError(
                f"{run.path} was trained on a cache with key {run.cache_key[:KEY_CHARACTERS]}, but "
                f"{store.path} has key {store.key[:KEY_CHARACTERS]}: evaluate it on the cache it "
                f"was trained on, or train it again on this one"
            )


def check_baseline(baseline: str, rows: Sequence[Row]) -> None:
    """Raise UserError when no row has the baseline's name."""
    names = [row.name for row in rows]
    if baseline not in names:
        raise UserError(f"no row is called {baseline!r}; the rows are {', '.join(names)}")


def _settings_key(run: Run) -> str:
    settings = settings_dict(run.config)
    kept = {name: settings[name] for name in settings if name not in IGNORED_SETTINGS}
    return json.dumps(kept, sort_keys=True)


def _row_name(path: Path, *, parents: int) -> str:
    parts = list(path.resolve().parts)
    name = re.sub(r"(^|[-_.])(seed|s)[-_]?\d+$", "", parts[-1])
    kept = [*parts[:-1], name] if name else parts[:-1]
    return "/".join(kept[-1 - parents :])
