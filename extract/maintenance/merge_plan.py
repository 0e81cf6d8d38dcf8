"""The files of a merged cache: shards under their names, index rows, and putting them there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..cache.contract import TABLES, CacheError, index_path, segments_shard, shard_path
from ..cache.disk_files import link_file, put_file
from ..cache.shards import is_intact
from ..cache.store import FeatureStore
from ..cache.writer import parquet_bytes

IndexRows = list[dict[str, Any]]
"""Of an index table."""


class MergePlan:
    """Shards to be linked, and index rows to be written."""

    def __init__(self) -> None:
        self.shards: dict[str, tuple[Path, str]] = {}
        """Name in the target to file and digest."""
        self.rows: dict[tuple[str, str], IndexRows] = {}
        """(index table, shard) to rows."""

    def add(self, unit: str, store: FeatureStore, rows: IndexRows) -> None:
        """Take rows, and the shards they are in."""
        for row in rows:
            shard = self._name(store, row["shard"], row["shard_sha256"])
            self.rows.setdefault((unit, shard), []).append({**row, "shard": shard})

    def add_clips(self, store: FeatureStore, rows: IndexRows) -> None:
        """Clips with their segments, which may be in shards of their own."""
        self.add("clips", store, rows)
        ids = pa.array([row["clip_id"] for row in rows], pa.string())
        segments = store.segments.filter(pc.is_in(store.segments["clip_id"], value_set=ids))
        digests = {row["shard"]: row["shard_sha256"] for row in rows}
        for row in segments.to_pylist():
            clip_shard = self._name(store, row["clip_shard"], digests[row["clip_shard"]])
            shard = clip_shard
            if row["shard"] != row["clip_shard"]:
                wanted = segments_shard(clip_shard, row["rule"])
                shard = self._name(store, row["shard"], row["shard_sha256"], wanted=wanted)
            found = {**row, "clip_shard": clip_shard, "shard": shard}
            self.rows.setdefault(("segments", shard), []).append(found)

    def count(self, unit: str) -> int:
        return sum(len(rows) for (table, _), rows in self.rows.items() if table == unit)

    def _name(
        self, store: FeatureStore, shard: str, sha256: str, *, wanted: str | None = None
    ) -> str:
        """What a shard is called in the target: as before (or as wanted), unless another one has
        that name."""
        name = wanted or shard
        if self.shards.get(name, (None, sha256))[1] != sha256:
            name = f"{Path(name).stem}-{sha256[:8]}.h5"
        self.shards.setdefault(name, (shard_path(store.path, shard), sha256))
        return name


def build(folder: Path, plan: MergePlan, *, copy: bool) -> None:
    """Put the planned files into the folder, but for those that an earlier try has put there."""
    wanted = {shard_path(folder, name) for name in plan.shards}
    wanted |= {index_path(folder, table, shard) for table, shard in plan.rows}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path not in wanted:
            path.unlink()
    for name, (source, sha256) in sorted(plan.shards.items()):
        if is_intact(folder, name, sha256):
            continue
        if source.is_file():
            link_file(source, shard_path(folder, name), copy=copy)
        if not is_intact(folder, name, sha256):
            shard_path(folder, name).unlink(missing_ok=True)
            raise CacheError(
                f"the shard {source} is damaged; repair that cache first: run its mlalign-extract "
                "command again"
            )
    # Segments before clips, as when they were extracted.
    for table, shard in sorted(plan.rows, key=lambda place: (place[0] != "segments", place)):
        content = parquet_bytes(TABLES[table], plan.rows[table, shard])
        put_file(index_path(folder, table, shard), content)
