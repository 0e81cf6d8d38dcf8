"""The commands of the other stages, as processes of their own: what they said, why they failed."""

from __future__ import annotations

import ctypes
import json
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ...data_manifests.core.errors import UserError

TIMEOUT_SECONDS: Final = 10.0
"""That a command has to end when the benchmark is interrupted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandResult:
    """What became of a command."""

    exit_code: int
    """Negative: the signal that ended it."""
    summary: dict[str, Any] | None
    """The JSON object that it printed, if it did."""
    said: str
    """What it wrote on stderr."""
    seconds: float
    """Wall time."""

    @property
    def reason(self) -> str:
        """Why it failed, in its own last words."""
        if self.exit_code < 0:
            name = signal.Signals(-self.exit_code).name
            return f"ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        _, error, message = f"\n{self.said}".rpartition("\nError: ")
        if error:
            return message.strip()
        lines = self.said.strip().splitlines()
        return lines[-1] if lines else f"exit code {self.exit_code}"


def program_path(name: str) -> Path:
    """The program beside this Python: the same installation, whatever PATH says."""
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        raise UserError(f"{name} is not beside {sys.executable}: install mlalign into that Python")
    return path


def run_command(words: Sequence[str], *, folder: Path, log: Path) -> CommandResult:
    """Run a command of mlalign in a folder; all that it says is added to the log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {shlex.join(words)}\n")
        file.flush()
        start, began = file.tell(), time.monotonic()
        process = subprocess.Popen(
            [program_path(words[0]), *words[1:]],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            errors="replace",
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
        try:
            printed, _ = process.communicate()
        except BaseException:
            _end(process)
            raise
        seconds = time.monotonic() - began
    with log.open("r+", encoding="utf-8", errors="replace") as file:
        file.seek(start)
        stderr = file.read()
        file.write(f"{printed}exit code {process.returncode}, {seconds:.1f} s\n\n")
    return CommandResult(
        exit_code=process.returncode, summary=_summary(printed), said=stderr, seconds=seconds
    )


def failed_members(stderr: str) -> dict[str, str]:
    """Run folder to reason, of what a sweep said of its members that failed."""
    parts = re.split(r"^\d+ of \d+: ", stderr, flags=re.MULTILINE)
    matches = (re.match(r"([^:]+): failed: (.*)", part, flags=re.DOTALL) for part in parts[1:])
    return {match[1]: match[2].strip() for match in matches if match is not None}


def _summary(printed: str) -> dict[str, Any] | None:
    lines = printed.strip().splitlines()
    try:
        content = json.loads(lines[-1]) if lines else None
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _end_with_parent() -> None:
    """In the new process: end, too, when the benchmark is killed (Linux: PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
