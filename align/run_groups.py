"""Which runs can train together, and how many of them fit."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch

from ..data_manifests.settings import settings_dict
from .config import CLIP_HEADS, RunConfig
from .split_memory import free_bytes
from .training_split import TrainingSplit

NUMBERS: Final = frozenset(
    {
        "seed",
        "heads.video.dropout",
        "heads.video.alpha",
        "heads.text.dropout",
        "heads.text.alpha",
        "losses.temperature",
        "losses.weak_temperature",
        "losses.margin",
        "tasks.answer_dropout",
        "optimiser.learning_rate",
        "optimiser.weight_decay",
        "optimiser.warmup_epochs",
        "optimiser.max_gradient_norm",
        "validation.patience_epochs",
    }
)
"""Settings that runs which train together may differ in."""
SWITCHED: Final = frozenset(
    {
        "losses.global_weight",
        "losses.segment_weight",
        "losses.in_clip_weight",
        "losses.weak_segment_weight",
        "tasks.choice_weight",
        "tasks.answer_weight",
        "tasks.moment_weight",
        "optimiser.ema_decay",
    }
)
"""The same, as long as all runs have something there: neither 0 nor null."""
SHARE_OF_FREE: Final = 0.8
"""Of the device's free memory that runs which train together may fill."""
MOST_AT_ONCE: Final = 128
"""Runs that train together, however many would fit: each has two open files and a thread."""
FLOATS_PER_ROW: Final = 24
"""Of a feature in the batch, in units of the largest width: what a head keeps for the gradients."""
ROWS_PER_ITEM: Final = 8
"""Of a task: its options, or its text, and what the head of the task makes of it."""
ITEM_SEGMENTS_PER_ROW: Final = 8
"""Segments of its clip that are gathered for an item of a task take so much less than a row."""
FLOATS_PER_PAIR: Final = 14
"""Of a table of similarities: logits, exponentials, gradients, masks."""
FLOATS_PER_WEIGHT: Final = 10
"""Weight, average, two moments, gradients, and what a step of the optimiser takes."""


def has_stacked_terms(config: RunConfig) -> bool:
    """Whether a run can train with others at all: those of the token level train alone, since their
    frames and words keep a device busy."""
    return config.losses.token_weight == 0


def structure(config: RunConfig) -> str:
    """What runs that train together have in common: equal for two exactly when they can."""
    return json.dumps(_common(settings_dict(config), prefix=""), sort_keys=True)


def _common(settings: Mapping[str, Any], *, prefix: str) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            kept[key] = _common(value, prefix=f"{name}.")
        elif name in SWITCHED:
            kept[key] = None if value is None else value > 0
        elif name not in NUMBERS:
            kept[key] = value
    return kept


def most_at_once(split: TrainingSplit, config: RunConfig, *, num_parameters: int) -> int:
    """How many runs like this one fit beside the features that are on the device; at least 1."""
    free = _free_bytes(split.device)
    if free is None:
        return MOST_AT_ONCE
    needed = bytes_of_run(split, config, num_parameters=num_parameters)
    return min(MOST_AT_ONCE, max(1, int(SHARE_OF_FREE * free / needed)))


def bytes_of_run(split: TrainingSplit, config: RunConfig, *, num_parameters: int) -> int:
    """About what a run takes while it trains, without the features of the split."""
    batch = min(config.optimiser.batch_clips, len(split.clips))
    share = batch / len(split.clips)
    clips = split.clips
    counts = np.diff(split.segment_offsets)[clips]
    segments = share * int(counts.sum())
    rows = batch + segments
    if config.heads.video.name in CLIP_HEADS:  # whose clips are padded
        rows += (1 + config.heads.video.layers) * batch * int(counts.max())
    tables = pairs = 0.0
    if split.global_texts is not None:
        captions = np.diff(split.global_texts.offsets)[clips]
        texts = share * int(np.minimum(captions, split.texts_per_clip).sum())
        rows += texts * (2 if config.heads.separate_levels else 1)
        tables += batch * texts
        if config.losses.weak_segment_weight > 0:
            tables += (batch + segments) * texts
    if split.segment_texts is not None and split.segment_pairs is not None:
        texts = share * int(np.diff(split.segment_texts.offsets)[clips].sum())
        rows += texts
        tables += segments * texts
        pairs = share * len(split.segment_pairs.segments)
    items = len(config.tasks.weights) * batch * config.tasks.items_per_clip
    rows += items * (ROWS_PER_ITEM + int(counts.max()) / ITEM_SEGMENTS_PER_ROW)
    heads = config.heads.video, config.heads.text
    features = split.clip_features.shape[1], split.text_features.shape[1]
    width = max(*features, *(head.width or 0 for head in heads), *(h.hidden or 0 for h in heads))
    floats = (
        FLOATS_PER_WEIGHT * num_parameters
        + FLOATS_PER_ROW * rows * width
        + FLOATS_PER_PAIR * (tables + pairs)
    )
    return 4 * math.ceil(floats)


def _free_bytes(device: torch.device) -> int | None:
    if device.type != "cuda":
        return free_bytes()
    free, _ = torch.cuda.mem_get_info(device)
    # What torch holds and does not use is free for it, too.
    unused: int = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free) + unused
