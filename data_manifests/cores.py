"""How many processor cores this process may use."""

from __future__ import annotations

import os


def num_cores() -> int:
    """Cores that this process is allowed to run on, at least 1.

    A job of a cluster or a container may be confined to some of the machine's cores, which
    os.cpu_count() ignores. macOS cannot confine a process: all cores of the machine there.
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
