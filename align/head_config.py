"""The settings of the heads: which maps are trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

HeadName = Literal["identity", "linear", "mlp", "residual", "temporal", "attention"]
CLIP_HEADS: tuple[HeadName, ...] = ("temporal",)
"""Those that see the segments of a clip together."""
VIDEO_HEADS: tuple[HeadName, ...] = ("temporal", "attention")
"""Those that only videos can have, since texts have no segments."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadConfig:
    """What stands between a cached feature and the shared space."""

    name: HeadName | str = "residual"
    """identity (nothing trained), linear, mlp, or residual (starts as the identity, exactly). For
    videos also temporal (a transformer over the segments of a clip) and attention (residual, with
    learnt weights of the segments in their clip), which start as the identity, too. Your own: the
    name given to `register_head`, or module:attribute."""
    width: int | None = None
    """Width of the shared space; null keeps the feature width. Equal for video and text."""
    hidden: int | None = None
    """Hidden width of all but identity and linear; null takes the feature width."""
    layers: int = 1
    """temporal: layers of the transformer."""
    dropout: float = 0.0
    """Share of hidden units dropped while training, in [0, 1)."""
    alpha: float = 1.0
    """Of residual, temporal, attention: weight of what is added, in units of the feature's norm."""

    def __post_init__(self) -> None:
        for name, value in (("width", self.width), ("hidden", self.hidden)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1 or null, got {value}")
        if self.layers < 1:
            raise ValueError(f"layers must be at least 1, got {self.layers}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        if self.alpha <= 0:
            raise ValueError(f"alpha must be > 0, got {self.alpha}")


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadsConfig:
    """A head for videos and one for texts, for each level that is trained."""

    video: HeadConfig = field(default_factory=HeadConfig)
    """Of clip and segment features."""
    text: HeadConfig = field(default_factory=HeadConfig)
    """Of text features."""
    separate_levels: bool = True
    """Whether each level has heads of its own, made alike, or both share one pair."""

    def __post_init__(self) -> None:
        if self.text.name in VIDEO_HEADS:
            raise ValueError(
                f"text.name is {self.text.name}, which looks at the segments of a clip, and texts "
                f"have none: choose identity, linear, mlp or residual"
            )
