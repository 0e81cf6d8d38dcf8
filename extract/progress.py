"""What a run shows while it works: a bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import sys
import time
from typing import Self

from tqdm import tqdm

LOG_SECONDS = 15.0


class Progress:
    """Counts clips and frames, and says who waits for whom."""

    def __init__(self, *, num_clips: int, title: str) -> None:
        self._num_clips = num_clips
        self._title = title
        self._clips = self._frames = self._failed = 0
        self._began = self._logged = time.monotonic()
        self._is_terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=num_clips, desc=title, unit="clip", disable=not self._is_terminal, leave=False
        )

    def add_frames(self, count: int, *, num_waiting: int) -> None:
        """Frames encoded; num_waiting: chunks of pictures that wait for the encoder."""
        self._frames += count
        self._show("encoder" if num_waiting else "decoder")

    def add_clip(self, *, failed: bool) -> None:
        self._clips += 1
        self._failed += failed
        self._bar.update(1)

    def say(self, line: str) -> None:
        """A line that stays, above the bar."""
        self._bar.write(line, file=sys.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def _show(self, slower: str) -> None:
        now = time.monotonic()
        rate = self._frames / max(now - self._began, 1e-9)
        if self._is_terminal:
            self._bar.set_postfix_str(
                f"{self._frames} frames, {rate:.1f}/s, waiting for the {slower}", refresh=False
            )
        elif now - self._logged >= LOG_SECONDS:
            self._logged = now
            left = (now - self._began) * (self._num_clips - self._clips) / max(self._clips, 1)
            print(
                f"{self._title}: {self._clips}/{self._num_clips} clips, {self._frames} frames, "
                f"{rate:.1f}/s, {self._failed} failed, about {left:.0f} s left, "
                f"waiting for the {slower}",
                file=sys.stderr,
                flush=True,
            )


def printable(text: str) -> str:
    """Text for a terminal: escape sequences and other control characters of a file name shown, not
    obeyed."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
