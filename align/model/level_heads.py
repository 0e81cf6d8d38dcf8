"""A pair of heads for a level, and the learnt factor between its cosines and logits."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ...data_manifests.core.errors import SettingsError
from ..config import RunConfig
from ..head_config import HeadsConfig
from .heads import build_head, check_width


class LevelHeads(nn.Module):
    """The heads of one level: one for videos, one for texts, and the scale of their cosines."""

    def __init__(
        self,
        heads: HeadsConfig,
        *,
        dim_video: int,
        dim_text: int,
        scale: LogitScale,
        weighs_parts: bool,
    ) -> None:
        """weighs_parts: whether a clip is made of segments by the head `attention`."""
        super().__init__()
        self.video = build_head(heads.video, dim=dim_video, weighs_parts=weighs_parts)
        self.text = build_head(heads.text, dim=dim_text)
        self.scale = scale


def shared_width(heads: HeadsConfig, *, dim_video: int, dim_text: int) -> int:
    """The width that both heads end in; SettingsError where there is none."""
    sides = ((heads.video, dim_video), (heads.text, dim_text))
    for head, dim in sides:
        check_width(head, dim=dim)
    widths = [dim if head.width is None else head.width for head, dim in sides]
    if widths[0] != widths[1]:
        raise SettingsError(
            f"heads.video and heads.text must end in one width, got {widths[0]} and "
            f"{widths[1]} (the features have width {dim_video} and {dim_text}; null keeps it)"
        )
    return widths[0]


MAX_LOGIT_SCALE = 100.0
"""CLIP's bound (arXiv 2103.00020, section 2.5): larger ones made its training unstable."""
LARGEST_LOG_SCALE = math.log(MAX_LOGIT_SCALE) - 1e-6
"""Two steps of float32 inside the bound, beyond which the scale gets no gradient."""
START_BIAS = -10.0
"""SigLIP's (arXiv 2303.15343, section 3.2): nearly all pairs of a batch are negatives."""


class LogitScale(nn.Module):
    """Cosines to logits: a learnt factor of at most 100 and, for the sigmoid loss, a bias."""

    def __init__(
        self, *, temperature: float, has_bias: bool = False, is_learnt: bool = True
    ) -> None:
        """temperature: inverse of the first factor.   is_learnt: False where no loss reads the
        factor, which then stays as it is."""
        super().__init__()
        self.log_scale: Tensor
        log_scale = torch.tensor(-math.log(temperature))
        if is_learnt:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)
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


def level_scale(config: RunConfig, *, has_global: bool, has_segments: bool) -> LogitScale:
    """The scale of heads that these trained levels share, learnt where a loss reads it."""
    losses = config.losses
    is_hinge = losses.name == "hinge"  # its margin is between cosines
    has_term = has_global or (has_segments and losses.has_segment_term)
    is_factor = has_segments and losses.in_clip_weight > 0
    return LogitScale(
        temperature=losses.temperature,
        has_bias=losses.name == "sigmoid" and has_term,
        is_learnt=is_factor or (has_term and not is_hinge),
    )
