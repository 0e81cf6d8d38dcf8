"""The heads: trainable maps from a backbone's feature to the shared space."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...data_manifests.core.errors import SettingsError
from ..head_config import HeadConfig, HeadName
from ..own_parts import HEADS, PartError
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


class HeadBuilder(Protocol):
    """Makes a head of your own: a module (n, dim) -> (n, width), float32, for each row by itself.

    width is `config.width`, or dim where that is None. A subclass of nn.Module whose __init__ has
    these arguments is a builder. Its output is normalised afterwards.
    """

    def __call__(self, config: HeadConfig, *, dim: int) -> nn.Module: ...


Builder = TypeVar("Builder", bound=HeadBuilder)


def register_head(name: str) -> Callable[[Builder], Builder]:
    """Decorate a head of your own (see HeadBuilder), so that `heads.video.name=NAME` chooses it.

    Runs with it need the import of its module before they are trained or loaded; the setting
    `module:attribute` does without. Raises ValueError for a name that is taken or built in.
    """
    return HEADS.register(name)


def build_head(config: HeadConfig, *, dim: int, weighs_parts: bool = True) -> nn.Module:
    """The head that `config` describes, for features of width `dim`: (n, dim) -> (n, width), or
    for temporal clips and their segments to the same (see clip_heads).

    weighs_parts: whether `attention` is to weigh the segments of clips; without it is `residual`.
    Raises SettingsError where the head cannot have the width that was asked for.
    """
    width = dim if config.width is None else config.width
    hidden = dim if config.hidden is None else config.hidden
    if config.name not in get_args(HeadName):
        return _own_head(config, dim=dim, width=width)
    check_width(config, dim=dim)
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
            return AttentionPooling(dim, residual=residual) if weighs_parts else residual
        case _:
            raise AssertionError(f"a head without an implementation: {config.name}")


def check_width(config: HeadConfig, *, dim: int) -> None:
    """Raise SettingsError where the head cannot have the width that was asked for."""
    keeps_width = config.name in get_args(HeadName) and config.name not in ("linear", "mlp")
    if keeps_width and config.width not in (None, dim):
        raise SettingsError(
            f"a head {config.name!r} keeps the width of the features, {dim}, but its width is set "
            f"to {config.width}: leave width out, or take linear or mlp"
        )


def _own_head(config: HeadConfig, *, dim: int, width: int) -> nn.Module:
    """A head from outside of the package, tried on two rows: an error now, not in training."""
    builder: HeadBuilder = HEADS.find(config.name)
    try:
        head = builder(config, dim=dim)
    except TypeError as error:
        raise PartError(
            f"head {config.name!r} cannot be built: expected (config: HeadConfig, *, dim: int) -> "
            f"nn.Module ({error})"
        ) from error
    if not isinstance(head, nn.Module):
        raise PartError(f"head {config.name!r}: expected an nn.Module, got {type(head).__name__}")
    was_training = head.training
    with torch.no_grad():
        output = head.eval()(torch.ones(2, dim))
    head.train(was_training)
    shape = tuple(getattr(output, "shape", ()))
    if shape != (2, width):
        raise PartError(
            f"head {config.name!r}: expected (2, {dim}) -> (2, {width}), got {shape or output!r}; "
            f"its width is heads' setting width, or {dim} where that is null"
        )
    return head
