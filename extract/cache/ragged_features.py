"""Features that an item has many of: frames of clips, tokens and sentences of texts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .contract import CacheError
from .ragged import Ragged, offsets_of
from .shards import ShardReader


def spread_rows(first: np.ndarray, counts: np.ndarray, *, max_count: int) -> np.ndarray:
    """(sum of kept,) int64: rows of ragged items, at most `max_count` per item, evenly spread.

    first, counts: (n,) int64, an item's rows are [first, first + count).   An item of 5 rows with
    max_count = 2 keeps the middle ones of two equal parts: rows 1 and 3.
    """
    kept = np.minimum(counts, max_count)
    place = np.arange(kept.sum()) - np.repeat(np.cumsum(kept) - kept, kept)
    of_count, of_kept = np.repeat(counts, kept), np.repeat(kept, kept)
    # The middle of part k of n parts, (2 k + 1) / (2 n), in integers.
    rows: np.ndarray = np.repeat(first, kept) + (2 * place + 1) * of_count // (2 * of_kept)
    return rows


def read_frames(clips: pa.Table, reader: ShardReader, *, max_count: int) -> Ragged:
    """Frames of the clips in a table, at most `max_count` per clip, in the stored type."""
    counts = counts_in(clips, "num_frames")
    rows = spread_rows(clips["first_frame_row"].to_numpy(), counts, max_count=max_count)
    kept = np.minimum(counts, max_count)
    found = reader.ragged("frames/features", clips, rows=rows, counts=kept)
    return Ragged(values=found, offsets=offsets_of(kept))


def read_tokens(texts: pa.Table, reader: ShardReader) -> Ragged:
    """Tokens of the rows of a texts table."""
    counts = counts_in(texts, "num_tokens")
    if not counts.all():
        raise CacheError(
            f"{(counts == 0).sum()} of {len(counts)} texts have no tokens yet: run the same "
            "mlalign-extract with --keep-tokens again to finish it"
        )
    first = counts_in(texts, "first_token_row")
    rows = spread_rows(first, counts, max_count=int(counts.max(initial=1)))
    found = reader.ragged("tokens/features", texts, rows=rows, counts=counts)
    return Ragged(values=found, offsets=offsets_of(counts))


def read_sentences(texts: pa.Table, reader: ShardReader) -> Ragged:
    """(K, D) float32, the sentences of the rows of a texts table; none of a text of one sentence,
    nor of one that was encoded before caches had sentences."""
    counts = counts_in(texts, "num_sentences")
    several = texts.filter(pa.array(counts > 0))
    first, own = counts_in(several, "first_sentence_row"), counts[counts > 0]
    rows = spread_rows(first, own, max_count=int(own.max(initial=1)))
    found = reader.ragged("sentences/features", several, rows=rows, counts=own, dtype="float32")
    return Ragged(values=found, offsets=offsets_of(counts))


def check_kept(cache: Path, record: Mapping[str, Any], *, frames: bool, tokens: bool) -> None:
    """Raise CacheError where a cache does not keep what is asked for. record: its cache.json."""
    layout, lacks = record["layout"], []
    if frames and not layout["keep_frames"]:
        lacks.append(
            "frames (keep_frames is false): they take a new cache, extracted without "
            "--set keep_frames=false"
        )
    if tokens and not layout["keep_tokens"]:
        is_imported = "source" in record["settings"]
        way_out = (
            "an imported cache has none"
            if is_imported
            else "the same mlalign-extract with --keep-tokens adds them, without decoding"
        )
        lacks.append(f"tokens (keep_tokens is false): {way_out}")
    if lacks:
        raise CacheError("\n".join([f"{cache} keeps no features of", *(f"  {x}" for x in lacks)]))


def counts_in(table: pa.Table, column: str) -> np.ndarray:
    """(rows,) int64 of a column, 0 for null."""
    return np.asarray(pc.fill_null(table[column], 0).to_numpy(), dtype=np.int64)
