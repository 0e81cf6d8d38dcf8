"""The heads: trainable maps from a backbone's feature to the shared space."""

from __future__ import annotations

from typing import assert_never

import torch.nn.functional as F
from torch import Tensor, nn

from ...data_manifests.core.errors import SettingsError
from ..head_config import HeadConfig
from .clip_heads import AttentionPooling, Temporal

# All heads ignore the length of a feature: text towers give lengths around 10, pooled frames
# below 1, and only the direction carries meaning (scores are cosines).


class Linear(nn.Module):
    """W x + b on x scaled to unit mean square; b starts at zero."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.map = nn.Linear(dim, width)
        nn.init.zeros_(self.map.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(n, dim) -> (n, width)."""
        mapped: Tensor = self.map(F.rms_norm(features, features.shape[-1:]))
        return mapped


class MLP(nn.Module):
    """LayerNorm, a GELU layer with dropout, and a linear layer."""

    def __init__(self, dim: int, *, hidden: int, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.enter = nn.Linear(dim, hidden)
        self.dropout = nn.Dropout(dropout)
        self.leave = nn.Linear(hidden, width)

    def forward(self, features: Tensor) -> Tensor:
        """(n, dim) -> (n, width)."""
        hidden = F.gelu(self.enter(self.norm(features)))
        left: Tensor = self.leave(self.dropout(hidden))
        return left


class Residual(nn.Module):
    """x + alpha * |x| * MLP(x), whose last layer starts at zero: the identity, to the last bit.

    An adapter beside the frozen feature, as in CLIP-Adapter (arXiv 2110.04544); the zero start is
    that of Houlsby et al. (arXiv 1902.00751). |x| makes alpha mean the same for every backbone.
    """

    def __init__(self, dim: int, *, hidden: int, dropout: float, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha
        self.mlp = MLP(dim, hidden=hidden, width=dim, dropout=dropout)
        nn.init.zeros_(self.mlp.leave.weight)
        nn.init.zeros_(self.mlp.leave.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(n, dim) -> (n, dim)."""
        length = features.norm(dim=-1, keepdim=True)
        moved: Tensor = features + self.alpha * length * self.mlp(features)
        return moved


def build_head(config: HeadConfig, *, dim: int) -> nn.Module:
    """The head that `config` describes, for features of width `dim`: (n, dim) -> (n, width), or
    for temporal and attention clips and their segments to the same (see clip_heads).

    Raises SettingsError where the head cannot have the width that was asked for.
    """
    width = dim if config.width is None else config.width
    hidden = dim if config.hidden is None else config.hidden
    if config.name not in ("linear", "mlp") and width != dim:
        raise SettingsError(
            f"a head {config.name!r} keeps the width of the features, {dim}, but its width is set "
            f"to {width}: leave width out, or take linear or mlp"
        )
    match config.name:
        case "identity":
            return nn.Identity()
        case "linear":
            return Linear(dim, width)
        case "mlp":
            return MLP(dim, hidden=hidden, width=width, dropout=config.dropout)
        case "residual":
            return Residual(dim, hidden=hidden, dropout=config.dropout, alpha=config.alpha)
        case "temporal":
            return Temporal(
                dim,
                hidden=hidden,
                num_layers=config.layers,
                dropout=config.dropout,
                alpha=config.alpha,
            )
        case "attention":
            residual = Residual(dim, hidden=hidden, dropout=config.dropout, alpha=config.alpha)
            return AttentionPooling(dim, residual=residual, alpha=config.alpha)
        case _:
            assert_never(config.name)
