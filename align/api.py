"""`fit` for Python programs: train on a cache, and get the finished run."""

from __future__ import annotations

from pathlib import Path

from .config import RunConfig
from .runs.checkpoint import Run, load_run
from .trainer import train_run


def fit(cache: str | Path, out: str | Path, config: RunConfig | None = None) -> Run:
    """Train heads on the features of a cache, write the run folder `out`, and load it.

    cache: a folder made by `mlalign.extract.extract`.   config: None takes `RunConfig()`.
    An unfinished run of the same settings in `out` is resumed, with the numbers that it would have
    had. The Run has the best weights, on the CPU, as `load_run(out)` gives it.

    Progress goes to stderr. Raises CacheError (no such cache, split or segment rule),
    SettingsError (also an unknown head or loss), UserError (the training data cannot be used, or
    the training diverged), and RunError when `out` holds a finished
    run, or an unfinished one of other settings or of another cache.
    """
    train_run(Path(cache), Path(out), RunConfig() if config is None else config)
    return load_run(out)
