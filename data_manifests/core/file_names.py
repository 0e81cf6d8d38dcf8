"""File names as text and back, and what kind of file a name says.

A name is bytes, which need not be UTF-8, and a table holds text.

A byte that is no part of UTF-8 text becomes a private character, U+F780 for 0x80 to U+F7FF for
0xFF; so does each byte of such a character that a name really has. Every name has a text of its
own, and the text gives the name back. Ordinary names are their own text.
"""

from __future__ import annotations

import re
from pathlib import Path

_PRIVATE = 0xF700
_ESCAPED = re.compile("[\uf780-\uf7ff]")
_NOT_TEXT = re.compile("[\udc80-\udcff\uf780-\uf7ff]")


def name_text(name: str) -> str:
    """The text of a file name or path as Python has it (undecodable bytes as lone surrogates)."""
    return _NOT_TEXT.sub(_escape, name)


def text_name(text: str) -> str:
    """The file name or path of a text of `name_text`."""
    if not _ESCAPED.search(text):
        return text
    parts = (
        bytes([ord(char) - _PRIVATE]) if _ESCAPED.match(char) else char.encode() for char in text
    )
    return b"".join(parts).decode("utf-8", "surrogateescape")


def video_file(root: Path, video_path: str) -> Path:
    """Where a clip's video lies. video_path: as in the table clips."""
    return root / text_name(video_path)


def _escape(found: re.Match[str]) -> str:
    return "".join(chr(_PRIVATE + byte) for byte in found[0].encode("utf-8", "surrogateescape"))


VIDEO_EXTENSIONS = frozenset(
    ".mp4 .m4v .mov .mkv .webm .avi .ts .mts .m2ts .mpg .mpeg .flv .f4v .wmv .asf .3gp .3g2 .ogv"
    " .vob .mxf".split()
)

IMAGE_EXTENSIONS = frozenset(".jpg .jpeg .png .webp .bmp .tif .tiff".split())


def is_image(name: str) -> bool:
    """Whether a file of this name is a picture that may be a frame; hidden ones are not."""
    return Path(name).suffix.lower() in IMAGE_EXTENSIONS and not name.startswith(".")
