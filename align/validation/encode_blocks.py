"""All features of a split through the heads, block by block: what lies between features and vectors
is there for a block only."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..data.split import BLOCK_ROWS
from ..model.model import AlignmentModel


def in_blocks(encode: Callable[[Tensor], Tensor], features: Tensor, device: torch.device) -> Tensor:
    """(n, W) on the device, of (n, D) features of any type, wherever they are."""
    blocks = [encode(block.to(device).float()) for block in torch.split(features, BLOCK_ROWS)]
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks)


def videos_in_blocks(
    model: AlignmentModel, clips: Tensor, segments: Tensor, counts: Tensor
) -> tuple[Tensor, Tensor]:
    """(N, W) and (S, W) on the device of the counts: clips with their segments (or frames), in
    blocks of clips.

    clips: (N, D).   segments: (S, D), clips end to end.   counts: (N,) int64, of each clip.
    """
    device = counts.device
    ends = counts.cumsum(0).cpu()
    blocks = []
    first = 0
    while first < len(ends):
        begin = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(torch.searchsorted(ends, begin + BLOCK_ROWS, right=True)))
        some = clips[first:last].to(device)
        some_segments = segments[begin : int(ends[last - 1])].to(device).float()
        blocks.append(model.encode_videos(some, some_segments, counts[first:last]))
        first = last
    if len(blocks) == 1:
        return blocks[0]
    clips_of_blocks, segments_of_blocks = zip(*blocks, strict=True)
    return torch.cat(clips_of_blocks), torch.cat(segments_of_blocks)


def frames_in_blocks(
    model: AlignmentModel, clips: Tensor, frames: Tensor, counts: Tensor
) -> Tensor:
    """(F, W) on the device of the counts: `AlignmentModel.encode_frames` of all clips."""
    if model.sees_segments_together:
        return videos_in_blocks(model, clips, frames, counts)[1]
    return in_blocks(model.encode_segments, frames, counts.device)
