"""A process of a sweep: it trains members one after the other on splits that it maps once."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from ...data_manifests.core.errors import UserError
from ..data.shared_splits import Splits, shared_splits
from ..runs.checkpoint import RUN_FILE
from ..trainer import train_run_on
from .config import Member


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


def train_member(member: Member, shared: Path, out: Path) -> MemberResult:
    """Train a member on the splits of a file; an error is the failure of this member alone."""
    try:
        if shared not in _splits:
            _splits[shared] = shared_splits(shared)
        train, validation = _splits[shared]
        train_run_on(
            out / member.folder, member.config, train=train, validation=validation, quiet=True
        )
        return finished_result(member, out)
    except Exception as error:
        is_plain = isinstance(error, UserError | OSError)
        failure = str(error) if is_plain else f"{type(error).__name__}: {error}"
        return MemberResult(member=member, summary=None, failure=failure, is_new=True)


def finished_result(member: Member, out: Path) -> MemberResult:
    """The result of a member whose run this sweep has finished."""
    summary = run_content(out / member.folder)
    return MemberResult(member=member, summary=summary, failure=None, is_new=True)


def run_content(run: Path) -> dict[str, Any]:
    """run.json of a finished run."""
    content: dict[str, Any] = json.loads((run / RUN_FILE).read_text(encoding="utf-8"))
    return content
