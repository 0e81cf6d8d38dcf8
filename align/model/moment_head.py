"""Moments: where in its clip a text happens, by the sequence of its similarities."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# T = texts, L = segments of the longest clip among them

KERNEL: Final = 5
"""Segments that a convolution sees, as in XML's ConvSE (arXiv 2001.09099, section 4.2)."""
NUM_LENGTHS: Final = 16
"""Classes of a span's share of its clip, each with a learnt score."""
HIDDEN: Final = 16
"""Channels behind the offsets."""


class MomentHead(nn.Module):
    """Scores of spans of segments, and where inside its first and last segment a span begins and
    ends.

    Two 1-D convolutions over a text's scaled similarities give start and end scores (XML's ConvSE);
    a span's score is the sum of its start, its end and of a learnt score of its length beside the
    clip's. A third, of two layers, gives the offsets inside the segments (the boundary regression
    of UniVTG, arXiv 2307.16715), so that moments do not lie on the grid of the segments. Kernels
    start as the identity, lengths at zero, offsets at the segments' own bounds: before training
    the most similar segment is the likeliest span.
    """

    def __init__(self) -> None:
        super().__init__()
        self.start = _centred(KERNEL)
        self.end = _centred(KERNEL)
        self.length = nn.Parameter(torch.zeros(NUM_LENGTHS))
        self.offset_enter = nn.Conv1d(1, HIDDEN, KERNEL, padding=KERNEL // 2)
        self.offset_leave = nn.Conv1d(HIDDEN, 2, 1)
        nn.init.zeros_(self.offset_leave.weight)
        self.offset_leave.bias = nn.Parameter(torch.tensor([0.0, 1.0]))

    def forward(self, logits_TL: Tensor, present_TL: Tensor) -> tuple[Tensor, Tensor]:
        """(T, L, L) scores of the spans from segment i to segment j, minus infinity where there is
        no such span, and (T, L, 2) offsets: the share of a segment that lies before a moment that
        starts in it, and before the end of one that ends in it, not bounded.

        logits_TL: logit scale times the cosine of text and segment, clips padded on the right.
        present_TL: bool, what is no padding; a text's own convolutions see zeros beyond its clip,
        so what is in the other rows, and how far they are padded, has no effect.
        """
        sequence = logits_TL.masked_fill(~present_TL, 0.0)[:, None]
        starts_TL, ends_TL = self.start(sequence)[:, 0], self.end(sequence)[:, 0]
        places_L = torch.arange(present_TL.shape[1], device=present_TL.device)
        lengths_LL = places_L - places_L[:, None] + 1
        counts_T = present_TL.sum(dim=1)
        classes = (lengths_LL * NUM_LENGTHS - 1) // counts_T[:, None, None].clamp(min=1)
        scores_TLL = starts_TL[:, :, None] + ends_TL[:, None, :]
        scores_TLL = scores_TLL + self.length[classes.clamp(0, NUM_LENGTHS - 1)]
        is_span = (lengths_LL > 0) & present_TL[:, None, :]
        offsets = self.offset_leave(F.gelu(self.offset_enter(sequence)))
        return scores_TLL.masked_fill(~is_span, -torch.inf), offsets.transpose(1, 2)


def bounded_spans(segments_L2: Tensor, first: Tensor, last: Tensor, offsets_L2: Tensor) -> Tensor:
    """(n, 2) seconds of the spans from segments `first` to `last`, (n,) int64, of one clip.

    segments_L2: seconds.   offsets_L2: of `MomentHead`; held inside the segments. A span within
    one segment whose end would come before its start takes the whole segment.
    """
    lengths_L = segments_L2[:, 1] - segments_L2[:, 0]
    bounds_L2 = segments_L2[:, :1] + offsets_L2.clamp(0.0, 1.0) * lengths_L[:, None]
    spans = torch.stack([bounds_L2[first, 0], bounds_L2[last, 1]], dim=1)
    whole = torch.stack([segments_L2[first, 0], segments_L2[last, 1]], dim=1)
    return torch.where((spans[:, 1] > spans[:, 0])[:, None], spans, whole)


def _centred(kernel: int) -> nn.Conv1d:
    convolution = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)
    with torch.no_grad():
        convolution.weight.zero_()
        convolution.weight[0, 0, kernel // 2] = 1.0
    return convolution
