"""What a finished training says of itself: the content of run.json, and one line for a person."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary:
    """What run.json says of a finished run."""

    path: Path
    """The run folder."""
    cache_key: str
    """Of the cache it was trained on; its heads fit no other."""
    decided: tuple[str, ...]
    """Settings that its data decided, as NAME=VALUE: those that were null, and weights of what the
    data cannot train, which are 0."""
    left_out: tuple[str, ...]
    """What the data cannot train, and why."""
    feature_width: int
    """D of that cache's videos."""
    text_feature_width: int
    """D of its texts."""
    segment_rule: str
    """Which rule cut the segments."""
    num_train_clips: int
    """Clips of the training split with features."""
    num_failed_clips: int
    """Clips of the training split without features, left out."""
    num_partial_clips: int
    """Clips of the training split whose video was cut short, included or left out."""
    leaves_out_partial_clips: bool
    """Which of the two."""
    num_validation_clips: int
    """Clips of the validation split with features."""
    best_epoch: int
    """Epochs behind the weights that are kept; 0 is the state before training."""
    num_epochs: int
    """Epochs done."""
    num_steps: int
    """Steps done."""
    num_parameters: int
    """Trained numbers."""
    metrics: dict[str, float]
    """Of the kept weights on the validation split, in [0, 1]; empty without validation."""
    logit_scale: float
    """Of the kept weights."""
    wall_seconds: float
    """Training and validating; of a run that was killed, also what came before the kept state."""

    def line(self) -> str:
        """The summary in one line."""
        measured = [
            f"{name.replace('_recall_at_1', ' recall@1')} {100 * value:.1f} %"
            for name, value in self.metrics.items()
        ]
        if measured:
            measured[-1] += f" ({self.num_validation_clips} validation clips)"
        trained = f"trained on {self.num_train_clips} clips"
        notes = []
        if self.num_failed_clips:
            notes.append(f"{self.num_failed_clips} without features left out")
        if self.num_partial_clips:
            what = " left out" if self.leaves_out_partial_clips else ""
            notes.append(f"{self.num_partial_clips} of videos that are cut short{what}")
        if notes:
            trained += f" ({', '.join(notes)})"
        kept = f"epoch {self.best_epoch} of {self.num_epochs} kept"
        return f"{self.path}: " + ", ".join(
            [trained, kept, *measured, f"{self.wall_seconds:.1f} s"]
        )

    def to_json(self) -> dict[str, Any]:
        """The summary as JSON takes it."""
        return {**dataclasses.asdict(self), "path": str(self.path)}
