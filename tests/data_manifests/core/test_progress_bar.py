"""A bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import io
import re

import pytest

from mlalign.data_manifests.core import progress_bar
from mlalign.data_manifests.core.progress_bar import ProgressBar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def visible_lines(terminal: Terminal) -> list[str]:
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())
    return [line.rstrip() for line in re.split(r"[\r\n]+", text)]


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")


def test_a_bar_is_readable_at_80_columns() -> None:
    terminal = Terminal()
    label = "extracting (float32 on cuda:0, cuda:1, cuda:2)"
    with ProgressBar(label=label, total=123_456, unit="clips", file=terminal) as bar:
        bar.advance(123_000, note=lambda: "1234567 frames, 1234.5/s, " + "waiting " * 10)
    bars = [line for line in visible_lines(terminal) if "123000/123456 clips" in line]
    notes = [line for line in visible_lines(terminal) if "1234567 frames, 1234.5/s" in line]
    assert bars and notes and all(len(line) <= 80 for line in (*bars, *notes))
    assert all(line.startswith("extracting (float32 on cu...") for line in bars)
    assert all(line.count("\u2501") + line.count("\u2578") >= 19 for line in bars)


def test_lines_are_printed_above_the_bar_unchanged() -> None:
    terminal = Terminal()
    with ProgressBar(label="a", total=2, unit="clips", file=terminal) as bar:
        bar.print("failed: [bold]x[/bold]: " + "long " * 30 + "end")
    assert "failed: [bold]x[/bold]: " + "long " * 30 + "end" in visible_lines(terminal)


def test_a_log_has_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.0, 10.0, 16.0, 16.0, 16.0, 20.0])
    monkeypatch.setattr(progress_bar.time, "monotonic", lambda: next(seconds))
    log = io.StringIO()
    with ProgressBar(label="scenes", total=8, unit="clips", file=log) as bar:
        assert not bar.advance(1)
        assert bar.advance(3)
        assert not bar.advance(4)
        bar.print("a line")
    assert log.getvalue() == "scenes: 4/8 clips, about 16 s left\na line\n"


def test_without_a_total_only_lines_are_shown() -> None:
    terminal = Terminal()
    with ProgressBar(label="a", total=0, unit="clips", file=terminal, log_seconds=0) as bar:
        assert not bar.advance(1)
        bar.print("a line")
    assert terminal.getvalue() == "a line\n"
