"""The token level's score: the frames of a clip with the words of a text, late interaction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .heads import MLP

# N = clips, F = frames, T = texts, K = words (tokens), all clips and texts end to end
# C = clips of a group, L = its most frames; S = texts of a group, M = its most words

GROUP_ROWS: Final = 4096
"""Frames, or words, that are compared at a time, padding among them: a table of cosines takes 64
MiB at most, and a few of them are there at once."""
SHARE_OF_PADDING: Final = 0.25
"""Of the rows of a group, at most."""


def token_scores(
    frames_FW: Tensor,
    words_KW: Tensor,
    *,
    frame_offsets: np.ndarray,
    word_offsets: np.ndarray,
    frame_logits_F: Tensor | None = None,
    word_logits_K: Tensor | None = None,
) -> Tensor:
    """(N, T) float: every clip with every text, in [-1, 1].

    frames_FW, words_KW: unit vectors.   frame_offsets: (N + 1,) int64, clip i has frames
    [offsets[i], offsets[i + 1]), at least one; word_offsets: (T + 1,) the same of texts.

    The score is half the mean over the words of the cosine with their best frame, plus half the
    mean over the frames of the cosine with their best word: FILIP (arXiv 2111.07783), the token
    interaction of DRL (arXiv 2203.07111). With logits the means are weighted by the softmax of the
    logits over the words of a text and over the frames of a clip (DRL's weighted interaction);
    logits of 0 give the plain means, to the last bit.

    Tables of cosines are there for some clips and texts at a time: where there are more, they are
    made again for the gradient instead of being kept.
    """
    if len(frames_FW) == 0 or len(words_KW) == 0:
        return frames_FW[frame_offsets[:-1]] @ words_KW[word_offsets[:-1]].T  # of no entries
    clips = list(_groups(frames_FW, frame_offsets, frame_logits_F))
    texts = list(_groups(words_KW, word_offsets, word_logits_K))
    is_kept = len(frames_FW) * len(words_KW) <= GROUP_ROWS**2 or not torch.is_grad_enabled()
    rows = []
    for clip in clips:
        blocks = [
            _block(clip.vectors, text.vectors, clip.shares, text.shares)
            if is_kept
            else checkpoint(
                _block,
                clip.vectors,
                text.vectors,
                clip.shares,
                text.shares,
                use_reentrant=False,
                preserve_rng_state=False,
            )
            for text in texts
        ]
        rows.append(torch.cat(blocks, dim=1))
    in_groups = torch.cat(rows)
    back = [_inverse(groups, device=frames_FW.device) for groups in (clips, texts)]
    return in_groups.index_select(0, back[0]).index_select(1, back[1])


@dataclass(frozen=True, kw_only=True, slots=True)
class _Group:
    """Items of like length, padded to the longest."""

    items: np.ndarray
    """(C,) int64, which ones."""
    vectors: Tensor
    """(L, C, W): place k of each; an item's last vector again behind its end, where it changes no
    maximum."""
    shares: Tensor
    """(L, C), of the item's mean; 0 behind its end."""


def _block(
    frames_LCW: Tensor, words_MSW: Tensor, frame_shares_LC: Tensor, word_shares_MS: Tensor
) -> Tensor:
    """(C, S): the scores of two groups."""
    num_frames, num_words = frames_LCW.shape[:2], words_MSW.shape[:2]
    flat = frames_LCW.flatten(0, 1) @ words_MSW.flatten(0, 1).T
    cosines_LCMS = flat.view(*num_frames, *num_words)
    best_frame_CMS = cosines_LCMS.amax(dim=0)
    best_word_LCS = cosines_LCMS.amax(dim=2)
    of_words_CS = (best_frame_CMS * word_shares_MS).sum(dim=1) / word_shares_MS.sum(dim=0)
    of_frames_CS = (best_word_LCS * frame_shares_LC[:, :, None]).sum(dim=0)
    return (of_words_CS + of_frames_CS / frame_shares_LC.sum(dim=0)[:, None]) / 2


def _groups(vectors: Tensor, offsets: np.ndarray, logits: Tensor | None) -> Iterator[_Group]:
    starts, counts = offsets[:-1], np.diff(offsets)
    for items in _of_like_length(counts):
        places = np.arange(counts[items].max())[:, None]
        rows = torch.from_numpy(starts[items] + np.minimum(places, counts[items] - 1))
        present = torch.from_numpy(places < counts[items])
        rows, present = rows.to(vectors.device), present.to(vectors.device)
        # Not vectors[rows]: its gradient adds up in an order that differs from run to run.
        picked = vectors.index_select(0, rows.flatten()).view(*rows.shape, vectors.shape[1])
        shares = present.to(vectors.dtype)
        if logits is not None:
            padded = logits.index_select(0, rows.flatten()).view(rows.shape)
            shares = shares * (padded - padded.detach().amax(dim=0)).exp()
        yield _Group(items=items, vectors=picked, shares=shares)


def _of_like_length(counts: np.ndarray) -> Iterator[np.ndarray]:
    """The items, (n,) counts, in groups of few rows and little padding."""
    order = np.argsort(counts, kind="stable")
    first = own_rows = 0
    for place, item in enumerate(order):
        padded = (place - first + 1) * counts[item]
        own_rows += counts[item]
        is_full = padded > GROUP_ROWS or padded - own_rows > SHARE_OF_PADDING * padded
        if is_full and place > first:
            yield order[first:place]
            first, own_rows = place, counts[item]
    if first < len(order):
        yield order[first:]


def _inverse(groups: list[_Group], *, device: torch.device) -> Tensor:
    """(n,) int64: where in the groups, end to end, each item is."""
    order = np.concatenate([group.items for group in groups])
    return torch.from_numpy(np.argsort(order)).to(device)


class TokenHead(nn.Module):
    """Logits of frames and of words, all 0 at the start: then every one counts as much.

    An MLP for each side, as in DRL's weighted token interaction (arXiv 2203.07111).
    """

    def __init__(self, width: int) -> None:
        """width: W, of the shared space."""
        super().__init__()
        self.frames = _zero_mlp(width)
        self.words = _zero_mlp(width)

    def of_frames(self, vectors: Tensor) -> Tensor:
        """(F, W) -> (F,)."""
        logits: Tensor = self.frames(vectors).squeeze(1)
        return logits

    def of_words(self, vectors: Tensor) -> Tensor:
        """(K, W) -> (K,)."""
        logits: Tensor = self.words(vectors).squeeze(1)
        return logits


def _zero_mlp(width: int) -> MLP:
    mlp = MLP(width, hidden=width, width=1, dropout=0.0)
    nn.init.zeros_(mlp.leave.weight)
    nn.init.zeros_(mlp.leave.bias)
    return mlp
