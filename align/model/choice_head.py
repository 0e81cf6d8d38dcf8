"""Multiple choice: where in the clip the question points, and what option is seen there."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .heads import Residual
from .level_heads import LogitScale
from .scene_clock import SceneClock

# K = questions, O = options of all questions, L = segments of the longest clip, W = shared width

MAX_SHIFT: Final = 2
"""Scenes by which the attention is shifted at most, to either side."""
NARROWNESS: Final = 4.0
"""Of a shift: exp(-4 * (scenes off the mark)^2), 0.02 for a whole scene."""
START_SCALE: Final = 15.0
"""Of the attention, and of the options' logits: the inverse of a temperature near CLIP's start."""
START_STAY: Final = 2.0
"""Logit of no shift before training, of the others 0: a share of 0.65."""
SHIFT_DROPOUT: Final = 0.2


class ChoiceHead(nn.Module):
    """Two hops: the question attends to segments, the attention moves along time by shifts that the
    question says ("after", "before"), and each option is compared with what is found there.

        a = softmax_s(lambda * cos(q, v_s));  found = sum_s a'_s v_s;  logit = gamma * cos(found, o)
        a'_s = sum_k w_k sum_t a_t exp(-4 (u_s - u_t - k)^2)

    with u the scenes passed before a segment (`SceneClock`), so that a shift by one is a scene
    whatever the clip is cut into, w the softmax over shifts k of a linear map of the question, and
    a' normalised within the clip. q and o go through adapters of their own (residual, zero start).
    A single attention has no order: measured on scenes, it answers what comes after something no
    better than chance (docs/method.md). Before training the question points where it is most
    similar.
    """

    def __init__(self, width: int, *, hidden: int, dropout: float) -> None:
        """width: W.   hidden, dropout: of the adapters."""
        super().__init__()
        self.question = Residual(width, hidden=hidden, dropout=dropout, alpha=1.0)
        self.option = Residual(width, hidden=hidden, dropout=dropout, alpha=1.0)
        self.attention_scale = LogitScale(temperature=1 / START_SCALE)
        self.scale = LogitScale(temperature=1 / START_SCALE)
        self.clock = SceneClock()
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(SHIFT_DROPOUT)
        self.shift = nn.Linear(width, 2 * MAX_SHIFT + 1)
        nn.init.zeros_(self.shift.weight)
        nn.init.zeros_(self.shift.bias)
        with torch.no_grad():
            self.shift.bias[MAX_SHIFT] = START_STAY

    def forward(
        self,
        questions_KW: Tensor,
        options_OW: Tensor,
        question_of_O: Tensor,
        segments_KLW: Tensor,
        present_KL: Tensor,
    ) -> Tensor:
        """(O,) logits of the options.

        questions_KW, options_OW: unit vectors, an option's of "question option".
        question_of_O: (O,) int64.   segments_KLW: of each question's clip, unit vectors, padded on
        the right.   present_KL: bool, what is no padding, at least one segment of each.
        """
        asked_KW = F.normalize(self.question(questions_KW), dim=-1)
        cosines_KL = torch.einsum("kw,klw->kl", asked_KW, segments_KLW)
        scaled_KL = self.attention_scale(cosines_KL).masked_fill(~present_KL, -torch.inf)
        scenes_KL = self.clock(segments_KLW, present_KL)
        shares_KL = self._shifted(scaled_KL.softmax(dim=1), questions_KW, scenes_KL) * present_KL
        shares_KL = shares_KL / shares_KL.sum(dim=1, keepdim=True).clamp(min=1e-6)
        found_KW = F.normalize(torch.einsum("kl,klw->kw", shares_KL, segments_KLW), dim=-1)
        offered_OW = F.normalize(self.option(options_OW), dim=-1)
        logits: Tensor = self.scale((found_KW[question_of_O] * offered_OW).sum(dim=1))
        return logits

    def _shifted(self, shares_KL: Tensor, questions_KW: Tensor, scenes_KL: Tensor) -> Tensor:
        """(K, L), not normalised."""
        weights = self.shift(self.dropout(self.norm(questions_KW))).softmax(dim=1)
        shifts = torch.arange(-MAX_SHIFT, MAX_SHIFT + 1, device=scenes_KL.device)
        # (K, from, to, shift)
        off = (scenes_KL[:, None, :] - scenes_KL[:, :, None])[..., None] - shifts
        near = torch.exp(-NARROWNESS * off.square())
        return torch.einsum("kt,ktsj,kj->ks", shares_KL, near, weights)
