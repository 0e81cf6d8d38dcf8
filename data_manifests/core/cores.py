"""How many processor cores this process may use, and pools of processes to use them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .errors import UserError

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor


def num_cores() -> int:
    """Cores that this process is allowed to run on, at least 1.

    A job of a cluster or a container may be confined to some of the machine's cores, which
    os.cpu_count() ignores. macOS cannot confine a process: all cores of the machine there.
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def process_pool(
    num_processes: int, *, initializer: Callable[..., object], initargs: tuple[Any, ...] = ()
) -> ProcessPoolExecutor:
    """A pool of spawned processes, not forked ones: the caller may have threads.

    Raises UserError where the system has no semaphores for it: on Linux they are in /dev/shm,
    which some containers lack.
    """
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    try:
        return ProcessPoolExecutor(
            num_processes,
            mp_context=get_context("spawn"),
            initializer=initializer,
            initargs=initargs,
        )
    except OSError as error:
        raise UserError(
            f"cannot create semaphores for {num_processes} processes: {error}. On Linux they need "
            "a writable /dev/shm, such as a mounted tmpfs"
        ) from error
