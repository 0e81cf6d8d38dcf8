"""The sentences of a text, by a stated rule."""

from __future__ import annotations

import re
from typing import Final

ABBREVIATIONS: Final = frozenset(
    "al approx art capt cf co corp dept dr e.g eq et etc fig gen gov i.e inc jr lt ltd mr mrs ms "
    "mt no nr pp prof rev sec sen sgt sr st vol vs".split()
)
"""Words whose full stop ends no sentence, without that full stop."""
_END: Final = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+|(?<=[。！？])[」』”]*\s*|\s*\n+\s*")
"""After a mark that ends sentences, with closing quotes, where white space follows; ideographic
marks need none; a line end always ends one."""
_WORD: Final = re.compile(r"\w")


def split_sentences(text: str) -> list[str]:
    """The sentences of a text in their order, stripped; one or more.

    A sentence ends after . ! ? or … before white space, after the ideographic full stop,
    exclamation and question mark, and at a line end. A full stop ends none after an abbreviation,
    an initial ("J.") or a number that a line begins with ("2. Cut"), and a piece without a letter
    or digit joins the one before it. What follows may begin in lower case, as captions do. A text
    without any word is its own only sentence.
    """
    pieces: list[str] = []
    begin = 0
    for match in _END.finditer(text):
        piece = text[begin : match.end()]
        if match.end() == len(text) or _goes_on(text[begin : match.start()], match.group()):
            continue
        pieces.append(piece)
        begin = match.end()
    pieces.append(text[begin:])
    sentences: list[str] = []
    for piece in pieces:
        stripped = " ".join(piece.split())
        if sentences and not _WORD.search(stripped):
            sentences[-1] = f"{sentences[-1]} {stripped}".strip()
        else:
            sentences.append(stripped)
    if len(sentences) > 1 and not _WORD.search(sentences[0]):
        sentences[:2] = [f"{sentences[0]} {sentences[1]}".strip()]
    return sentences


def _goes_on(before: str, mark: str) -> bool:
    """Whether the full stop at the end of `before` belongs to its last word. mark: what follows."""
    if "\n" in mark or not before.rstrip("\"'”’)]").endswith("."):
        return False
    words = before.rstrip("\"'”’)]").split()
    last = words[-1].rstrip(".").lstrip("(\"'“‘[")
    is_initial = len(last) == 1 and last.isupper()
    is_list_number = len(words) == 1 and last.isdigit()
    return last.casefold() in ABBREVIATIONS or is_initial or is_list_number
