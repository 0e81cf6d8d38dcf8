"""All features of a split through the heads, block by block: what lies between features and vectors
is there for a block only. The same for the scores of the token level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import torch
from torch import Tensor

from ...extract.cache.ragged import ragged_rows
from ...extract.cache.split_features import SplitFeatures
from ..data.split import BLOCK_ROWS, move_if_it_fits
from ..data.token_batches import TokenFeatures, offsets_of_items
from ..model.model import AlignmentModel


def in_blocks(encode: Callable[[Tensor], Tensor], features: Tensor, device: torch.device) -> Tensor:
    """(n, W) on the device, of (n, D) features of any type, wherever they are."""
    blocks = [encode(block.to(device).float()) for block in torch.split(features, BLOCK_ROWS)]
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks)


def videos_in_blocks(
    model: AlignmentModel, clips: Tensor, segments: Tensor, counts: Tensor
) -> tuple[Tensor, Tensor]:
    """(N, W) and (S, W) on the device of the counts: clips with their segments (or frames), in
    blocks of clips.

    clips: (N, D).   segments: (S, D), clips end to end.   counts: (N,) int64, of each clip.
    """
    device = counts.device
    ends = counts.cumsum(0).cpu()
    blocks = []
    first = 0
    while first < len(ends):
        begin = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(torch.searchsorted(ends, begin + BLOCK_ROWS, right=True)))
        some = clips[first:last].to(device)
        some_segments = segments[begin : int(ends[last - 1])].to(device).float()
        blocks.append(model.encode_videos(some, some_segments, counts[first:last]))
        first = last
    if len(blocks) == 1:
        return blocks[0]
    clips_of_blocks, segments_of_blocks = zip(*blocks, strict=True)
    return torch.cat(clips_of_blocks), torch.cat(segments_of_blocks)


def texts_in_blocks(
    model: AlignmentModel, texts: Tensor, sentences: Tensor, counts: Tensor
) -> tuple[Tensor, Tensor]:
    """(T, W) and (R, W) on the device of the counts: texts with their sentences.

    texts: (T, D).   sentences: (R, D), texts end to end.   counts: (T,) int64, of each text.
    """
    ends = counts.cumsum(0).cpu()
    pieces = []
    for first in range(0, len(texts), TEXTS_AT_ONCE):
        last = min(first + TEXTS_AT_ONCE, len(texts))
        begin = int(ends[first - 1]) if first else 0
        some = texts[first:last].to(counts.device)
        some_sentences = sentences[begin : int(ends[last - 1])].to(counts.device)
        pieces.append(model.encode_texts(some, some_sentences, counts[first:last]))
    wholes, parts = zip(*pieces, strict=True)
    return torch.cat(wholes), torch.cat(parts)


def frames_in_blocks(
    model: AlignmentModel, clips: Tensor, frames: Tensor, counts: Tensor
) -> Tensor:
    """(F, W) on the device of the counts: `AlignmentModel.encode_frames` of all clips."""
    if model.sees_segments_together:
        return videos_in_blocks(model, clips, frames, counts)[1]
    return in_blocks(model.encode_segments, frames, counts.device)


TEXTS_AT_ONCE: Final = 1 << 14
"""Texts that go through the heads at once, with all of their sentences."""
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
    counts = torch.from_numpy(np.diff(queries.frame_offsets)).to(model.device)
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
