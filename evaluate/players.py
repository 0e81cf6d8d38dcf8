"""Video players of this machine, started at a moment."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from ..data_manifests.errors import UserError

PLAYERS = {
    "mpv": ("--start={start}", "--end={end}"),
    "vlc": ("--start-time={start}", "--stop-time={end}"),
    "ffplay": ("-autoexit", "-ss", "{start}", "-t", "{length}"),
}
"""Options that make each of them play only the moment."""


def play(video: Path, *, start_seconds: float, end_seconds: float) -> None:
    """Play the moment in the first player that is installed, and wait until it ends.

    Raises UserError when the file or every player is missing.
    """
    if not video.is_file():
        raise UserError(f"cannot play {video}: no such file; has the folder of videos moved?")
    found = [name for name in PLAYERS if shutil.which(name)]
    if not found:
        raise UserError(f"--play needs one of {', '.join(PLAYERS)} on the PATH; or use --html FILE")
    times = {
        "start": f"{start_seconds:.3f}",
        "end": f"{end_seconds:.3f}",
        "length": f"{end_seconds - start_seconds:.3f}",
    }
    options = [option.format(**times) for option in PLAYERS[found[0]]]
    # An absolute path never looks like an option.
    subprocess.run([found[0], *options, str(video.absolute())], check=False)
