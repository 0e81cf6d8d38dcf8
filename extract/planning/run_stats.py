"""What a run took: seconds per phase, bytes written, as a file in the cache's folder runs."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..cache.contract import runs_folder, shard_path
from ..cache.disk_files import put_file
from ..cache.writer import json_bytes


class PhaseClock:
    """Adds up the seconds that the phases of a run take."""

    def __init__(self) -> None:
        self.began = datetime.now(UTC)
        self._start = time.monotonic()
        self._seconds: defaultdict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what happens inside to a phase."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._seconds[name] += time.monotonic() - start

    @property
    def total_seconds(self) -> float:
        return time.monotonic() - self._start

    @property
    def phase_seconds(self) -> dict[str, float]:
        return {name: round(value, 3) for name, value in self._seconds.items()}

    def rate(self, count: int, *, phase: str) -> float | None:
        """So many per second of a phase; None when it took no time."""
        seconds = self._seconds.get(phase, 0.0)
        return round(count / seconds, 3) if seconds else None


def bytes_of_shards(cache: Path, names: Iterable[str]) -> int:
    """What shards (names without ending) and their index files take on disk."""
    total = 0
    for name in names:
        for path in (shard_path(cache, f"{name}.h5"), *cache.glob(f"index/*/{name}.parquet")):
            with contextlib.suppress(FileNotFoundError):
                total += path.stat().st_size
    return total


def write_run_stats(cache: Path, clock: PhaseClock, content: Mapping[str, Any]) -> Path:
    """CACHE/runs/<UTC time>-<host>-<pid>.json, with the clock's times in it. Raises DiskError."""
    stamp = clock.began.strftime("%Y%m%dT%H%M%S")
    path = runs_folder(cache) / f"{stamp}-{platform.node()}-{os.getpid()}.json"
    times = {
        "began": clock.began.isoformat(timespec="seconds"),
        "seconds": round(clock.total_seconds, 3),
        "phase_seconds": clock.phase_seconds,
    }
    put_file(path, json_bytes({**times, **content}))
    return path
