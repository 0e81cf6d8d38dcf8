"""Reading what is committed: index files into tables, shards into arrays, damage noticed and
named."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .contract import (
    ID_COLUMNS,
    LATER_COLUMNS,
    TABLES,
    CacheError,
    Unit,
    feature_width,
    shard_path,
)

Allocate = Callable[[tuple[int, int], str], np.ndarray]
"""Gives the (rows, width) array of a type that features are gathered into."""

_MEND = "run the same mlalign-extract again to repair the cache"


def index_files(cache: Path, table: str) -> list[Path]:
    """The index files of a table, sorted by name."""
    return sorted((cache / "index" / table).glob("*.parquet"))


def read_index_file(path: Path, table: str) -> pa.Table:
    """The rows of one index file. Raises CacheError when it is damaged."""
    try:
        # An open file: pyarrow takes a path with a colon in it for an address.
        with path.open("rb") as file:
            rows = pq.read_table(file, page_checksum_verification=True)
        later = LATER_COLUMNS.intersection(TABLES[table].names)
        if not later.intersection(rows.column_names):  # of an older cache; some of them: damage
            for name in sorted(later):
                nulls = pa.nulls(len(rows), TABLES[table].field(name).type)
                rows = rows.append_column(name, nulls)
        return rows.select(TABLES[table].names).cast(TABLES[table])
    except (OSError, pa.ArrowException, KeyError, UnicodeDecodeError) as error:
        raise CacheError(f"the index file {path} is damaged ({error}); {_MEND}") from error


def read_index(cache: Path, table: str) -> pa.Table:
    """All rows of an index table, replaced ones included. Raises CacheError when a file is
    damaged."""
    parts = [read_index_file(path, table) for path in index_files(cache, table)]
    return pa.concat_tables([TABLES[table].empty_table(), *parts])


def live_rows(rows: pa.Table, unit: Unit) -> pa.Table:
    """Of several rows of one item, the one of the highest generation (then of the last shard
    name)."""
    id_column = ID_COLUMNS[unit]
    rows = rows.sort_by(
        [(id_column, "ascending"), ("generation", "ascending"), ("shard", "ascending")]
    )
    ids = np.asarray(rows[id_column].to_pylist(), dtype=object)
    is_last = np.append(ids[1:] != ids[:-1], True) if len(ids) else np.zeros(0, dtype=bool)
    return rows.filter(pa.array(is_last))


def is_intact(cache: Path, shard: str, sha256: str) -> bool:
    """Whether a shard's file is there, byte for byte as it was written."""
    try:
        with shard_path(cache, shard).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except OSError:
        return False


class ShardReader:
    """Gathers rows of arrays out of shards, which are checked against their digests when read."""

    def __init__(
        self, cache: Path, *, settings: Mapping[str, Any], allocate: Allocate | None = None
    ) -> None:
        """settings: those of cache.json.   allocate: for features that do not fit in memory; then
        one shard at a time is in memory, and it is read anew for each array. None: arrays are in
        memory, and a shard is read once."""
        self._cache = cache
        self._settings = settings
        self._allocate = allocate
        self._digests: dict[str, str] = {}
        self._features: dict[str, dict[str, np.ndarray]] = {}

    def rows(self, array: str, table: pa.Table) -> np.ndarray:
        """(rows of the table, width) float32: the rows of an array that the columns shard and row
        name.

        The first table that names a shard must have its digest (column shard_sha256).
        Raises CacheError when a shard is missing, damaged or does not fit its index.
        """
        shards = np.asarray(table["shard"].to_pylist(), dtype=object)
        if "shard_sha256" in table.column_names:
            self._digests.update(zip(shards, table["shard_sha256"].to_pylist(), strict=True))
        rows = table["row"].to_numpy()
        width = feature_width(self._settings, array.partition("/")[0])
        if self._allocate is None:
            gathered = np.empty((len(rows), width), dtype=np.float32)
        else:
            gathered = self._allocate((len(rows), width), "float32")
        for shard in sorted(set(shards)):
            chosen = np.flatnonzero(shards == shard)
            try:
                gathered[chosen] = self._shard(shard)[array][rows[chosen]]
            except (KeyError, IndexError, ValueError) as error:
                path = shard_path(self._cache, shard)
                raise CacheError(f"the shard {path} does not fit its index: {error}") from error
        return gathered

    def ragged(
        self,
        array: str,
        table: pa.Table,
        *,
        rows: np.ndarray,
        counts: np.ndarray,
        dtype: str | None = None,
    ) -> np.ndarray:
        """(len(rows), width) of a type, or of the stored one: `counts` rows of an array for each
        row of a table, in the shard that this names; end to end.

        rows: (sum of counts,) int64.   counts: (rows of the table,) int64. A shard is in memory
        only while its rows are gathered. Raises CacheError as `rows` does.
        """
        width = feature_width(self._settings, array.partition("/")[0])
        shape = (len(rows), width)
        gathered = (self._allocate or np.empty)(shape, dtype or str(self._settings["dtype"]))
        names, of_items = np.unique(table["shard"].to_pylist(), return_inverse=True)
        self._digests.update(
            zip(table["shard"].to_pylist(), table["shard_sha256"].to_pylist(), strict=True)
        )
        of_rows = np.repeat(of_items, counts)
        for number, shard in enumerate(names):
            chosen = np.flatnonzero(of_rows == number)
            try:
                with self._open(str(shard)) as file:
                    gathered[chosen] = file[array][()][rows[chosen]]
            except (KeyError, IndexError, ValueError) as error:
                path = shard_path(self._cache, str(shard))
                raise CacheError(f"the shard {path} does not fit its index: {error}") from error
        return gathered

    def _shard(self, shard: str) -> dict[str, np.ndarray]:
        """The feature arrays of a shard but the ragged ones, which only few readers want in
        memory."""
        if shard not in self._features:
            if self._allocate is not None:
                self._features.clear()
            with self._open(shard) as file:
                self._features[shard] = {
                    f"{group}/features": file[group]["features"][()]
                    for group in file
                    if group not in ("frames", "tokens", "sentences")
                }
        return self._features[shard]

    def _open(self, shard: str) -> h5py.File:
        """A shard, read and checked as a whole. Raises CacheError when it is missing or damaged."""
        path = shard_path(self._cache, shard)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise CacheError(f"cannot read the shard {path}: {error.strerror}; {_MEND}") from error
        if hashlib.sha256(content).hexdigest() != self._digests[shard]:
            raise CacheError(f"the shard {path} is damaged: its checksum does not match; {_MEND}")
        return h5py.File(io.BytesIO(content), "r")


def rows_of_clips(table: pa.Table, clip_ids: pa.ChunkedArray) -> pa.Table:
    """The rows whose clip is one of these."""
    return table.filter(pc.is_in(table["clip_id"], value_set=clip_ids.combine_chunks()))


def positions_of(values: pa.ChunkedArray, clip_ids: pa.ChunkedArray) -> np.ndarray:
    """(len(values),) int64: where each value stands in clip_ids; all are there."""
    found = pc.index_in(values, value_set=clip_ids.combine_chunks())
    return np.asarray(found.to_numpy(), dtype=np.int64)


def spans_of(table: pa.Table) -> np.ndarray:
    """(rows, 2) float64: start and end seconds, NaN for null."""
    columns = [
        pc.fill_null(table[name], np.nan).to_numpy() for name in ("start_seconds", "end_seconds")
    ]
    return np.stack(columns, axis=1).astype(np.float64)
