"""The heads of the tasks: an answer to a question, and where in its clip a text happens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# K = questions, T = texts, L = segments of the longest clip among them
# W = width of the shared space


class AnswerHead(nn.Module):
    """A question with the segments of its clip, as a point in the shared space: near its answer.

    The segments are pooled by attention whose query is the question (X-Pool's text-conditioned
    pooling, arXiv 2203.15086, without its projections); pooled segments and question are added,
    and so is an MLP of both and their product, whose last layer starts at zero.
    """

    def __init__(self, width: int, *, hidden: int, dropout: float) -> None:
        """width: W.   hidden: of the MLP.   dropout: of its hidden units."""
        super().__init__()
        self.log_attention_scale = nn.Parameter(torch.tensor(2.0))
        self.norm = nn.LayerNorm(3 * width)
        self.enter = nn.Linear(3 * width, hidden)
        self.dropout = nn.Dropout(dropout)
        self.leave = nn.Linear(hidden, width)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, questions_KW: Tensor, segments_KLW: Tensor, present_KL: Tensor) -> Tensor:
        """(K, W), normalised.

        questions_KW, segments_KLW: normalised vectors, the segments of each question's clip padded
        on the right.   present_KL: bool, what is no padding, at least one segment of each.
        """
        cosines_KL = torch.einsum("kw,klw->kl", questions_KW, segments_KLW)
        scaled_KL = self.log_attention_scale.exp() * cosines_KL
        shares_KL = scaled_KL.masked_fill(~present_KL, -torch.inf).softmax(dim=1)
        pooled_KW = torch.einsum("kl,klw->kw", shares_KL, segments_KLW)
        together = torch.cat([pooled_KW, questions_KW, pooled_KW * questions_KW], dim=1)
        moved_KW = self.leave(self.dropout(F.gelu(self.enter(self.norm(together)))))
        return F.normalize(pooled_KW + questions_KW + moved_KW, dim=-1)


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
