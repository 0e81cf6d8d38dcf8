"""How much the global score weighs in the fused one: chosen on the validation split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ...extract.cache.split_features import SplitFeatures
from ..config import EvaluationConfig
from ..scores.vectors import Encoder, embed
from .retrieval import recall_at_1_by_weight, retrieval_tasks

WEIGHT_GRID: Final = [step / 10 for step in range(11)]
"""Weights of the global score tried on the validation split."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FusedWeight:
    """a in a * global + (1 - a) * segment."""

    value: float
    """Between 0 and 1."""
    chosen_on: str | None
    """The validation split that chose it; None where it is the setting `fused_weight`."""
    reason: str
    """Where the number comes from, in words."""


def choose_fused_weight(
    validation: SplitFeatures | None, encoder: Encoder, config: EvaluationConfig
) -> FusedWeight:
    """The weight with the best text to clip R@1 on validation; of equal ones the nearest to 0.5.

    Without global texts sentence to clip decides; without any text or split, the settings.
    """
    if validation is None:
        name = config.validation_split
        why = "no validation split" if name is None else f"no separate split {name!r}"
        return FusedWeight(value=config.fused_weight, chosen_on=None, reason=f"the default: {why}")
    tasks = [
        task for task in retrieval_tasks(validation, config) if task.direction == "text_to_clip"
    ]
    if not tasks:
        why = f"the default: split {validation.split!r} has no text to clip queries"
        return FusedWeight(value=config.fused_weight, chosen_on=None, reason=why)
    recalls = recall_at_1_by_weight(
        tasks[0], validation, embed(validation, encoder), weights=WEIGHT_GRID, config=config
    )
    best = [a for a, recall in zip(WEIGHT_GRID, recalls, strict=True) if recall == recalls.max()]
    return FusedWeight(
        value=min(best, key=lambda a: abs(a - 0.5)),
        chosen_on=validation.split,
        reason=f"chosen by {tasks[0].queries.name} R@1 on split {validation.split!r}",
    )
