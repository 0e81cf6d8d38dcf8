"""What a run has done and whom it waited for, counted in one thread or process and told in
another."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

Part = Literal["decoder", "encoder"]


@dataclass(slots=True, kw_only=True)
class Counts:
    """What happened since the last Counts were taken."""

    clips: int = 0
    failed: int = 0
    frames: int = 0
    """That came out of the backbone."""
    waited: dict[Part, float] = field(default_factory=lambda: {"decoder": 0.0, "encoder": 0.0})
    """Seconds the run stood still for want of pictures (decoder) or of features (encoder)."""
    lines: list[str] = field(default_factory=list)
    """To be shown, safe to print."""
    committed: list[str] = field(default_factory=list)
    """Names of shards."""

    def add(self, other: Counts) -> None:
        """Make this the sum of both."""
        self.clips += other.clips
        self.failed += other.failed
        self.frames += other.frames
        for part, seconds in other.waited.items():
            self.waited[part] += seconds
        self.lines += other.lines
        self.committed += other.committed


class Tally:
    """Counts for one who asks now and then; any thread may count and any may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = Counts()
        self._waiting: tuple[Part, float] | None = None

    def count(self, counts: Counts) -> None:
        with self._lock:
            self._counts.add(counts)

    @contextlib.contextmanager
    def waiting(self, part: Part) -> Iterator[None]:
        """The time within is spent waiting for a part."""
        with self._lock:
            self._waiting = part, time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._add_waited()
                self._waiting = None

    def take(self) -> Counts:
        """What was counted since the last call; a wait that is not over yet counts so far, so that
        a stall shows."""
        with self._lock:
            if self._waiting is not None:
                self._add_waited()
            taken, self._counts = self._counts, Counts()
            return taken

    def _add_waited(self) -> None:
        assert self._waiting is not None
        part, since = self._waiting
        now = time.monotonic()
        self._counts.waited[part] += now - since
        self._waiting = part, now


@contextlib.contextmanager
def telling(
    tally: Tally, tell: Callable[[Counts], None], *, every_seconds: float = 1.0
) -> Iterator[None]:
    """Tell what is counted all the while, from a thread of its own, and the rest at the end."""
    is_over = threading.Event()

    def tell_on() -> None:
        while not is_over.wait(every_seconds):
            tell(tally.take())

    thread = threading.Thread(target=tell_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        tell(tally.take())
