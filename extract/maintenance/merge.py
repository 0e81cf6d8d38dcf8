"""Several caches of one key as one: shards linked, index rows chosen, nothing computed anew.

What comes out is what one extraction of all their inputs would have left, but for how clips are
spread over shards.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ...data_manifests.tables.schema import TABLES as MANIFEST_TABLES
from ..cache.contract import (
    ID_COLUMNS,
    CacheError,
    Unit,
    digest,
    read_settings,
    settings_path,
)
from ..cache.disk_files import disk_errors, put_file
from ..cache.store import FeatureStore
from ..cache.writer import check_new, json_bytes, setting_differences
from ..planning.inputs import Inputs
from .merge_plan import IndexRows, MergePlan, build

MAX_CONFLICTS: Final = 10
"""Named in an error."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Merged:
    """What came of a merge."""

    cache: str
    sources: list[str]
    clips: dict[str, int]
    """By status."""
    num_texts: int
    num_questions: int
    num_shared_clips: int
    """That were in more than one source, equal in all of them."""

    def line(self) -> str:
        """One line for a person."""
        counts = ", ".join(f"{count} {status}" for status, count in self.clips.items())
        return (
            f"{sum(self.clips.values())} clips: {counts}; {self.num_texts} texts, "
            f"{self.num_questions} questions; {self.num_shared_clips} clips were in more than one "
            f"of {len(self.sources)} caches -> {self.cache}"
        )


def merge_caches(sources: Sequence[Path], target: Path, *, copy: bool = False) -> Merged:
    """Make `target` the cache of all clips, texts and questions of the sources, which stay as they
    are.

    Shards are hard links where the disk allows it, else (or with `copy`) copies. target appears
    whole or not at all; a killed merge is finished by the same call, which uses what it had copied.
    Of a clip that is in several sources, one with features comes before a failed one. Text ids that
    mean different texts get the source's position in front ("2:row-1"), as `reader.combine` does.
    Raises CacheError when the sources differ in key or layout (with both values), when a clip is
    not the same in two of them (naming both), or when one is damaged; DiskError.
    """
    stores = _open(sources, target)
    clips, shared = _clips(stores)
    plan = MergePlan()
    root = _common_root(stores)
    for store, rows in zip(stores, clips, strict=True):
        plan.add_clips(store, _moved(rows, store, root))
    for unit in ("texts", "questions"):
        for store, rows in zip(stores, _items(stores, unit), strict=True):
            plan.add(unit, store, rows)
    building = target.absolute().parent / f".{target.name}.merging"
    with disk_errors(building / "shards"):
        building.mkdir(parents=True, exist_ok=True)
    build(building, plan, copy=copy)
    put_file(settings_path(building), json_bytes(_content(stores, root)))
    with disk_errors(target):
        if target.is_dir():
            target.rmdir()
        building.rename(target)
    statuses = [row["status"] for rows in clips for row in rows]
    return Merged(
        cache=str(target),
        sources=[str(store.path) for store in stores],
        clips={status: statuses.count(status) for status in ("ok", "partial", "failed")},
        num_texts=plan.count("texts"),
        num_questions=plan.count("questions"),
        num_shared_clips=shared,
    )


def _open(sources: Sequence[Path], target: Path) -> list[FeatureStore]:
    """The sources, when they can be merged into `target`."""
    if settings_path(target).exists():
        raise CacheError(f"{target} is a cache already; choose a new folder with -o")
    check_new(target)
    places = [path.resolve() for path in sources]
    for place, path in zip(places, sources, strict=True):
        if places.count(place) > 1:
            raise CacheError(f"{path} is named twice")
        if place in target.resolve().parents:
            raise CacheError(f"{target} lies within {path}; choose a folder outside with -o")
    contents = [read_settings(path) for path in sources]
    first = {**contents[0]["settings"], **contents[0]["layout"]}
    lines = []
    for path, content in zip(sources[1:], contents[1:], strict=True):
        other = {**dict.fromkeys(first), **content["settings"], **content["layout"]}
        lines += [
            f"  {name}: {sources[0]} has {one}, {path} has {two}"
            for name, one, two in setting_differences(first, other)
        ]
    if lines:
        raise CacheError("\n".join(["the caches were made with other settings:", *lines]))
    return [FeatureStore.open(path) for path in sources]


def _clips(stores: Sequence[FeatureStore]) -> tuple[list[IndexRows], int]:
    """For each source the clip rows that are taken from it, and how many clips are in several.

    Raises CacheError naming the clips that are not the same in two sources.
    """
    taken: dict[str, tuple[int, dict[str, Any]]] = {}
    shared: set[str] = set()
    conflicts = []
    for position, store in enumerate(stores):
        for row in store.clips.to_pylist():
            clip_id = row["clip_id"]
            if clip_id not in taken:
                taken[clip_id] = position, row
                continue
            shared.add(clip_id)
            other, before = taken[clip_id]
            if "failed" in (row["status"], before["status"]):
                if row["status"] != "failed":
                    taken[clip_id] = position, row
            elif difference := _difference(before, row):
                conflicts.append(
                    f"  {clip_id!r}: {difference} in {stores[other].path} and {store.path}"
                )
    if conflicts:
        more = len(conflicts) - MAX_CONFLICTS
        raise CacheError(
            "\n".join(
                [
                    "clips of one name are not the same in the caches; nothing was written:",
                    *conflicts[:MAX_CONFLICTS],
                    *([f"  ... and {more} more"] if more > 0 else []),
                ]
            )
        )
    rows: list[IndexRows] = [[] for _ in stores]
    for position, row in taken.values():
        rows[position].append(row)
    return rows, len(shared)


def _difference(one: dict[str, Any], two: dict[str, Any]) -> str | None:
    """In what two rows of one clip differ, where it matters."""
    if one["source_sha256"] != two["source_sha256"]:
        return f"its video has SHA-256 {one['source_sha256'][:16]} and {two['source_sha256'][:16]}"
    for name in ("start_seconds", "end_seconds", "split", "text_spans"):
        if one[name] != two[name]:
            return f"its {name} is {one[name]} and {two[name]}"
    return None


def _items(stores: Sequence[FeatureStore], unit: Unit) -> list[IndexRows]:
    """For each source the texts (or questions) that are taken from it; equal ones once."""
    column = ID_COLUMNS[unit]
    tables: list[IndexRows] = [getattr(store, unit).to_pylist() for store in stores]
    digests: dict[str, set[str]] = {}
    for rows in tables:
        for row in rows:
            digests.setdefault(row[column], set()).add(row["item_digest"])
    is_ambiguous = any(len(found) > 1 for found in digests.values())
    seen: set[str] = set()
    chosen = []
    for position, rows in enumerate(tables, start=1):
        own = [row for row in rows if row["item_digest"] not in seen]
        seen |= {row["item_digest"] for row in own}
        if is_ambiguous:
            own = [_renamed(row, unit, f"{position}:{row[column]}") for row in own]
        chosen.append(own)
    return chosen


def _renamed(row: dict[str, Any], unit: Unit, name: str) -> dict[str, Any]:
    """The row under another id, with the digest that planning gives it."""
    row = {**row, ID_COLUMNS[unit]: name}
    return {**row, "item_digest": digest({c: row[c] for c in MANIFEST_TABLES[unit].names})}


def _common_root(stores: Sequence[FeatureStore]) -> Path:
    return Path(os.path.commonpath([store.record["videos_root"] for store in stores]))


def _moved(rows: IndexRows, store: FeatureStore, root: Path) -> IndexRows:
    """Clip rows with their video's path from another root, and the digest that goes with it."""
    prefix = Path(store.record["videos_root"]).relative_to(root)
    if prefix == Path():
        return rows
    moved = []
    for row in rows:
        row = {**row, "video_path": (prefix / row["video_path"]).as_posix()}
        manifest_row = {name: row[name] for name in MANIFEST_TABLES["clips"].names}
        moved.append({**row, "item_digest": digest([manifest_row, row["text_spans"] or []])})
    return moved


def _content(stores: Sequence[FeatureStore], root: Path) -> dict[str, Any]:
    """cache.json: the first source's, with what speaks of all; each one's own under ``merged``."""
    kept = ("format", "key", "settings", "layout")
    return {
        **stores[0].record,
        "videos_root": str(root),
        "dataset": "+".join(str(store.record["dataset"]) for store in stores),
        "official": _common([store.record.get("official", {}) for store in stores]),
        "inputs": _inputs([Inputs.of_record(store.record) for store in stores]),
        "command": shlex.join(sys.argv),
        "merged": [
            {name: value for name, value in store.record.items() if name not in kept}
            for store in stores
        ],
    }


def _common(counts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What all say; of several datasets nothing holds for all."""
    return counts[0] if all(own == counts[0] for own in counts) else {}


def _inputs(inputs: Sequence[Inputs]) -> dict[str, Any] | None:
    """What the sources were made of, if one command could name it all."""
    different = list(dict.fromkeys(inputs))
    if len(different) == 1:
        return different[0].record()
    if not all(one and one.manifest is None for one in different):
        return None
    videos = dict.fromkeys(path for one in different for path in one.videos)
    return Inputs(videos=tuple(videos)).record()
