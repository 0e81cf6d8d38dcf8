"""Queries of a split against its clips at the token level."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
from torch import Tensor

from ...extract.cache.ragged import ragged_rows
from ...extract.cache.store import SplitFeatures
from ..data.split import move_if_it_fits
from ..data.token_batches import TokenFeatures, offsets_of_items
from ..model.model import AlignmentModel
from .encode_blocks import frames_in_blocks

BLOCK_SCORES: Final = 1 << 20
"""Held at a time, with the words of their queries."""


def query_tokens(
    split: SplitFeatures, texts: np.ndarray, *, device: torch.device
) -> TokenFeatures | None:
    """All frames of the split and the words of some texts, (T,) int64; on the device where they fit
    there. None where the split was read without."""
    if split.frames is None or split.tokens is None:
        return None
    rows, _ = ragged_rows(split.tokens.offsets, texts)
    frames, words = move_if_it_fits(split.frames.values, split.tokens.values[rows], device=device)
    return TokenFeatures(
        frames=frames,
        frame_offsets=split.frames.offsets,
        words=words,
        word_offsets=offsets_of_items(split.tokens.offsets, texts),
    )


def scores_of_queries(
    model: AlignmentModel, queries: TokenFeatures, *, clip_features: Tensor
) -> Iterator[Tensor]:
    """(q, N): of the first q queries with all clips, of the next ones and so on. clip_features:
    (N, D_v)."""
    counts = torch.from_numpy(np.diff(queries.frame_offsets)).to(model.log_logit_scale.device)
    frames = frames_in_blocks(model, clip_features, queries.frames, counts)
    block = max(1, BLOCK_SCORES // len(counts))
    for first in range(0, len(queries.word_offsets) - 1, block):
        offsets = queries.word_offsets[first : first + block + 1]
        words = queries.words[offsets[0] : offsets[-1]].to(frames.device).float()
        scores_NQ = model.token_scores(
            frames,
            model.encode_sentences(words),
            frame_offsets=queries.frame_offsets,
            word_offsets=offsets - offsets[0],
        )
        yield scores_NQ.T
