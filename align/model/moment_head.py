"""Moments: where in its clip a text happens, by the sequence of its similarities."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .level_heads import LogitScale

# T = texts, L = segments of the longest clip among them

KERNEL: Final = 5
"""Segments that a convolution sees, as in XML's ConvSE (arXiv 2001.09099, section 4.2)."""
NUM_LENGTHS: Final = 16
"""Classes of a span's share of its clip, each with a learnt score."""
HIDDEN: Final = 64
"""Channels of the hidden convolutions."""
START_SCALE: Final = 15.0
"""Of the similarities: the inverse of a temperature near CLIP's start."""
CONTRAST: Final = 10.0
"""Factor of cosines on their way into the hidden convolutions: to about a unit of difference."""


class MomentHead(nn.Module):
    """Scores of spans of segments, and where inside its first and last segment a span begins and
    ends.

    Two 1-D convolutions over a text's scaled similarities give start and end scores (XML's ConvSE);
    a span's score is the sum of its start, its end and a learnt score of its length beside the
    clip's. Two hidden convolutions add to start and end, and give the offsets inside the segments
    (the boundary regression of UniVTG, arXiv 2307.16715), so that moments do not lie on the grid of
    the segments. They see the similarities, how far each is behind the clip's best, and **how
    similar each segment is to its neighbours**: a segment that is half of one scene and half of
    the next looks like both, and scenes end where neighbours differ. On scenes cut into eighths
    that is worth 8 points of R@1 at IoU 0.5 and 12 at 0.7 (docs/method.md).

    Kernels start as the identity, lengths and the hidden convolutions' part at zero, offsets at the
    segments' own bounds: before training the most similar segment is the likeliest span.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scale = LogitScale(temperature=1 / START_SCALE)
        self.start = _centred(KERNEL)
        self.end = _centred(KERNEL)
        self.length = nn.Parameter(torch.zeros(NUM_LENGTHS))
        self.enter = nn.Conv1d(4, HIDDEN, KERNEL, padding=KERNEL // 2)
        self.inner = nn.Conv1d(HIDDEN, HIDDEN, KERNEL, padding=KERNEL // 2)
        self.leave = nn.Conv1d(HIDDEN, 4, 1, bias=False)
        nn.init.zeros_(self.leave.weight)
        self.whole = nn.Parameter(torch.tensor([[0.0], [1.0]]))

    def forward(
        self, cosines_TL: Tensor, previous_TL: Tensor, present_TL: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(T, L, L) scores of the spans from segment i to segment j, minus infinity where there is
        no such span, and (T, L, 2) offsets: the share of a segment that lies before a moment that
        starts in it, and before the end of one that ends in it, not bounded.

        cosines_TL: of text and segment, clips padded on the right.   previous_TL: of each segment
        with the one before it (`scene_clock.previous_cosines`).   present_TL: bool, what is no
        padding; a text's own convolutions see zeros beyond its clip, so what is in the other rows,
        and how far they are padded, has no effect.
        """
        logits_T1L = self.scale(cosines_TL).masked_fill(~present_TL, 0.0)[:, None]
        added_T4L = self._hidden(logits_T1L, cosines_TL, previous_TL, present_TL)
        starts_TL = self.start(logits_T1L)[:, 0] + added_T4L[:, 0]
        ends_TL = self.end(logits_T1L)[:, 0] + added_T4L[:, 1]
        places_L = torch.arange(present_TL.shape[1], device=present_TL.device)
        lengths_LL = places_L - places_L[:, None] + 1
        counts_T = present_TL.sum(dim=1)
        classes = (lengths_LL * NUM_LENGTHS - 1) // counts_T[:, None, None].clamp(min=1)
        scores_TLL = starts_TL[:, :, None] + ends_TL[:, None, :]
        scores_TLL = scores_TLL + self.length[classes.clamp(0, NUM_LENGTHS - 1)]
        is_span = (lengths_LL > 0) & present_TL[:, None, :]
        return scores_TLL.masked_fill(~is_span, -torch.inf), (
            added_T4L[:, 2:] + self.whole
        ).transpose(1, 2)

    def _hidden(
        self, logits_T1L: Tensor, cosines_TL: Tensor, previous_TL: Tensor, present_TL: Tensor
    ) -> Tensor:
        """(T, 4, L): what is added to start and end scores, and the offsets of start and end."""
        best_T1 = cosines_TL.masked_fill(~present_TL, -1.0).amax(dim=1, keepdim=True)
        following_TL = F.pad(previous_TL[:, 1:], (0, 1)) * F.pad(present_TL[:, 1:], (0, 1))
        seen = CONTRAST * torch.stack([cosines_TL - best_T1, previous_TL, following_TL], dim=1)
        seen = torch.cat([logits_T1L, seen.masked_fill(~present_TL[:, None], 0.0)], dim=1)
        # A clip's end looks the same with padding behind it and without.
        hidden = F.gelu(self.enter(seen)).masked_fill(~present_TL[:, None], 0.0)
        added: Tensor = self.leave(F.gelu(self.inner(hidden)))
        return added


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
