"""How long texts are beside what a text tower reads. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def context_length(tokenizer: Any) -> int:
    """Tokens that the tower of a tokenizer of open_clip reads, start and end among them."""
    return int(tokenizer.context_length)


def cut_texts(tokenizer: Any, texts: Sequence[str]) -> list[bool | None]:
    """Whether each text has more tokens than the tower reads; None where it cannot be known."""
    limit = context_length(tokenizer)
    lengths: dict[str, int | None] = {}
    for text in dict.fromkeys(texts):
        # A token is one character or more: short texts need no count.
        short = len(text.encode()) + 2 <= limit
        lengths[text] = 0 if short else num_tokens(tokenizer, text)
    counts = [lengths[text] for text in texts]
    return [None if count is None else count > limit for count in counts]


def num_tokens(tokenizer: Any, text: str) -> int | None:
    """Tokens of a text before anything is cut, start and end among them; None where unknown."""
    clean = tokenizer.clean_fn(text) if hasattr(tokenizer, "clean_fn") else text
    inner = getattr(tokenizer, "tokenizer", None)  # of the transformers library
    if inner is not None:
        return len(inner(clean)["input_ids"])
    if hasattr(tokenizer, "encode"):
        return len(tokenizer.encode(clean)) + 2
    return None
