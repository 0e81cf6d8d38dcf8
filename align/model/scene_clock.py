"""Time counted in scenes: how often the picture has changed since the start of the clip."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# K = clips, L = segments of the longest of them, W = width of the shared space

START_SLOPE: Final = 10.0
START_THRESHOLD: Final = 0.7
"""Cosine of neighbours that counts as half a change before training."""


class SceneClock(nn.Module):
    """Changes of scene before each segment, a soft count with a learnt threshold.

        passed_s = step_1 + ... + step_s;  step_s = sigmoid(slope * (threshold - cos(v_s, v_s-1)))

    Questions count in scenes and events ("what comes right after", "in the third scene"), and how
    many segments those take depends on how a clip is cut. Segments that are scenes step by one;
    of those that a scene spans only the first steps. On scenes cut into eighths the answer head
    goes from 32 to 56 % with it (docs/method.md).
    """

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(START_SLOPE))
        self.threshold = nn.Parameter(torch.tensor(START_THRESHOLD))

    def forward(self, segments_KLW: Tensor, present_KL: Tensor) -> Tensor:
        """(K, L), 0 for a clip's first segment; padding has the count of the last segment.

        segments_KLW: unit vectors, clips padded on the right.   present_KL: bool.
        """
        steps_KL = self.slope * (self.threshold - previous_cosines(segments_KLW))
        inner_KL = present_KL & (torch.arange(present_KL.shape[1], device=present_KL.device) > 0)
        return torch.sigmoid(steps_KL).masked_fill(~inner_KL, 0.0).cumsum(dim=1)


def previous_cosines(segments_KLW: Tensor) -> Tensor:
    """(K, L): the cosine of each segment with the one before it; 0 for the first, and padding.

    segments_KLW: unit vectors of clips, padded on the right with zeros.
    """
    return F.pad((segments_KLW[:, 1:] * segments_KLW[:, :-1]).sum(dim=2), (1, 0))
