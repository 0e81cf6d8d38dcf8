"""The backbone tiny: an open_clip model of a configuration of ours, with fixed random weights."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import numpy as np
import open_clip
import torch
from torch import nn

from ..config import TINY

TINY_SEED: Final = 20_220_410


def register_tiny() -> None:
    """Make the configuration known to open_clip."""
    open_clip.add_model_config(Path(__file__).with_name("tiny.json"))


def tiny_model() -> tuple[nn.Module, str]:
    """An open_clip model of a configuration of ours, its weights from a seeded integer stream.

    Only integer random numbers and IEEE multiplications are used, so that every machine gets the
    same bytes: the normal distributions of torch and numpy go through logarithms that differ
    between processors.
    """
    register_tiny()
    model = open_clip.create_model(TINY)
    stream = np.random.PCG64(TINY_SEED)
    hasher = hashlib.sha256()
    for name, parameter in sorted(dict(model.named_parameters()).items()):
        if parameter.ndim >= 2 or "embedding" in name:
            values = _uniform(stream, parameter.numel()).reshape(parameter.shape)
            scale = _tiny_scale(name, parameter)
            parameter.data = torch.from_numpy((values * scale).astype(np.float32))
        elif name.endswith("bias"):
            parameter.data.zero_()
        # What is left are the weights of norms, which start at one, and the logit scale.
        hasher.update(name.encode())
        hasher.update(parameter.detach().numpy().tobytes())
    return model, hasher.hexdigest()


def _uniform(stream: np.random.PCG64, count: int) -> np.ndarray:
    """(count,) float64 in [-1, 1), exact on every machine."""
    bits = stream.random_raw(count)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0


def _tiny_scale(name: str, parameter: nn.Parameter) -> float:
    """Half-width of the uniform distribution of one weight: variance 1 / fan-in, as for any linear
    layer."""
    if "embedding" in name:
        return 1.0 if name.startswith("token") else 0.1
    fan_in = parameter[0].numel()
    if (
        name.endswith("proj") and parameter.ndim == 2
    ):  # open_clip's projections are stored (in, out)
        fan_in = parameter.shape[0]
    return float(np.sqrt(3.0 / fan_in))
