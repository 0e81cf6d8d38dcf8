"""What is to be done: the manifest held against what the cache already has, cut into shards of
work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ...data_manifests.tables.schema import Manifest
from ..cache.contract import ID_COLUMNS, TABLES, CacheError, Unit, digest, index_path, shard_path
from ..cache.shards import index_files, is_intact, live_rows, read_index_file
from ..decode.sources import source_facts, source_sha256
from ..segments.rules import Span


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One row of a manifest table that is to be extracted."""

    row: dict[str, Any]
    """The manifest's columns."""
    digest: str
    """Of all that its features are made from, the source file apart."""
    generation: int
    """One more than that of the row it replaces."""
    spans: tuple[Span, ...] = ()
    """Of a clip: the different spans of its texts, by start."""

    def index_row(self, row: int | None) -> dict[str, Any]:
        """The index row of the item, its features being row `row` of the shard's main array."""
        return {**self.row, "row": row, "item_digest": self.digest, "generation": self.generation}


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """The items that will be committed together, under a name that only they have."""

    name: str
    items: list[Item]


Committed = dict[str, dict[str, Any]]
"""Item id to its live index row."""


def read_committed(
    cache: Path, unit: Unit, *, report: Callable[[str], None] = lambda line: None
) -> Committed:
    """What the cache has, read with care: damaged files are named to `report` and count as not
    there.

    They are removed, with their index rows, so that the work that follows puts whole ones in their
    place.
    """
    tables = []
    for path in index_files(cache, unit):
        try:
            rows = read_index_file(path, unit)
            if unit == "clips":  # committed with them; without it they have no segments
                read_index_file(index_path(cache, "segments", f"{path.stem}.h5"), "segments")
        except CacheError as error:
            report(f"{error.args[0].split(';')[0]}; its shard is extracted again")
            path.unlink(missing_ok=True)
            continue
        pairs = zip(rows["shard"].to_pylist(), rows["shard_sha256"].to_pylist(), strict=True)
        damaged = [
            shard for shard, sha256 in sorted(set(pairs)) if not is_intact(cache, shard, sha256)
        ]
        if damaged:
            report(f"the shard {shard_path(cache, damaged[0])} is damaged; it is extracted again")
            path.unlink(missing_ok=True)
            shard_path(cache, damaged[0]).unlink(missing_ok=True)
            continue
        tables.append(rows)
    rows = live_rows(pa.concat_tables([TABLES[unit].empty_table(), *tables]), unit)
    return {row[ID_COLUMNS[unit]]: row for row in rows.to_pylist()}


def plan_clips(
    manifest: Manifest,
    committed: Committed,
    *,
    retry_failed: bool,
    shard_size: int,
    key: str,
    source_changed: Callable[[Mapping[str, Any], Mapping[str, Any]], bool] | None = None,
) -> list[Work]:
    """The clips that are new, described otherwise, or whose source changed, in the manifest's
    order.

    source_changed: of a manifest's row and the index row it has; None: whether its video changed.
    """
    spans = _spans_of_clips(manifest)
    items = []
    for row in manifest.clips.to_pylist():
        item_digest = digest([row, spans.get(row["clip_id"], [])])
        before = committed.get(row["clip_id"])
        if (
            before is not None
            and before["item_digest"] == item_digest
            and not (before["status"] == "failed" and retry_failed)
            and not (
                source_changed(row, before)
                if source_changed is not None
                else _source_changed(manifest.video_file(row["video_path"]), before)
            )
        ):
            continue
        items.append(
            Item(
                row=row,
                digest=item_digest,
                generation=_next_generation(before),
                spans=tuple(spans.get(row["clip_id"], ())),
            )
        )
    return _cut("clips", items, shard_size=shard_size, key=key)


def plan_rows(
    table: pa.Table,
    unit: Unit,
    committed: Committed,
    *,
    shard_size: int,
    key: str,
    with_tokens: bool = False,
) -> list[Work]:
    """The texts or questions that are new or changed, in the manifest's order.

    with_tokens: also the texts that have no tokens yet."""
    items = []
    for row in table.to_pylist():
        item_digest = digest(row)
        before = committed.get(row[ID_COLUMNS[unit]])
        if (
            before is None
            or before["item_digest"] != item_digest
            or (with_tokens and before["first_token_row"] is None)
        ):
            items.append(Item(row=row, digest=item_digest, generation=_next_generation(before)))
    return _cut(unit, items, shard_size=shard_size, key=key)


def _cut(unit: Unit, items: Sequence[Item], *, shard_size: int, key: str) -> list[Work]:
    """Shards of `shard_size` items. Equal work has an equal name, whoever plans it and when."""
    works = []
    for start in range(0, len(items), shard_size):
        part = list(items[start : start + shard_size])
        name = digest([key, [[item.digest, item.generation] for item in part]])
        works.append(Work(name=f"{unit}-{name[:16]}", items=part))
    return works


def _next_generation(before: Mapping[str, Any] | None) -> int:
    return 0 if before is None else before["generation"] + 1


def _source_changed(path: Path, before: Mapping[str, Any]) -> bool:
    """Whether a video is no longer the one that was extracted; a missing one has not changed.

    Equal size and time of change are believed; otherwise the bytes decide.
    """
    facts = source_facts(path)
    if facts is None or facts == (before["source_bytes"], before["source_mtime_ns"]):
        return False
    if before["source_sha256"] is None:
        return True
    try:
        return bool(source_sha256(path) != before["source_sha256"])
    except OSError:
        return True


def _spans_of_clips(manifest: Manifest) -> dict[str, list[Span]]:
    """The different spans of each clip's texts and questions, by start."""
    spans: dict[str, set[Span]] = {}
    for table in (manifest.texts, manifest.questions):
        columns = [table[name].to_pylist() for name in ("clip_id", "start_seconds", "end_seconds")]
        for clip_id, start, end in zip(*columns, strict=True):
            if start is not None:
                spans.setdefault(clip_id, set()).add((start, end))
    return {clip_id: sorted(found) for clip_id, found in spans.items()}
