"""Where in its clip a text happens: start and end, from its similarities with the segments."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# T = texts, L = segments of the longest clip among them

KERNEL = 5
"""Segments that a convolution sees, as in XML's ConvSE (arXiv 2001.09099, section 4.2)."""


class MomentHead(nn.Module):
    """Two 1-D convolutions over the sequence of a text's similarities: start and end logits.

    XML's ConvSE. Both kernels start as the identity, so that before training the most similar
    segment is the likeliest start and end.
    """

    def __init__(self) -> None:
        super().__init__()
        self.start = _centred(KERNEL)
        self.end = _centred(KERNEL)

    def forward(self, logits_TL: Tensor, present_TL: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities that a text starts and ends at each segment, (T, L) each.

        logits_TL: logit scale times the cosine of text and segment, clips padded on the right.
        present_TL: bool, what is no padding; a text's own convolutions see zeros beyond its clip,
        so what is in the other rows, and how far they are padded, has no effect.
        """
        sequence = logits_TL.masked_fill(~present_TL, 0.0)[:, None]
        scores = []
        for convolution in (self.start, self.end):
            scored = convolution(sequence)[:, 0].masked_fill(~present_TL, -torch.inf)
            scores.append(F.log_softmax(scored, dim=1))
        return scores[0], scores[1]


def _centred(kernel: int) -> nn.Conv1d:
    convolution = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)
    with torch.no_grad():
        convolution.weight.zero_()
        convolution.weight[0, 0, kernel // 2] = 1.0
    return convolution
