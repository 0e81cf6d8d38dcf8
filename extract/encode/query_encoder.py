"""The text tower behind a cache, for texts that the cache does not hold: free-text search."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..planning.recipe import RecipeError, read_recipe, settings_by_recipe
from .backbones import TEXT_BATCH, load_backbone

TextEncoder = Callable[[Sequence[str]], np.ndarray]
"""(n,) texts -> (n, D) float32 features, as the cache's own text features are, not normalised."""


def load_query_encoder(cache: Path, *, checkpoint: Path | None = None) -> TextEncoder:
    """The backbone that made the cache, on the best device of this machine.

    checkpoint: where the file of its weights lies now, when it was moved. Raises CacheError when
    there is no cache, RecipeError when its weights are not to be had or are other ones.
    """
    recipe = read_recipe(cache)
    moved = [] if checkpoint is None else [f"pretrained={json.dumps(str(checkpoint))}"]
    config = settings_by_recipe(recipe, None, moved)
    backbone = load_backbone(
        config.backbone,
        tag=config.tag,
        checkpoint=config.checkpoint,
        precision=config.precision,
        device="auto",
    )
    wanted = recipe.settings["weights_sha256"]
    if backbone.weights_sha256 != wanted:
        raise RecipeError(
            f"the weights of {config.backbone} are not those that made {cache}: expected SHA-256 "
            f"{wanted}, got {backbone.weights_sha256}"
        )

    def encode(texts: Sequence[str]) -> np.ndarray:
        # One text alone is answered at once: nothing of it is stored.
        return backbone.encode_texts(texts, batch_texts=min(TEXT_BATCH, max(1, len(texts))))

    return encode
