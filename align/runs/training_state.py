"""The state of a training between two epochs, on disk: a killed run goes on from there."""

from __future__ import annotations

import difflib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import yaml

from ...data_manifests.core.atomic_write import atomic_write
from ...data_manifests.core.settings import settings_dict
from ..config import RunConfig
from .checkpoint import CONFIG_FILE, METRICS_FILE, RunError

STATE_FILE: Final = "state.pt"
FORMAT: Final = 1
SAVE_EVERY_SECONDS: Final = 10.0
"""Between two savings of the state, so that short epochs do not spend their time on it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedState:
    """What a training needs to go on as if it had never stopped."""

    training: Mapping[str, Any]
    """Of `Training.state`: tensors, numbers, and dicts of these."""
    cache_key: str
    """Of the cache that it is trained on."""
    metrics_bytes: int
    """Length of the metrics file at that moment; what follows is of the epoch that was cut off."""
    wall_seconds: float
    """That the training took up to that moment."""


class SavingClock:
    """Says when the state of a training is to be saved."""

    def __init__(self) -> None:
        self.restart()

    def is_due(self) -> bool:
        """Whether it was long enough ago that this was made or restarted."""
        return time.monotonic() - self._since >= SAVE_EVERY_SECONDS

    def restart(self) -> None:
        """A state was saved."""
        self._since = time.monotonic()


def save_state(run: Path, state: SavedState) -> None:
    """Write the state into the run folder, whole or not at all."""
    content = {
        "format": FORMAT,
        "training": dict(state.training),
        "cache_key": state.cache_key,
        "metrics_bytes": state.metrics_bytes,
        "wall_seconds": state.wall_seconds,
    }
    atomic_write(run / STATE_FILE, lambda temporary: torch.save(content, temporary))


def load_state(run: Path, config: RunConfig, *, cache_key: str) -> SavedState | None:
    """The state of an unfinished run of the same settings on the same cache; None without one.

    Raises RunError when the folder holds an unfinished run of other settings or of another cache,
    or a damaged state: deleting it is the user's choice.
    """
    path = run / STATE_FILE
    if not path.exists():
        return None
    differences = _differences(run, config)
    if differences:
        raise RunError(
            f"{run} holds an unfinished run of other settings; give those to finish it, choose "
            f"another folder, or delete it. Its settings (-) and the ones given (+):\n{differences}"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, this mlalign reads {FORMAT}")
        state = SavedState(
            training=content["training"],
            cache_key=str(content["cache_key"]),
            metrics_bytes=int(content["metrics_bytes"]),
            wall_seconds=float(content["wall_seconds"]),
        )
        if (run / METRICS_FILE).stat().st_size < state.metrics_bytes:
            raise ValueError(f"{METRICS_FILE} is shorter than when it was written")
    except Exception as error:  # a damaged pickle raises whatever its bytes spell
        raise RunError(
            f"the unfinished run {run} is damaged ({type(error).__name__}: {error}): delete it"
        ) from error
    if state.cache_key != cache_key:
        raise RunError(
            f"{run} holds an unfinished run on a cache with key {state.cache_key[:12]}, this one "
            f"has {cache_key[:12]}: choose another folder, or delete it"
        )
    return state


def delete_state(run: Path) -> None:
    """Remove the state of a run that is finished."""
    (run / STATE_FILE).unlink(missing_ok=True)


def _differences(run: Path, config: RunConfig) -> str:
    """Lines that differ between the run's config.yaml and the settings; empty when they agree."""
    try:
        kept = yaml.safe_load((run / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise RunError(f"the unfinished run {run} is damaged ({error}): delete it") from error
    given = settings_dict(config)
    if kept == given:
        return ""
    before, after = (
        yaml.safe_dump(settings, sort_keys=False).splitlines() for settings in (kept, given)
    )
    changed = difflib.unified_diff(before, after, lineterm="", n=0)
    return "\n".join(f"  {line}" for line in changed if not line.startswith(("---", "+++", "@@")))
