"""The text tower behind a cache, for texts that the cache does not hold: free-text search."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ...data_manifests.tables.sentences import split_sentences
from ..cache.ragged import Ragged, offsets_of
from ..planning.recipe import RecipeError, read_recipe, settings_by_recipe
from .backbones import TEXT_BATCH, load_backbone

TextEncoder = Callable[[Sequence[str]], tuple[np.ndarray, Ragged]]
"""(n,) texts -> (n, D) float32 features, as the cache's own text features are, not normalised, and
those of their sentences, one or more of each: values (R, D) float32."""


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

    def encode(texts: Sequence[str]) -> tuple[np.ndarray, Ragged]:
        sentences = [split_sentences(text) for text in texts]
        # A text of one sentence is its own sentence, whatever blanks were in it.
        lists = [
            own if len(own) > 1 else [text] for text, own in zip(texts, sentences, strict=True)
        ]
        several = [sentence for own in lists if len(own) > 1 for sentence in own]
        together = [*texts, *several]
        # One text alone is answered at once: nothing of it is stored.
        batch_texts = min(TEXT_BATCH, max(1, len(together)))
        features = backbone.encode_texts(together, batch_texts=batch_texts)
        counts = np.array([len(own) for own in lists], dtype=np.int64)
        rows = np.repeat(np.arange(len(texts)), counts)
        rows[np.repeat(counts > 1, counts)] = np.arange(len(texts), len(together))
        return features[: len(texts)], Ragged(values=features[rows], offsets=offsets_of(counts))

    return encode
