"""What a file's name says it is. Without tables, so that decoding processes load it at no cost."""

from __future__ import annotations

from pathlib import Path

VIDEO_EXTENSIONS = frozenset(
    ".mp4 .m4v .mov .mkv .webm .avi .ts .mts .m2ts .mpg .mpeg .flv .f4v .wmv .asf .3gp .3g2 .ogv"
    " .vob .mxf".split()
)

IMAGE_EXTENSIONS = frozenset(".jpg .jpeg .png .webp .bmp .tif .tiff".split())


def is_image(name: str) -> bool:
    """Whether a file of this name is a picture that may be a frame; hidden ones are not."""
    return Path(name).suffix.lower() in IMAGE_EXTENSIONS and not name.startswith(".")
