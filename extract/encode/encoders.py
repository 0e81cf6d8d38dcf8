"""Backbones at work, one per device: batches go in, features come out, and nobody waits for a
transfer."""

from __future__ import annotations

import copy
import platform
import queue
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch

from ..config import ExtractConfig
from .backbones import Backbone, load_backbone
from .devices import pick_devices, unused_gpu


class Encoders:
    """A thread for each backbone: batches are encoded side by side, each by whichever is free.

    A GPU has two threads: while it works on one batch, the other thread copies the next one to it.
    Which backbone has a batch changes no feature, as long as the devices are of one model.
    """

    def __init__(self, backbones: Sequence[Backbone]) -> None:
        """backbones: equal ones, each on its device."""
        self.backbone = backbones[0]
        """For texts, and for what is the same for all."""
        self.devices = tuple(str(backbone.device) for backbone in backbones)
        turns = [
            backbone
            for turn in range(2)
            for backbone in backbones
            if turn == 0 or backbone.device.type == "cuda"
        ]
        self._free: queue.SimpleQueue[Backbone] = queue.SimpleQueue()
        for backbone in turns:
            self._free.put(backbone)
        self._threads = ThreadPoolExecutor(len(turns), thread_name_prefix="encoder")
        self.max_in_flight = len(turns) + len(backbones)
        """Batches under way that keep every backbone busy: one waits for each."""

    def encode(self, pictures: np.ndarray) -> Future[np.ndarray]:
        """(n, width) float32 features to come of (n, height, width, 3) uint8 pictures."""
        return self._threads.submit(self._encode, pictures)

    @property
    def usual_batch_frames(self) -> int:
        """Pictures in a batch that keep such a device busy; see `config.batch_frames`."""
        return 64 if self.backbone.device.type == "cuda" else 16

    @property
    def device_name(self) -> str:
        """What the first device calls itself: the GPU's name, the processor's instruction set."""
        device = self.backbone.device
        if device.type == "cuda":
            return torch.cuda.get_device_name(device)
        return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"

    def close(self) -> None:
        """End the threads; batches that wait are not encoded any more."""
        self._threads.shutdown(cancel_futures=True)

    def _encode(self, pictures: np.ndarray) -> np.ndarray:
        backbone = self._free.get()
        try:
            return backbone.encode_pictures(pictures)
        finally:
            self._free.put(backbone)


def load_encoders(
    config: ExtractConfig, *, with_text: bool, say: Callable[[str], None] = lambda line: None
) -> Encoders:
    """The backbone on every device that the settings name; only the first needs a text tower.

    say: is told of a GPU that is there and not used. Raises BackboneError.
    """
    devices = pick_devices(config.device)
    warning = unused_gpu(config.device, devices)
    if warning is not None:
        say(warning)
    first, *others = devices
    backbone = load_backbone(
        config.backbone,
        tag=config.tag,
        checkpoint=config.checkpoint,
        precision=config.precision,
        device=str(first),
        with_text=with_text,
    )
    if with_text and config.keep_tokens:
        backbone.token_layers()  # or an error, before anything is encoded
    return Encoders([backbone, *(_copy(backbone, device) for device in others)])


def _copy(backbone: Backbone, device: torch.device) -> Backbone:
    return replace(backbone, model=copy.deepcopy(backbone.model).to(device), device=device)
