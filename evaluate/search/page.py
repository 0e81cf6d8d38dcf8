"""The page of a search: every hit as a player that starts at its moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ...data_manifests.core.atomic_write import check_writable
from ...data_manifests.core.errors import UserError
from ..reports.render import write_page_of
from .search import Hit


def check_page_file(path: Path) -> None:
    """Raise UserError when `path` cannot become the page; called before any work."""
    if path.is_dir():
        raise UserError(f"{path} is a folder: give the page's file with --html")
    if not path.parent.is_dir():
        raise UserError(f"cannot write {path}: there is no folder {path.parent}")
    check_writable(path.parent)


def write_search_page(
    answers: Sequence[tuple[str, Sequence[Hit]]], path: Path, *, about: str
) -> None:
    """Write a page with each text and its hits; it shows the videos from where they are.

    about: one line on what was searched and how. The page asks nothing of a network.
    """
    content = {
        "about": about,
        "answers": [
            {"text": text, "hits": [{**asdict(hit), "address": _address(hit)} for hit in hits]}
            for text, hits in answers
        ],
    }
    write_page_of("search.html", path, content)


def _address(hit: Hit) -> str | None:
    """The file with its moment as a media fragment (W3C Media Fragments URI 1.0, section 4.2.1);
    None when it is not there."""
    if not Path(hit.video).is_file():
        return None
    video = Path(hit.video).absolute().as_uri()
    return f"{video}#t={hit.start_seconds:.3f},{hit.end_seconds:.3f}"
