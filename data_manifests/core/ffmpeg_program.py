"""Which ffmpeg program to run."""

from __future__ import annotations

from .errors import UserError

PROGRAM_VARIABLE = "IMAGEIO_FFMPEG_EXE"
"""Environment variable of imageio-ffmpeg: path of another program to use."""


def ffmpeg_program() -> str:
    """Path of the ffmpeg program that was installed with mlalign (imageio-ffmpeg).

    Another one is used only if IMAGEIO_FFMPEG_EXE names it, never because it is on PATH: versions
    differ in what they print and in when the last frame ends. Raises UserError where there is none.
    """
    import imageio_ffmpeg

    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise UserError(
            "imageio-ffmpeg has no ffmpeg program for this machine; "
            f"set {PROGRAM_VARIABLE} to the path of one (FFmpeg 9 or newer)"
        ) from error
