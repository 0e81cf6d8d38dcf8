"""The learnt factor between cosines and logits."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

MAX_LOGIT_SCALE = 100.0
"""CLIP's bound (arXiv 2103.00020, section 2.5): larger ones made its training unstable."""
LARGEST_LOG_SCALE = math.log(MAX_LOGIT_SCALE) - 1e-6
"""Two steps of float32 inside the bound, beyond which the scale gets no gradient."""
START_BIAS = -10.0
"""SigLIP's (arXiv 2303.15343, section 3.2): nearly all pairs of a batch are negatives."""


class LogitScale(nn.Module):
    """Cosines to logits: a learnt factor of at most 100 and, for the sigmoid loss, a bias."""

    def __init__(self, *, temperature: float, has_bias: bool = False) -> None:
        """temperature: inverse of the first factor."""
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.bias = nn.Parameter(torch.tensor(START_BIAS)) if has_bias else None

    @property
    def value(self) -> Tensor:
        """The factor, a scalar."""
        return self.log_scale.clamp(max=math.log(MAX_LOGIT_SCALE)).exp()

    def forward(self, cosines: Tensor) -> Tensor:
        """The same shape: factor times cosine, plus the bias if there is one."""
        scaled = self.value * cosines
        return scaled if self.bias is None else scaled + self.bias

    @torch.no_grad()
    def clamp(self) -> None:
        """Bring the parameter itself back inside its bound."""
        self.log_scale.clamp_(max=LARGEST_LOG_SCALE)
