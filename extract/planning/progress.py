"""What a run shows while it works: a bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import sys
import time
from typing import Self

from tqdm import tqdm

from .tally import Counts

LOG_SECONDS = 15.0


class Progress:
    """Shows clips and frames done, and who waits for whom. To be told every second or so."""

    def __init__(self, *, num_clips: int, title: str) -> None:
        """num_clips: none, and only lines are shown."""
        self._num_clips = num_clips
        self._title = title
        self._total = Counts()
        self._recent = Counts()
        self._began = self._shown = time.monotonic()
        self._has_bar = sys.stderr.isatty() and num_clips > 0
        self._bar = tqdm(
            total=num_clips, desc=title, unit="clip", disable=not self._has_bar, leave=False
        )

    @property
    def total(self) -> Counts:
        """All that was added."""
        return self._total

    def add(self, counts: Counts) -> None:
        """Show what has happened since the last call."""
        self._total.add(counts)
        self._recent.add(counts)
        for line in counts.lines:
            self._bar.write(line, file=sys.stderr)
        now = time.monotonic()
        if self._has_bar:
            self._bar.set_postfix_str(f"{self._rate(now)}, {self._pace(now)}", refresh=False)
            self._bar.update(counts.clips)
            self._bar.refresh()
        elif now - self._shown < LOG_SECONDS or not self._num_clips:
            return
        else:
            self._log(now)
        self._recent, self._shown = Counts(), now

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def _log(self, now: float) -> None:
        done = self._total.clips
        left = (now - self._began) * (self._num_clips - done) / max(done, 1)
        print(
            f"{self._title}: {done}/{self._num_clips} clips, {self._rate(now)}, "
            f"{self._total.failed} failed, "
            + (f"about {left:.0f} s left, " if done else "")
            + self._pace(now),
            file=sys.stderr,
            flush=True,
        )

    def _rate(self, now: float) -> str:
        rate = self._total.frames / max(now - self._began, 1e-9)
        return f"{self._total.frames} frames, {rate:.1f}/s"

    def _pace(self, now: float) -> str:
        """Who sets the pace, since the last time this was shown."""
        waited = self._recent.waited
        slower = max(waited, key=lambda part: waited[part])
        # The run itself also copies and writes; with several workers their waits add up.
        share = waited[slower] / max(sum(waited.values()), now - self._shown, 1e-9)
        if share < 0.1:
            return "decoder and encoder keep pace"
        return f"waiting for the {slower} ({share:.0%} of the time)"


def printable(text: str) -> str:
    """Text for a terminal: escape sequences and other control characters of a file name shown, not
    obeyed."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
