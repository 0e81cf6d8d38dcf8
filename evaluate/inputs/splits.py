"""Which splits of a cache an evaluation reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...align.runs.checkpoint import Run
from ...data_manifests.core.errors import UserError
from ...extract.cache.store import FeatureStore, SplitFeatures
from ..config import EvaluationConfig


def with_segment_rule(config: EvaluationConfig, runs: Sequence[Run]) -> EvaluationConfig:
    """The settings with the segments that the runs were trained on, where they name none.

    Raises UserError for runs that were trained on several.
    """
    rules = sorted({run.segment_rule for run in runs})
    if config.segment_rule is not None or not rules:
        return config
    if len(rules) > 1:
        raise UserError(
            f"the runs were trained on segments of several rules ({', '.join(rules)}): evaluate "
            f"those of a rule together, or all on one with --set segment_rule={rules[0]}"
        )
    return replace(config, segment_rule=rules[0])


def read_split(
    store: FeatureStore, config: EvaluationConfig, *, with_tokens: bool = False
) -> SplitFeatures:
    """The split of the settings; UserError when the cache has no such split. with_tokens: with
    frames and tokens."""
    if config.split is not None and config.split not in store.splits:
        raise UserError(
            f"{store.path} has no split {config.split!r}; it has {', '.join(store.splits)}: choose "
            f"one with --set split=NAME, or all clips with --set split=null"
        )
    return store.split(
        config.split,
        segments=config.segment_rule,
        frames_per_clip=config.frames_per_clip if with_tokens else 0,
        with_tokens=with_tokens,
    )


def read_validation(store: FeatureStore, config: EvaluationConfig) -> SplitFeatures | None:
    """The validation split, when it is there and shares no clip with the evaluated one."""
    name = config.validation_split
    if name is None or config.split in (None, name) or name not in store.splits:
        return None
    return store.split(name, segments=config.segment_rule)
