"""Text features of other tools: one vector per text, into text shards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .feature_sources import FeatureError, FeatureSource
from .foreign_clips import checked_rows
from .planning import Work
from .writer import commit_shard


def text_vector(values: np.ndarray, *, width: int | None) -> np.ndarray:
    """(width,) float32 of a text's features: (width,) is taken as it is, of (words, width) the mean
    over the words, in float64: TVR's files have no vector of the sentence. Raises FeatureError.
    """
    rows = values[None] if values.ndim == 1 else values
    mean: np.ndarray = checked_rows(rows, width=width).mean(axis=0, dtype=np.float64)
    return mean.astype(np.float32)


def import_texts(
    works: Iterable[Work],
    cache: Path,
    *,
    source: FeatureSource,
    keys: Mapping[str, str],
    width: int,
    dtype: str,
    failed: Callable[[str, str], None],
) -> None:
    """Commit the texts of all works; `failed` hears the id of each without usable features, which
    gets no row, and the reason.

    keys: text id to its key in the source. Raises DiskError.
    """
    for work in works:
        rows: list[dict[str, Any]] = []
        vectors = [np.empty((0, width), dtype=dtype)]
        for item in work.items:
            text_id = item.row["text_id"]
            try:
                vector = text_vector(source.read(keys[text_id]).values, width=width)
                with np.errstate(over="ignore"):
                    stored = vector.astype(dtype)
                if not np.isfinite(stored).all():
                    raise FeatureError(f"not finite in {dtype} (dtype=float32 has more room)")
            except FeatureError as error:
                failed(text_id, f"the features {keys[text_id]!r}: {error}")
                continue
            rows.append(item.index_row(len(rows)))
            vectors.append(stored[None])
        if rows:
            arrays = {"texts/features": np.concatenate(vectors)}
            commit_shard(cache, "texts", work.name, arrays=arrays, tables={"texts": rows})
