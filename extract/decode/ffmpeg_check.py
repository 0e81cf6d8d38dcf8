"""Whether the ffmpeg program can do what decoding needs, found out before any clip is decoded."""

from __future__ import annotations

import re
import subprocess
from fractions import Fraction

from ...data_manifests.core.ffmpeg_program import PROGRAM_VARIABLE, ffmpeg_program
from ..cache.contract import CacheError
from ..config import HardwareName
from .ffmpeg_log import FRAMES, frame_durations

WAY_OUT = (
    f"unset {PROGRAM_VARIABLE} to use the program that comes with mlalign, or leave out "
    "decoder=ffmpeg"
)

PROBE_SECONDS = 30.0
"""How long the program may take to show what it can do; it needs a tenth of a second."""


def check_program(hwaccel: HardwareName | None) -> None:
    """Raises CacheError when the ffmpeg program cannot do what decoding needs.

    It has to print how long each frame is shown after its times were rewritten (FFmpeg 9 does, 5
    and 7 do not), and to open the hardware where that is asked for.
    """
    program = ffmpeg_program()
    command = [program, "-nostdin", "-loglevel", "level+info", "-f", "lavfi"]
    command += ["-i", "testsrc2=size=32x32:rate=5:duration=0.4"]
    command += ["-vf", f"setpts=PTS+0,{FRAMES}=checksum=0", "-f", "null", "-"]
    done = _run(command)
    if done.returncode != 0 or frame_durations(done.stderr) != [Fraction(1, 5)] * 2:
        raise CacheError(
            f"{program} cannot be used for decoding ({program_version()}): it does not "
            f"print how long frames are shown, as FFmpeg 9 does; {WAY_OUT}"
        )
    if hwaccel is None:
        return
    command = [program, "-v", "error", "-init_hw_device", hwaccel]
    command += ["-f", "lavfi", "-i", "nullsrc", "-frames:v", "1", "-f", "null", "-"]
    done = _run(command)
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise CacheError(
            f"hwaccel {hwaccel} was asked for, and {program} cannot use it on this machine: "
            f"{re.sub(r'^.*?] ', '', reason[0])}; leave hwaccel out to decode on the processor"
        )


def program_version() -> str:
    """The first line of its -version, such as "ffmpeg version n9.0.2". Raises CacheError when it
    cannot be run."""
    output = _run([ffmpeg_program(), "-version"]).stdout
    return output.decode(errors="replace").partition("\n")[0].partition(" Copyright")[0]


def _run(command: list[str]) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PROBE_SECONDS
        )
    except OSError as error:
        raise CacheError(f"{command[0]} cannot be run: {error.strerror}; {WAY_OUT}") from error
    except subprocess.TimeoutExpired as error:
        raise CacheError(
            f"{command[0]} did not end within {PROBE_SECONDS:g} s; {WAY_OUT}"
        ) from error
