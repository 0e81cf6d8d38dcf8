"""The page of a search: every hit as a player that starts at its moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from .page_template import write_page_of
from .search import Hit


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


def _address(hit: Hit) -> str:
    """The file with the moment as a media fragment (W3C Media Fragments URI 1.0, section 4.2.1)."""
    video = Path(hit.video).absolute().as_uri()
    return f"{video}#t={hit.start_seconds:.3f},{hit.end_seconds:.3f}"
