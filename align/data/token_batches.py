"""Frames of clips and words of texts: those of a split, and which of them a batch compares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...extract.cache.ragged import ragged_rows
from ...extract.cache.split_features import SplitFeatures


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenFeatures:
    """What the token level compares, in the type that the cache stores."""

    frames: Tensor
    """(F, D_v), clips end to end."""
    frame_offsets: np.ndarray
    """(N + 1,) int64: clip i has frames [offsets[i], offsets[i + 1]), at least one."""
    words: Tensor
    """(K, D_t), texts end to end."""
    word_offsets: np.ndarray
    """(T + 1,) int64, the same of texts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenBatch:
    """Rows of TokenFeatures: the frames of B clips and the words of T texts."""

    frames: Tensor
    """(F,) int64, clips end to end."""
    frame_offsets: np.ndarray
    """(B + 1,) int64, within `frames`."""
    words: Tensor
    """(K,) int64, texts end to end."""
    word_offsets: np.ndarray
    """(T + 1,) int64, within `words`."""


def token_features(split: SplitFeatures, frames: Tensor, words: Tensor) -> TokenFeatures:
    """frames, words: the split's, wherever they were put."""
    assert split.frames is not None and split.tokens is not None, "the split was read without"
    return TokenFeatures(
        frames=frames,
        frame_offsets=split.frames.offsets,
        words=words,
        word_offsets=split.tokens.offsets,
    )


def token_batch(
    features: TokenFeatures, clips: np.ndarray, texts: np.ndarray, *, device: torch.device
) -> TokenBatch:
    """All frames of the clips, (B,) int64, and all words of the texts, (T,) int64."""
    frames, _ = ragged_rows(features.frame_offsets, clips)
    words, _ = ragged_rows(features.word_offsets, texts)
    return TokenBatch(
        frames=torch.from_numpy(frames).to(device),
        frame_offsets=offsets_of_items(features.frame_offsets, clips),
        words=torch.from_numpy(words).to(device),
        word_offsets=offsets_of_items(features.word_offsets, texts),
    )


def offsets_of_items(offsets: np.ndarray, items: np.ndarray) -> np.ndarray:
    """(m + 1,) int64: offsets of the given items of a ragged array, when their rows are taken."""
    return np.concatenate([[0], np.cumsum(np.diff(offsets)[items])]).astype(np.int64)
