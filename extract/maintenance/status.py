"""What is in a cache, what failed and why, and what is missing. Reads the index alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ...data_manifests.core.errors import ManifestError
from ...data_manifests.tables.schema import Manifest
from ..cache.contract import TABLES, CacheError, Unit, read_settings
from ..cache.shards import index_files, live_rows, read_index_file
from ..planning.inputs import Inputs
from ..planning.progress import printable

SHOWN_CLIPS = 20
"""Clips of one kind that a person is shown; --json has them all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trouble:
    """A clip that is not whole, or not there."""

    clip_id: str
    stage: str | None
    """Of a failed clip: open, decode, worker or encode."""
    reason: str | None
    """The decoder's last words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheStatus:
    """All that `mlalign-extract status` tells."""

    cache: str
    key: str
    made: dict[str, Any]
    """All of cache.json but the key: settings, layout, versions, device, command ..."""
    clips: dict[str, int]
    """By status: ok, partial, failed."""
    splits: dict[str, dict[str, int]]
    """Split to clips by status."""
    num_frames: int
    segments: dict[str, int]
    """By rule, those of the layout first."""
    num_texts: int
    num_tokens: int
    """Of the texts; 0 where tokens are not kept."""
    num_cut_texts: int
    """Texts that are longer than the tower reads."""
    num_questions: int
    num_bytes: int
    """On disk."""
    failed: list[Trouble]
    partial: list[Trouble]
    dataset: str | None
    """What `missing` was held against; None when it is not there."""
    missing: list[str] | None
    """Clips of the dataset that are not in the index; None when the dataset is not there."""
    num_missing_texts: int | None
    """Texts and questions of the dataset that are not in the index."""
    damaged: list[str]
    """Index files that cannot be read; what they hold is not counted."""

    def lines(self) -> list[str]:
        """For a terminal; names and reasons are made safe to print."""
        return [printable(line) for line in _lines(self)]


def cache_status(cache: Path, manifest: Manifest | None = None) -> CacheStatus:
    """Look at a cache, whole or not; shards are not read (`verify` does).

    manifest: what should be in it; None: what cache.json says it was made of, if that is there.
    Raises CacheError when there is no cache or cache.json cannot be read.
    """
    content = read_settings(cache)
    damaged: list[str] = []
    tables = {table: _rows(cache, table, damaged) for table in TABLES}
    units: tuple[Unit, ...] = ("clips", "texts", "questions")
    live = {unit: live_rows(tables[unit], unit) for unit in units}
    clips = live["clips"]
    dataset, manifest = _dataset(content, manifest)
    return CacheStatus(
        cache=str(cache),
        key=content["key"],
        made={name: value for name, value in content.items() if name != "key"},
        clips=_by_status(clips),
        splits={
            split: _by_status(clips.filter(pc.equal(clips["split"], split)))
            for split in sorted(pc.unique(clips["split"]).to_pylist())
        },
        num_frames=pc.sum(clips["num_frames"]).as_py() or 0,
        segments=_by_rule(tables["segments"], clips, content["layout"]["segments"]),
        num_texts=live["texts"].num_rows,
        num_tokens=pc.sum(live["texts"]["num_tokens"]).as_py() or 0,
        num_cut_texts=pc.sum(live["texts"]["is_cut"]).as_py() or 0,
        num_questions=live["questions"].num_rows,
        num_bytes=sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()),
        failed=_troubles(clips, "failed"),
        partial=_troubles(clips, "partial"),
        dataset=dataset,
        missing=None if manifest is None else _absent(manifest.clips, clips, "clip_id"),
        num_missing_texts=None
        if manifest is None
        else len(_absent(manifest.texts, live["texts"], "text_id"))
        + len(_absent(manifest.questions, live["questions"], "question_id")),
        damaged=damaged,
    )


def _rows(cache: Path, table: str, damaged: list[str]) -> pa.Table:
    parts = [TABLES[table].empty_table()]
    for path in index_files(cache, table):
        try:
            parts.append(read_index_file(path, table))
        except CacheError:
            damaged.append(path.relative_to(cache).as_posix())
    return pa.concat_tables(parts)


def _dataset(
    content: dict[str, Any], manifest: Manifest | None
) -> tuple[str | None, Manifest | None]:
    """What should be in the cache, and where that is written."""
    if manifest is not None:
        return f"{manifest.name} ({manifest.videos_root})", manifest
    inputs = Inputs.of_record(content)
    if not inputs:
        return None, None
    try:
        return str(inputs), inputs.read()
    except ManifestError:
        return None, None


def _by_status(clips: pa.Table) -> dict[str, int]:
    counts = Counter(clips["status"].to_pylist())
    return {status: counts[status] for status in ("ok", "partial", "failed")}


def _by_rule(segments: pa.Table, clips: pa.Table, rules: Sequence[str]) -> dict[str, int]:
    live = pa.table({"clip_id": clips["clip_id"], "clip_shard": clips["shard"]})
    counts = Counter(
        segments.join(live, keys=["clip_id", "clip_shard"], join_type="left semi")[
            "rule"
        ].to_pylist()
    )
    return {rule: counts[rule] for rule in rules}


def _troubles(clips: pa.Table, status: str) -> list[Trouble]:
    rows = clips.filter(pc.equal(clips["status"], status)).select(["clip_id", "stage", "reason"])
    return [Trouble(**row) for row in rows.to_pylist()]


def _absent(wanted: pa.Table, found: pa.Table, column: str) -> list[str]:
    there = set(found[column].to_pylist())
    return [name for name in wanted[column].to_pylist() if name not in there]


def _lines(status: CacheStatus) -> list[str]:
    made, settings = status.made, status.made["settings"]
    stored = [f"{settings['width']} wide", settings["dtype"]]
    stored += [] if made["layout"]["keep_frames"] else ["frames not kept"]
    stored += ["tokens kept"] if made["layout"]["keep_tokens"] else []
    notes = [f"{status.num_tokens} tokens"] if status.num_tokens else []
    notes += [f"{n} longer than the tower reads"] if (n := status.num_cut_texts) else []
    of_texts = f" ({', '.join(notes)})" if notes else ""
    lines = [
        f"cache      {status.cache}, {_size(status.num_bytes)}, key {status.key[:16]}",
        f"backbone   {settings['backbone']}, weights {_weights(made)}, {settings['precision']}",
        f"features   {', '.join(stored)}",
        f"settings   {_plain(settings, leave_out=_TOLD)}",
        *([_decoder(made)] if "decoder" in made else []),  # not of imported features
        f"versions   {_plain(made.get('versions', {}))}",
        f"command    {made.get('command')}",
        f"clips      {sum(status.clips.values())}: {_counts(status.clips)}",
        *(f"  {split:<8} {_counts(counts)}" for split, counts in status.splits.items()),
        f"frames     {status.num_frames}",
        f"segments   {', '.join(f'{rule} {count}' for rule, count in status.segments.items())}",
        f"texts      {status.num_texts}{of_texts}, questions {status.num_questions}",
    ]
    for name, troubles in (("failed", status.failed), ("partial", status.partial)):
        if troubles:
            lines.append(f"{name:<10} {len(troubles)}")
            lines += _some([_trouble(trouble) for trouble in troubles])
    if status.missing is None:
        lines.append("missing    not known: say with VIDEOS or --manifest what should be here")
    elif status.missing or status.num_missing_texts:
        texts = f" and {status.num_missing_texts} texts" if status.num_missing_texts else ""
        lines.append(f"missing    {len(status.missing)} clips{texts} of {status.dataset}")
        lines += _some([f"  {clip_id}" for clip_id in status.missing])
    else:
        lines.append(f"missing    nothing of {status.dataset}")
    if status.damaged:
        lines.append("damaged    run the same mlalign-extract again to repair the cache")
        lines += _some([f"  {file}" for file in status.damaged])
    return lines


_TOLD = ("backbone", "weights_sha256", "precision", "width", "dtype", "pretrained")


def _decoder(made: dict[str, Any]) -> str:
    name = made.get("device_name", "")
    return f"decoder    {made['decoder']}, on {made.get('device')} {name}"


def _weights(made: dict[str, Any]) -> str:
    source = made["settings"].get("pretrained") or made.get("checkpoint")
    if "weights_sha256" not in made["settings"]:
        return "of another tool"
    digest = f"{made['settings']['weights_sha256'][:16]}..."
    return f"{source} ({digest})" if source else digest


def _trouble(trouble: Trouble) -> str:
    stage = f"{trouble.stage}: " if trouble.stage else ""
    return f"  {trouble.clip_id}: {stage}{trouble.reason}"


def _some(lines: list[str]) -> list[str]:
    more = len(lines) - SHOWN_CLIPS
    return lines if more <= 0 else [*lines[:SHOWN_CLIPS], f"  ... and {more} more (--json)"]


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {status}" for status, count in counts.items())


def _plain(values: dict[str, Any], *, leave_out: Sequence[str] = ()) -> str:
    parts = []
    for name, value in values.items():
        if name not in leave_out:
            inner = f"({_plain(value)})" if isinstance(value, dict) else str(value)
            parts.append(f"{name} {inner}")
    return ", ".join(parts)


def _size(num_bytes: int) -> str:
    size = float(num_bytes)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
