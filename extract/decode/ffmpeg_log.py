"""What the ffmpeg program prints on its error stream while it decodes: frame times and errors."""

from __future__ import annotations

import contextlib
import re
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import IO

from ..segments.sampling import exact
from .protocol import Heartbeat

FRAMES = "showinfo@frames"
"""The filter that prints each decoded frame."""
INSTANTS = "showinfo@instants"
"""The filter that prints each sampled instant."""

_FRAME = re.compile(rb"showinfo@frames .* n: *\d+ pts: *(-?\d+) ")
_INSTANT = re.compile(rb"showinfo@instants .* n: *(\d+) pts:")
_DURATION = re.compile(rb" duration: *(\d+) ")
_TIME_BASE = re.compile(rb"showinfo@frames .* config in time_base: (\d+)/(\d+)")
_SHOWINFO = re.compile(rb"^\[.*showinfo")
_TORN = re.compile(rb"\[warning\] *(corrupt input packet)")
_ERROR = re.compile(rb"\[(?:error|fatal)\] *(.*)")


def frame_durations(output: bytes) -> list[Fraction]:
    """Durations in seconds of the frames that a whole error stream lists; 0 where none is
    printed."""
    tick = Fraction(0)
    durations = []
    for line in output.splitlines():
        if match := _TIME_BASE.search(line):
            tick = Fraction(int(match[1]), int(match[2]))
        elif _FRAME.search(line):
            ticks = _DURATION.search(line)
            durations.append(int(ticks[1]) * tick if ticks else Fraction(0))
    return durations


class FfmpegLog:
    """Reads the error stream in a thread of its own while the program runs."""

    def __init__(
        self, stream: IO[bytes], *, gap: Fraction, start: float, fps: float, heartbeat: Heartbeat
    ) -> None:
        """gap: seconds between frames by the container; start: of the clip in the video; heartbeat:
        called for every frame."""
        self._stream = stream
        self._heartbeat = heartbeat
        self._gap = gap
        self._start = exact(start)
        self._step = 1 / exact(fps)
        self._frames: deque[Fraction] = deque()
        """When the frame shown at the last instant came up, and those after it."""
        self._shown: dict[int, float | None] = {}
        """Instants whose picture has left the program: when their frame came up."""
        self._changed = threading.Condition()
        self._is_over = False
        self._failure: BaseException | None = None
        """What ended the reading thread."""
        self._num_errors = 0
        self.num_frames = 0
        self._is_torn = False
        """Packets are damaged, or two recordings were put end to end: then no frame is missing."""
        self.first_error = ""
        self.lost_seconds = Fraction(0)
        """For which no frame came because of damage."""
        self.over_seconds = Fraction(0)
        """When the last frame so far leaves the screen, from the clip's start."""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def shown_at(self, k: int) -> float | None:
        """When the frame on the screen at instant k came up; None when the last one has gone.

        To be called once for each of k = 0, 1, ...; waits until the program has passed that
        instant or has ended. Raises what the reading thread failed with.
        """
        with self._changed:
            while k not in self._shown and not self._is_over:
                self._changed.wait()
            if self._failure is not None:
                raise self._failure
            return self._shown.pop(k) if k in self._shown else self._frame_at(k * self._step)

    def _frame_at(self, seconds: Fraction) -> float | None:
        """The frames that are no longer shown are forgotten."""
        while len(self._frames) > 1 and self._frames[1] <= seconds:
            self._frames.popleft()
        if not self._frames or (len(self._frames) == 1 and seconds >= self.over_seconds):
            return None
        return float(self._frames[0])

    def problem(self) -> str | None:
        """The errors so far, in words."""
        if not self._num_errors:
            return None
        return f"{self._num_errors} decoding errors: {self.first_error}"

    def note(self, error: str) -> None:
        self._num_errors += 1
        self.first_error = self.first_error or error

    def close(self) -> None:
        """The program must have ended."""
        self._thread.join()
        self._stream.close()

    def _read(self) -> None:
        try:
            self._read_lines()
        except BaseException as error:
            self._failure = error
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def _read_lines(self) -> None:
        tick = Fraction(0)
        num_known = 0
        for line in self._stream:
            if match := _FRAME.search(line):
                self._heartbeat()
                seconds = int(match[1]) * tick - self._start
                ticks = _DURATION.search(line)
                duration = int(ticks[1]) * tick if ticks else Fraction(0)
                with self._changed:
                    hole = seconds - self.over_seconds if self.num_frames else Fraction(0)
                    if self._is_torn and hole > self._gap / 2:
                        self.note("a packet is corrupt")
                    if self._num_errors > num_known:
                        self.lost_seconds += max(hole, Fraction(0))
                    num_known = self._num_errors
                    self.num_frames += 1
                    self._frames.append(seconds)
                    self.over_seconds = seconds + (duration or self._gap)
            elif match := _INSTANT.search(line):
                with self._changed:
                    k = int(match[1])
                    self._shown[k] = self._frame_at(k * self._step)
                    self._changed.notify_all()
            elif match := _TIME_BASE.search(line):
                tick = Fraction(int(match[1]), int(match[2]))
            elif _TORN.search(line):
                self._is_torn = True
            elif (match := _ERROR.search(line)) and not _SHOWINFO.match(line):
                self.note(match[1].decode(errors="replace").strip())


class StallGuard:
    """Kills a program that shows no progress for `stall_seconds` while somebody waits for it: no
    read from it can then wait for ever."""

    def __init__(self, process: subprocess.Popen[bytes], *, stall_seconds: float) -> None:
        self._process = process
        self._stall_seconds = stall_seconds
        self._last = time.monotonic()
        self._is_awaited = False
        self._is_closed = threading.Event()
        self.has_fired = False
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def progress(self) -> None:
        self._last = time.monotonic()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Only the time within counts: a program that nobody reads from stands still."""
        self.progress()
        self._is_awaited = True
        try:
            yield
        finally:
            self._is_awaited = False

    def close(self) -> None:
        self._is_closed.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._is_closed.wait(min(0.5, self._stall_seconds / 4)):
            if self._is_awaited and time.monotonic() - self._last > self._stall_seconds:
                self.has_fired = True
                self._process.kill()
                return
