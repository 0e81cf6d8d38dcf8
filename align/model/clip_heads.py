"""Video heads that see the segments of a clip together, ragged clips end to end."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# N = clips, S = segments, D = width of the features; C = clips of a group, L = its longest clip

HEAD_WIDTH = 64
"""Of one attention head, as in CLIP's towers (arXiv 2103.00020)."""


class Temporal(nn.Module):
    """A transformer over the segments of a clip, whose last layer starts at zero, beside them.

    A segment gets alpha * |segment| * what the transformer says of it, a clip feature the mean of
    what it says of its segments: the identity at the start, to the last bit. A transformer over
    frame features is CLIP4Clip's "seqTransf" (arXiv 2104.08860).
    """

    def __init__(
        self, dim: int, *, hidden: int, num_layers: int, dropout: float, alpha: float
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.enter = nn.LayerNorm(dim)
        self.layers = nn.ModuleList(
            [_Layer(dim, hidden=hidden, dropout=dropout) for _ in range(num_layers)]
        )
        self.norm = nn.LayerNorm(dim)
        self.leave = _zero_linear(dim)

    def forward(
        self, clips_ND: Tensor, segments_SD: Tensor, counts_N: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(N, D) clip features, (S, D) segment features, (N,) segments of each clip, all > 0."""
        output_SD = torch.empty_like(segments_SD)
        starts_N = counts_N.cumsum(0) - counts_N
        for clips_C, length in _groups(counts_N):
            places_L = torch.arange(length, device=counts_N.device)
            present_CL = places_L < counts_N[clips_C, None]
            rows_CL = (starts_N[clips_C, None] + places_L).where(present_CL, 0)
            tokens_CLD = self.enter(segments_SD[rows_CL]) + _positions(places_L, segments_SD)
            for layer in self.layers:
                tokens_CLD = layer(tokens_CLD, present_CL)
            kept = self.leave(self.norm(tokens_CLD[present_CL]))
            output_SD = output_SD.index_copy(0, rows_CL[present_CL], kept)
        mean_ND = torch.segment_reduce(output_SD, "mean", lengths=counts_N, axis=0)
        return (
            _add_scaled(clips_ND, mean_ND, self.alpha),
            _add_scaled(segments_SD, output_SD, self.alpha),
        )


class AttentionPooling(nn.Module):
    """A head on single segments, with learnt weights of the segments in the vector of their clip.

    The weights are the softmax over the clip's segments of their product with a learnt query, as
    in attention pooling for multiple instances (arXiv 1802.04712). The query starts at zero: the
    weighted mean starts as the mean, to the last bit.
    """

    def __init__(self, dim: int, *, residual: nn.Module) -> None:
        """residual: the head of single features, (n, D) -> (n, D)."""
        super().__init__()
        self.residual = residual
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Parameter(torch.zeros(dim))

    def forward(self, features: Tensor) -> Tensor:
        """(n, D) -> (n, D), row by row."""
        moved: Tensor = self.residual(features)
        return moved

    def weighted_mean(self, vectors_SW: Tensor, segments_SD: Tensor, counts_N: Tensor) -> Tensor:
        """(N, W): of each clip the weighted mean of its vectors, (S, W), clips end to end.

        segments_SD: the features that the weights are made of.   counts_N: segments of each clip,
        all > 0.
        """
        logits_S = self.norm(segments_SD) @ self.query / math.sqrt(len(self.query))
        top_N = torch.segment_reduce(logits_S.detach(), "max", lengths=counts_N)
        shares_S = (logits_S - _spread(top_N, counts_N, len(logits_S))).exp()
        totals_N = torch.segment_reduce(shares_S, "sum", lengths=counts_N)
        weighted_SW = shares_S[:, None] * vectors_SW
        sums_NW = torch.segment_reduce(weighted_SW, "sum", lengths=counts_N, axis=0)
        return sums_NW / totals_N[:, None]


class _Layer(nn.Module):
    """A pre-norm transformer layer."""

    def __init__(self, dim: int, *, hidden: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = math.gcd(dim, max(1, dim // HEAD_WIDTH))
        self.attention_norm = nn.LayerNorm(dim)
        self.attention_enter = nn.Linear(dim, 3 * dim)
        self.attention_leave = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.enter = nn.Linear(dim, hidden)
        self.leave = nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens_CLD: Tensor, present_CL: Tensor) -> Tensor:
        """(C, L, D) -> (C, L, D); tokens that are not present, (C, L) bool, are not looked at."""
        together = self.attention_enter(self.attention_norm(tokens_CLD))
        query, key, value = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part in together.chunk(3, dim=-1)
        )
        seen = F.scaled_dot_product_attention(
            query, key, value, attn_mask=present_CL[:, None, None, :]
        )
        tokens_CLD = tokens_CLD + self.attention_leave(seen.transpose(1, 2).flatten(2))
        hidden = self.dropout(F.gelu(self.enter(self.norm(tokens_CLD))))
        left: Tensor = tokens_CLD + self.leave(hidden)
        return left


def _groups(counts_N: Tensor) -> list[tuple[Tensor, int]]:
    """Clips of like length, and the longest of each group: less than half of it is padding."""
    doublings_N = torch.frexp(counts_N.double() - 0.5).exponent  # 0 1 2 2 3 3 3 3 4 ...
    groups = []
    for doublings in sorted(set(doublings_N.tolist())):
        clips_C = (doublings_N == doublings).nonzero().squeeze(1)
        groups.append((clips_C, int(counts_N[clips_C].max())))
    return groups


def _positions(places_L: Tensor, features: Tensor) -> Tensor:
    """(L, D), for features (..., D): sines and cosines of the place in the clip (arXiv 1706.03762,
    section 3.5)."""
    half = torch.arange((features.shape[-1] + 1) // 2, device=places_L.device)
    angles = places_L[:, None] * torch.exp(-math.log(1e4) * half / len(half))
    both = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
    return both[:, : features.shape[-1]].to(features.dtype)


def _spread(values_N: Tensor, counts_N: Tensor, num_segments: int) -> Tensor:
    spread: Tensor = values_N.repeat_interleave(counts_N, dim=0, output_size=num_segments)
    return spread


def _add_scaled(features: Tensor, output: Tensor, alpha: float) -> Tensor:
    length: Tensor = features.norm(dim=-1, keepdim=True)
    return features + alpha * length * output


def _zero_linear(dim: int) -> nn.Linear:
    layer = nn.Linear(dim, dim)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
