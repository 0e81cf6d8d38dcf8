"""One cosine of a clip with a text from those of its segments, where texts have no spans."""

from __future__ import annotations

from typing import assert_never

import torch
from torch import Tensor

from ..loss_config import WeakPooling

# S = segments, clips end to end; N = clips; T = texts


def pool_segments(
    cosines_ST: Tensor, *, counts_N: Tensor, pooling: WeakPooling, temperature: float
) -> Tensor:
    """(N, T): the cosines of a text with the segments of each clip as one cosine.

    cosines_ST: (S, T) float.   counts_N: (N,) int64, segments of each clip, at least one.

    max: of the best segment, as in multiple-instance learning. softmax: the mean of all, weighted
    by the softmax of cosine / temperature, as X-Pool (arXiv 2203.15086) weighs frames by a query.
    """
    best_NT = torch.segment_reduce(cosines_ST, "max", lengths=counts_N, axis=0)
    match pooling:
        case "max":
            return best_NT
        case "softmax":
            # Shifted by the best, which cancels in the quotient: exp does not overflow.
            top_ST = best_NT.detach().repeat_interleave(
                counts_N, dim=0, output_size=len(cosines_ST)
            )
            shares_ST = ((cosines_ST - top_ST) / temperature).exp()
            total_NT, weighted_NT = (
                torch.segment_reduce(table, "sum", lengths=counts_N, axis=0)
                for table in (shares_ST, shares_ST * cosines_ST)
            )
            return weighted_NT / total_NT
        case _:
            assert_never(pooling)
