"""What a process of a sweep does: train a member, or several together."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from ..data_manifests.errors import UserError
from .checkpoint import RUN_FILE
from .shared_splits import Splits, shared_splits
from .stacked import align_together
from .sweep_config import Member
from .trainer import align_on


@dataclass(frozen=True, kw_only=True, slots=True)
class MemberResult:
    """What became of a member."""

    member: Member
    summary: Mapping[str, Any] | None
    """Content of its run.json; None where it failed."""
    failure: str | None
    """Why it failed."""
    is_new: bool
    """Whether it was trained now; False for one that was there already."""


_splits: dict[Path, Splits] = {}
"""Of this process, by file: mapped once."""


def start_worker(threads: int, is_alive: Connection) -> None:
    """What a worker process begins with: its threads, and an end when the sweep has ended.

    is_alive: the sweep holds its other end, which the system closes however the sweep ends. A
    worker that outlived it would write into a run that the sweep, started again, trains too.
    """
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the sweep, and so all workers
    threading.Thread(target=_end_with, args=(is_alive,), daemon=True).start()


def _end_with(sweep: Connection) -> None:
    try:
        sweep.recv()
    except (EOFError, OSError):
        os._exit(1)


def train_members(members: Sequence[Member], shared: Path, out: Path) -> list[MemberResult]:
    """Train a member, or several that are alike in structure together, on the splits of a file."""
    runs = {out / member.folder: member for member in members}
    results: dict[Path, MemberResult] = {}

    def ended(run: Path, error: Exception | None) -> None:
        results[run] = _result(runs[run], run, error)

    try:
        if shared not in _splits:
            _splits[shared] = shared_splits(shared)
        train, validation = _splits[shared]
        if len(members) > 1:
            configs = {run: member.config for run, member in runs.items()}
            align_together(configs, train=train, validation=validation, ended=ended)
        else:
            ((run, member),) = runs.items()
            align_on(run, member.config, train=train, validation=validation, quiet=True)
            ended(run, None)
    except Exception as error:  # whatever it is, the other members go on
        for run in runs.keys() - results.keys():
            ended(run, error)
    return [results[run] for run in runs]


def run_content(run: Path) -> dict[str, Any]:
    """run.json of a finished run."""
    content: dict[str, Any] = json.loads((run / RUN_FILE).read_text(encoding="utf-8"))
    return content


def _result(member: Member, run: Path, error: Exception | None) -> MemberResult:
    if error is None:
        return MemberResult(member=member, summary=run_content(run), failure=None, is_new=True)
    is_plain = isinstance(error, UserError | OSError)
    failure = str(error) if is_plain else f"{type(error).__name__}: {error}"
    return MemberResult(member=member, summary=None, failure=failure, is_new=True)
