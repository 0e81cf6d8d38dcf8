"""Pages from templates, with one engine and one look, and the video frames that they show."""

from __future__ import annotations

import base64
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import ffmpeg
import jinja2

from ...data_manifests.core.atomic_write import atomic_write
from ...data_manifests.core.ffmpeg_program import ffmpeg_program


def write_page_of(template: str, path: Path, content: dict[str, Any]) -> None:
    """Fill a template of evaluate/reports/templates and write the page, whole or not at all.

    Texts are escaped; a name that the content lacks is an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template).render(**content)
    atomic_write(path, page)


def _template(name: str) -> str:
    return files("mlalign.evaluate.reports").joinpath("templates", name).read_text("utf-8")


WIDTH = 200
"""Of a thumbnail, in pixels."""
TIMEOUT_SECONDS = 20.0


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
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_SECONDS
        )
    except (subprocess.TimeoutExpired, OSError):
        return None
    if done.returncode != 0 or not done.stdout:
        return None
    return f"data:image/jpeg;base64,{base64.b64encode(done.stdout).decode()}"
