"""Open-ended questions: an answer of a vocabulary, from the segments that the question asks for."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# K = questions, L = segments of the longest clip among them, W = width of the shared space


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
