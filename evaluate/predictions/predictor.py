"""A split of a cache and what predicts for it: a run, or the backbone as it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...align.runs.checkpoint import load_run
from ...data_manifests.cards.card import Card
from ...data_manifests.core.errors import UserError
from ...extract.cache.split_features import SplitFeatures
from ...extract.cache.store import FeatureStore
from ..config import EvaluationConfig
from ..inputs.rows import check_cache_keys
from ..inputs.splits import check_segments, read_split, read_validation, with_segment_rule
from ..scores.vectors import Embeddings, Encoder, ZeroShot, embed
from ..tasks.fused_weight import choose_fused_weight


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictor:
    """A split and what predicts for it."""

    card: Card
    """Whose format is written."""
    config: EvaluationConfig
    """The resolved settings."""
    features: SplitFeatures
    """The split."""
    embeddings: Embeddings
    """Its vectors."""
    encoder: Encoder
    """The run's heads, or the backbone as it is."""
    weight: float
    """Of the global score in the fused one."""


def load_predictor(
    cache: Path, run: Path | None, config: EvaluationConfig, card: Card
) -> Predictor:
    """The split's features and vectors, and the weight that validation chooses."""
    store = FeatureStore.open(cache)
    runs = [] if run is None else [load_run(run)]
    check_cache_keys(runs, store)
    if not runs and store.dim != store.text_dim:
        raise UserError(
            f"{cache} has video and text features of two widths, which only heads compare: give a "
            f"run with --run"
        )
    config = with_segment_rule(config, runs)
    encoder = runs[0].model if runs else ZeroShot()
    features = read_split(store, config)
    check_segments(card, features)
    validation = read_validation(store, config)
    return Predictor(
        card=card,
        config=config,
        features=features,
        embeddings=embed(features, encoder),
        encoder=encoder,
        weight=choose_fused_weight(validation, encoder, config).value,
    )
