"""Where the ffmpeg program is."""

from __future__ import annotations

import shutil


def ffmpeg_program() -> str:
    """The system's ffmpeg when there is one, else the one that comes with imageio-ffmpeg."""
    system = shutil.which("ffmpeg")
    if system:
        return system
    import imageio_ffmpeg

    return str(imageio_ffmpeg.get_ffmpeg_exe())
