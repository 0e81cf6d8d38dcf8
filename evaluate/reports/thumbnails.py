"""Pictures of moments, small enough to be part of a page."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import ffmpeg

from ...data_manifests.core.ffmpeg_program import ffmpeg_program

WIDTH = 200
"""Of a thumbnail, in pixels."""
PATIENCE_SECONDS = 20.0


def thumbnail(video: Path, seconds: float) -> str | None:
    """The frame shown at this time of a video as a data URI of a JPEG; None when there is none.

    Only files that extraction has read are meant; no other file and no network is opened.
    """
    if not video.is_file():
        return None
    source = ffmpeg.input(f"file:{video}", ss=f"{max(0.0, seconds):.3f}", protocol_whitelist="file")
    small = source.video.filter("scale", WIDTH, -2)
    # The pipe protocol is for the output alone.
    command = small.output("pipe:", vframes=1, format="image2", vcodec="mjpeg", qscale=4).compile(
        cmd=ffmpeg_program()
    )
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE_SECONDS
        )
    except (subprocess.TimeoutExpired, OSError):
        return None
    if done.returncode != 0 or not done.stdout:
        return None
    return f"data:image/jpeg;base64,{base64.b64encode(done.stdout).decode()}"
