"""The tokens of a text: which of them count, and what the text tower makes of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import open_clip
import torch
from open_clip.transformer import TextTransformer
from torch import Tensor, nn

# n = texts, L = places of the tower's context, W = width of the tower, D = width of the features

COUNTED_TOGETHER: Final = 4096
"""Texts whose ids are in memory at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenLayers:
    """The last layers of a text tower: they map every token as they map the one whose output
    becomes the text's feature."""

    norm: nn.Module
    projection: nn.Module | Tensor | None

    @contextmanager
    def recorded(self) -> Iterator[list[Tensor]]:
        """(n, L, W) of all tokens behind the norm, for each pass through the tower in the block;
        what the tower computes stays as it is."""
        passes: list[Tensor] = []
        hook = self.norm.register_forward_hook(lambda norm, given, made: passes.append(made))
        try:
            yield passes
        finally:
            hook.remove()

    def project(self, tokens: Tensor) -> Tensor:
        """(n, L, W) -> (n, L, D)."""
        match self.projection:
            case None:
                return tokens
            case nn.Module() as layer:
                projected: Tensor = layer(tokens)
                return projected
            case matrix:
                return tokens @ matrix


def token_layers(model: nn.Module) -> TokenLayers | None:
    """None for a text tower that has no such layers: one of another library, or one that makes its
    feature of a token of its own (CoCa's)."""
    tower: Any = model if isinstance(model, open_clip.CLIP) else getattr(model, "text", None)
    if not isinstance(tower, open_clip.CLIP | TextTransformer):
        return None
    if getattr(tower, "cls_emb", None) is not None:
        return None
    return TokenLayers(norm=tower.ln_final, projection=tower.text_projection)


def is_kept(ids: Tensor, tokenizer: Any) -> Tensor:
    """(n, L) bool: the tokens of words and the first end token, in (n, L) ids; at least one of each
    text. The start token, which is the same for all texts, and padding are not."""
    start, end = _special_ids(tokenizer)
    is_end = ids == end
    lengths = torch.where(is_end.any(dim=1), is_end.int().argmax(dim=1) + 1, ids.shape[1])
    kept = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
    if start is not None:
        kept[:, 0] &= ids[:, 0] != start
    return kept


def knows_its_end(tokenizer: Any) -> bool:
    """Whether `is_kept` can tell words from padding by this tokenizer."""
    try:
        _special_ids(tokenizer)
    except ValueError:
        return False
    return True


def count_tokens(tokenizer: Any, texts: Sequence[str]) -> np.ndarray:
    """(n,) int64: tokens that are kept of each text."""
    numbers: dict[str, int] = {}
    unique = list(dict.fromkeys(texts))
    for start in range(0, len(unique), COUNTED_TOGETHER):
        some = unique[start : start + COUNTED_TOGETHER]
        counts = is_kept(tokenizer(some), tokenizer).sum(dim=1).tolist()
        numbers.update(zip(some, counts, strict=True))
    return np.array([numbers[text] for text in texts], dtype=np.int64)


def _special_ids(tokenizer: Any) -> tuple[int | None, int]:
    """The ids of the start (None: there is none) and of the end. Raises ValueError."""
    if isinstance(tokenizer, open_clip.SimpleTokenizer):
        return tokenizer.sot_token_id, tokenizer.eot_token_id
    inner = getattr(tokenizer, "tokenizer", None)  # of the transformers library
    end = getattr(inner, "eos_token_id", None)
    if end is None or tokenizer.strip_sep_token or tokenizer.tokenizer_mode:
        raise ValueError("its tokenizer does not mark the end of a text")
    return getattr(inner, "bos_token_id", None), int(end)
