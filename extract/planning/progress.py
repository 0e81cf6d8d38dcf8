"""Progress of an extraction: counted in one thread or process, shown in another."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Self

from ...data_manifests.core.progress_bar import ProgressBar

Part = Literal["decoder", "encoder"]


@dataclass(slots=True, kw_only=True)
class ProgressCounts:
    """What happened in a span of time."""

    clips: int = 0
    failed: int = 0
    frames: int = 0
    """Encoded by the backbone."""
    waited: dict[Part, float] = field(default_factory=lambda: {"decoder": 0.0, "encoder": 0.0})
    """Seconds spent waiting for pictures (decoder) or for features (encoder)."""
    lines: list[str] = field(default_factory=list)
    """To be printed, control characters escaped."""
    committed: list[str] = field(default_factory=list)
    """Names of shards."""

    def add(self, other: ProgressCounts) -> None:
        """Make this the sum of both."""
        self.clips += other.clips
        self.failed += other.failed
        self.frames += other.frames
        for part, seconds in other.waited.items():
            self.waited[part] += seconds
        self.lines += other.lines
        self.committed += other.committed


class ProgressCounter:
    """Collects counts from any thread, to be taken now and then by any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = ProgressCounts()
        self._waiting: tuple[Part, float] | None = None

    def count(self, counts: ProgressCounts) -> None:
        with self._lock:
            self._counts.add(counts)

    @contextlib.contextmanager
    def waiting(self, part: Part) -> Iterator[None]:
        """Count the time of the block as waiting for a part."""
        with self._lock:
            self._waiting = part, time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._add_waited()
                self._waiting = None

    def take(self) -> ProgressCounts:
        """Counts since the last call; includes the time so far of an unfinished wait, so that a
        stall is visible."""
        with self._lock:
            if self._waiting is not None:
                self._add_waited()
            taken, self._counts = self._counts, ProgressCounts()
            return taken

    def _add_waited(self) -> None:
        assert self._waiting is not None
        part, since = self._waiting
        now = time.monotonic()
        self._counts.waited[part] += now - since
        self._waiting = part, now


@contextlib.contextmanager
def reported_progress(
    counter: ProgressCounter,
    report: Callable[[ProgressCounts], None],
    *,
    every_seconds: float = 1.0,
) -> Iterator[None]:
    """Pass new counts to `report` from a thread while the block runs, and the rest at its end."""
    is_over = threading.Event()

    def keep_reporting() -> None:
        while not is_over.wait(every_seconds):
            report(counter.take())

    thread = threading.Thread(target=keep_reporting, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        report(counter.take())


class ExtractionProgress:
    """Shows clips and frames done, and whether decoder or encoder is the bottleneck."""

    def __init__(self, *, num_clips: int, title: str) -> None:
        """num_clips: if 0, only the lines of the counts are shown."""
        self._bar = ProgressBar(label=title, total=num_clips, unit="clips")
        self._total = ProgressCounts()
        self._recent = ProgressCounts()
        self._began = self._shown = time.monotonic()

    @property
    def total(self) -> ProgressCounts:
        """Sum of all counts added."""
        return self._total

    def add(self, counts: ProgressCounts) -> None:
        """Show new counts; to be called every second or so."""
        self._total.add(counts)
        self._recent.add(counts)
        for line in counts.lines:
            self._bar.print(line)
        if self._bar.advance(counts.clips, note=self._note):
            self._recent, self._shown = ProgressCounts(), time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def _note(self) -> str:
        now = time.monotonic()
        rate = self._total.frames / max(now - self._began, 1e-9)
        parts = [f"{self._total.frames} frames, {rate:.1f}/s"]
        if not self._bar.is_live:
            parts.append(f"{self._total.failed} failed")
            if self._total.clips:
                parts.append(f"about {self._bar.seconds_left:.0f} s left")
        return ", ".join([*parts, self._bottleneck(now)])

    def _bottleneck(self, now: float) -> str:
        """Which part sets the pace, since the last time this was shown."""
        waited = self._recent.waited
        slower = max(waited, key=lambda part: waited[part])
        # The run itself also copies and writes; with several workers their waits add up.
        share = waited[slower] / max(sum(waited.values()), now - self._shown, 1e-9)
        if share < 0.1:
            return "decoder and encoder keep pace"
        return f"waiting for the {slower} ({share:.0%} of the time)"


def printable(text: str) -> str:
    """Text for a terminal, with control characters (such as escape sequences) escaped."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
