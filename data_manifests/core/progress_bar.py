"""Progress of a long task: a bar on a terminal, a line every 15 seconds in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Self, TextIO

if TYPE_CHECKING:
    from rich.live import Live
    from rich.progress import Progress
    from rich.text import Text

LOG_SECONDS = 15.0
REFRESH_SECONDS: Final = 0.1
MAX_LABEL_LENGTH: Final = 28
BAR_WIDTH: Final = 20
"""Label, bar, counts and time left fit in 80 columns; the note has a line of its own."""


class ProgressBar:
    """Shows how much of a task is done, how long the rest takes, and a note.

    extracting (cpu) ━━━━━━━━━━━━━━━━━━━━ 12/24 clips 0:00:05
      68 frames, 12.5/s, waiting for the encoder (81% of the time)
    """

    def __init__(
        self,
        *,
        label: str,
        total: int,
        unit: str,
        completed: int = 0,
        file: TextIO | None = None,
        log_seconds: float | None = None,
    ) -> None:
        """total: of 0, only lines given to `print` are shown. completed: before this process began.

        file: default stderr. log_seconds: time between lines in a log; default LOG_SECONDS.
        """
        self._file = sys.stderr if file is None else file
        self._label, self._total, self._unit = label, total, unit
        self._first = self._completed = completed
        self._note: Callable[[], str] | None = None
        self._log_seconds = LOG_SECONDS if log_seconds is None else log_seconds
        self._began = self._shown = time.monotonic()
        self.is_live: Final = total > 0 and self._file.isatty()
        """Whether this is a bar on a terminal."""
        if self.is_live:
            self._bar, self._note_line, self._live = self._open()

    def _open(self) -> tuple[Progress, Text, Live]:
        # Rich takes 50 ms to import, which a log does not need.
        from rich.console import Console, Group
        from rich.live import Live
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.text import Text

        is_long = len(self._label) > MAX_LABEL_LENGTH
        bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=BAR_WIDTH),
            TextColumn("{task.completed}/{task.total} " + self._unit, markup=False),
            TimeRemainingColumn(),
            auto_refresh=False,
        )
        bar.add_task(
            self._label[: MAX_LABEL_LENGTH - 3] + "..." if is_long else self._label,
            total=self._total,
            completed=self._completed,
        )
        note = Text("", no_wrap=True, overflow="ellipsis")
        live = Live(
            Group(bar, note),
            console=Console(file=self._file),
            auto_refresh=False,  # no thread of its own
            redirect_stdout=False,
            redirect_stderr=self._file is sys.stderr,
        )
        live.start()
        return bar, note, live

    @property
    def seconds_left(self) -> float:
        """Estimate from the average pace of this process; 0 before anything is done."""
        done = self._completed - self._first
        elapsed = time.monotonic() - self._began
        return elapsed * (self._total - self._completed) / done if done else 0.0

    def advance(self, count: int = 1, *, note: Callable[[], str] | None = None) -> bool:
        """Add to what is done, and show it when a refresh or log line is due; whether it was shown.

        note: text to show beside it; default: in a log the time left, and on a terminal nothing.
        """
        self._completed += count
        self._note = note
        every_seconds = REFRESH_SECONDS if self.is_live else self._log_seconds
        if time.monotonic() - self._shown < every_seconds or not self._total:
            return False
        if self.is_live:
            self._refresh()
        else:
            text = f"about {self.seconds_left:.0f} s left" if note is None else note()
            self.print(f"{self._label}: {self._completed}/{self._total} {self._unit}, {text}")
        self._shown = time.monotonic()
        return True

    def _refresh(self) -> None:
        self._bar.update(self._bar.task_ids[0], completed=self._completed)
        self._note_line.plain = f"  {self._note()}" if self._note else ""
        self._live.refresh()

    def print(self, line: str) -> None:
        """Show a line: above the bar, or in the log."""
        if self.is_live:
            self._live.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=self._file, flush=True)

    def close(self) -> None:
        """Leave the bar as finished lines on the terminal."""
        if self.is_live:
            self._refresh()
            self._live.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
