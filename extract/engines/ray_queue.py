"""Queue of shards for several workers: each shard is done even if workers are lost."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..cache.contract import Unit, index_path
from ..planning.plan import Work
from ..planning.progress import ProgressCounts

MAX_ATTEMPTS = 3
"""A shard is given up after this many lost workers: it may be what kills them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueStatus:
    """Progress of all workers, and what is left."""

    counts: ProgressCounts
    """Of all workers, since the last call."""
    num_free: int
    """Shards that no worker has taken."""
    num_left: int
    """Shards that are not committed, those given up apart."""
    given_up: list[str]
    """Names of shards."""


class ShardQueue:
    """Works are taken by workers, committed by them, or free again when their worker is lost."""

    def __init__(self, unit: Unit, works: Sequence[Work], cache: Path) -> None:
        """cache: where a shard that is committed can be seen, whether or not its worker still said
        so."""
        self._unit = unit
        self._cache = cache
        self._free = deque(works)
        self._taken: dict[str, tuple[int, Work]] = {}
        self._attempts: dict[str, int] = {}
        self._given_up: list[str] = []
        self._counts = ProgressCounts()

    def take(self, worker: int) -> Work | None:
        """The next work, now in this worker's hands; None when there is none."""
        if not self._free:
            return None
        work = self._free.popleft()
        self._taken[work.name] = worker, work
        self._attempts[work.name] = self._attempts.get(work.name, 0) + 1
        return work

    def report(self, counts: ProgressCounts) -> None:
        """What a worker has done; its committed shards are out of its hands."""
        for name in counts.committed:
            self._taken.pop(name, None)
        self._counts.add(counts)

    def release(self, worker: int) -> int:
        """A worker is no more: what it had in hand is free again, or given up; how much that is.

        Free works come last again: what kills workers then comes after all that does not.
        """
        lost = [work for holder, work in self._taken.values() if holder == worker]
        for work in lost:
            del self._taken[work.name]
            if index_path(self._cache, self._unit, f"{work.name}.h5").exists():
                continue
            if self._attempts[work.name] >= MAX_ATTEMPTS:
                self._given_up.append(work.name)
            else:
                self._free.append(work)
        return len(lost)

    def status(self) -> QueueStatus:
        """What has happened since the last call, and what is left."""
        counts, self._counts = self._counts, ProgressCounts()
        return QueueStatus(
            counts=counts,
            num_free=len(self._free),
            num_left=len(self._free) + len(self._taken),
            given_up=list(self._given_up),
        )
