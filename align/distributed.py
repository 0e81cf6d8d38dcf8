"""Several processes of one training: they share the rows of the heads and see all of a batch.

Every process draws the same batches. A head maps only the process's own part of the rows; the
parts are gathered, so that each process has all vectors of the batch, the negatives of the others
among them, and computes the whole loss. The mean of the processes' gradients is then that of one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from .model.model import AlignmentModel


def is_started_by_torchrun() -> bool:
    """Whether this is one of several processes of a torchrun."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def process_group(*, on_gpu: bool) -> Iterator[None]:
    """Connect the processes of a torchrun while the block runs; nothing happens without one."""
    if not is_started_by_torchrun():
        yield
        return
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def num_processes() -> int:
    """Of the group; 1 without one."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first_process() -> bool:
    """Whether this process is the one that writes and prints."""
    return not dist.is_initialized() or dist.get_rank() == 0


def wait_for_all() -> None:
    """Return when all processes have come here."""
    if num_processes() > 1:
        dist.barrier()


def broadcast_from_first(value: bool, device: torch.device) -> bool:
    """The value of the first process, in all processes."""
    if num_processes() == 1:
        return value
    sent = torch.tensor([value], dtype=torch.int64, device=device)
    dist.broadcast(sent, src=0)
    return bool(sent.item())


def share_heads(model: AlignmentModel) -> None:
    """Make the heads of videos and texts map a part of the rows in each process, while training.

    Gradients are to be averaged by `average_gradients` afterwards.
    """
    for level in model.level_heads:
        for head in (level.video, level.text):
            shared = _SharedRows()
            head.register_forward_pre_hook(shared.before)
            head.register_forward_hook(shared.after)


def average_gradients(gradients: Sequence[Tensor]) -> None:
    """Replace the gradients by their mean over the processes, in one message."""
    if num_processes() == 1 or not gradients:
        return
    together = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(together)
    together /= num_processes()
    parts = torch.split(together, [gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


class _SharedRows:
    """Cuts what goes into a head, and gathers what comes out of it, in the order of the rows."""

    def __init__(self) -> None:
        self._parts: list[tuple[int, int, int]] = []

    def before(self, head: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """This process's rows, of (n, D), or its clips of (clips, segments, counts); None, for all
        of them, outside training and with too few."""
        num = num_processes()
        self._parts = []
        if not head.training or len(given[0]) < num:
            return None
        ends = np.cumsum([0, *map(len, np.array_split(np.arange(len(given[0])), num))])
        first, last = (int(end) for end in ends[dist.get_rank() :][:2])
        self._parts.append((first, last, len(given[0])))
        if len(given) == 1:
            return (given[0][first:last],)
        clips, segments, counts = given
        rows = (int(counts[:first].sum()), int(counts[:last].sum()))
        self._parts.append((*rows, len(segments)))
        return clips[first:last], segments[rows[0] : rows[1]], counts[first:last]

    def after(self, head: nn.Module, given: Any, made: Any) -> Any:
        """All rows."""
        if not self._parts:
            return None
        outputs = made if isinstance(made, tuple) else (made,)
        gathered = tuple(
            _Gathered.apply(output, *part)
            for output, part in zip(outputs, self._parts, strict=True)
        )
        return gathered if isinstance(made, tuple) else gathered[0]


class _Gathered(torch.autograd.Function):
    """Rows first to last of (total, W) from this process, the others from the others."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, first: int, last: int, total: int) -> Tensor:
        ctx.rows = slice(first, last)
        everyones = own.new_zeros(total, own.shape[1])
        everyones[ctx.rows] = own
        dist.all_reduce(everyones)  # one addend of each number is not 0: exact
        return everyones

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        # All processes have the same loss, so this is the whole gradient of these rows. It weighs
        # as much as all processes, for the mean over them has it once.
        return gradients[0][ctx.rows] * num_processes(), None, None, None
