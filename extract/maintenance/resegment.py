"""Cutting segments anew from the frame features that a cache keeps, without decoding.

What the new rules lack is put beside what is there, then the layout is switched, then what only
the old rules had is removed: see `contract`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import pyarrow as pa
import pyarrow.compute as pc

from ...data_manifests.core.errors import SettingsError
from ..cache.contract import (
    CLIPS,
    SEGMENTS,
    CacheError,
    index_path,
    read_settings,
    segments_shard,
    settings_path,
    shard_path,
)
from ..cache.disk_files import put_file
from ..cache.shards import index_files, is_intact, live_rows, read_index, read_index_file
from ..cache.writer import ArrayMatrix, clear_leftovers, commit_shard, json_bytes, parquet_bytes
from ..segments.cutting import CutFacts, SegmentRows
from ..segments.rules import SHOTS, parse_rule

Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Resegmented:
    """What a cache has after its segments were cut by other rules."""

    cache: str
    segments: tuple[str, ...]
    """The rules now in force; the first is the default."""
    num_clips: int
    """That have features."""
    num_segments: int
    """Of these clips, by all rules."""
    num_cut: int
    """Of these, how many had to be cut now."""
    seconds: float

    def line(self) -> str:
        """One line for a person."""
        return (
            f"{self.num_clips} clips have {self.num_segments} segments by "
            f"{', '.join(self.segments)}; {self.num_cut} cut now in {self.seconds:.1f} s -> "
            f"{self.cache}"
        )


def resegment(cache: Path, rules: Sequence[str], *, report: Report) -> Resegmented:
    """Make `rules` the cache's segment rules, cutting what they lack from the kept frame features.

    The features are, to the bit, those of an extraction with these rules. Killed at any instant,
    the cache has the segments of the old rules or of the new ones, and the same call finishes it.
    report: told of damaged segments shards, which are cut again.
    Raises SettingsError for rules that are none, CacheError when the frame features or the shots
    were not kept, or a clip shard is damaged; the rules are then as before.
    """
    began = time.monotonic()
    _check_rules(rules)
    content = read_settings(cache)
    _check_kept(cache, content["layout"], rules)
    clear_leftovers(cache)
    num_cut = 0
    for path in index_files(cache, "clips"):
        num_cut += _complete_shard(cache, read_index_file(path, "clips"), rules, report=report)[1]
    if content["layout"]["segments"] != list(rules):
        put_file(settings_path(cache), json_bytes(_with_rules(content, rules)))
    # An extraction that began under the old rules may have committed more clips by now.
    num_cut += complete_segments(cache, rules, report=report)
    _remove_others(cache)
    live = live_rows(read_index(cache, "clips"), "clips")
    live = live.filter(pc.not_equal(live["status"], "failed"))
    return Resegmented(
        cache=str(cache),
        segments=tuple(rules),
        num_clips=live.num_rows,
        num_segments=pc.sum(live["num_segments"]).as_py() or 0,
        num_cut=num_cut,
        seconds=time.monotonic() - began,
    )


def complete_segments(cache: Path, rules: Sequence[str], *, report: Report) -> int:
    """Commit the segments that clips lack by the cache's rules, and count; how many were lacking.

    None is after an undisturbed run. Some are where resegment was killed or at work beside an
    extraction, and where a segments shard is damaged (which is told to `report`).
    Raises CacheError when a clip shard is damaged or without its frames, DiskError.
    """
    num_cut = 0
    for path in index_files(cache, "clips"):
        rows = read_index_file(path, "clips")
        counts, newly_cut = _complete_shard(cache, rows, rules, report=report)
        num_cut += newly_cut
        new = [counts[clip_id] for clip_id in rows["clip_id"].to_pylist()]
        if new != rows["num_segments"].to_pylist():
            pairs = zip(rows.to_pylist(), new, strict=True)
            put_file(path, parquet_bytes(CLIPS, [{**row, "num_segments": n} for row, n in pairs]))
    return num_cut


def _check_rules(rules: Sequence[str]) -> None:
    problems = []
    for rule in rules:
        try:
            parse_rule(rule)
        except ValueError as error:
            problems.append(str(error))
    if len(set(rules)) < len(rules):
        problems.append(f"segments names a rule twice: {', '.join(rules)}")
    if problems:
        raise SettingsError("\n".join(problems))


def _check_kept(cache: Path, layout: dict[str, Any], rules: Sequence[str]) -> None:
    if not layout["keep_frames"]:
        raise CacheError(
            f"{cache} keeps no frame features (keep_frames is false), so its segments cannot be "
            "cut anew; extract into a new cache with the rules you want"
        )
    if SHOTS in rules and not layout["shots"]:
        raise CacheError(
            f"{cache} does not know the shots of its clips: they are found while decoding, and its "
            "extraction did not ask for them; extract into a new cache with --segments shots, or "
            "with other rules and --set shots=true"
        )


def _with_rules(content: dict[str, Any], rules: Sequence[str]) -> dict[str, Any]:
    """What cache.json says once the rules are in force."""
    changed = {**content, "layout": {**content["layout"], "segments": list(rules)}}
    if "config" in content:
        changed["config"] = {**content["config"], "segments": list(rules)}
    return changed


def _complete_shard(
    cache: Path, clips: pa.Table, rules: Sequence[str], *, report: Report
) -> tuple[Counter[str], int]:
    """Commit what the clips of one shard lack; segments of each clip, and how many were lacking.

    clips: the rows of one file of the clips' index.
    """
    usable = clips.filter(pc.not_equal(clips["status"], "failed"))
    if usable.num_rows == 0:
        return Counter(), 0
    clip_shard = usable["shard"][0].as_py()
    counts: Counter[str] = Counter()
    missing = []
    own = _whole_rows(cache, clip_shard, report=report)
    for rule in rules:
        rows = own.filter(pc.equal(own["rule"], rule))
        if rows.num_rows:
            # Cut while the index of the clip shard was damaged, which has since been repaired.
            _remove(cache, segments_shard(clip_shard, rule))
        else:
            rows = _whole_rows(cache, segments_shard(clip_shard, rule), report=report)
        if rows.num_rows == 0:
            missing.append(rule)
        counts.update(rows["clip_id"].to_pylist())
    before = counts.total()
    if missing:
        counts.update(_cut_shard(cache, usable, missing))
    return counts, counts.total() - before


def _whole_rows(cache: Path, shard: str, *, report: Report) -> pa.Table:
    """Segment rows of the index file of a shard; none when that, or a segments shard, is missing or
    damaged. What is damaged is removed."""
    path = index_path(cache, "segments", shard)
    nothing = SEGMENTS.empty_table()
    if not path.exists():
        return nothing
    try:
        rows = read_index_file(path, "segments")
    except CacheError as error:
        report(f"{error.args[0].split(';')[0]}; its segments are cut again")
        path.unlink(missing_ok=True)
        return nothing
    if rows.num_rows == 0 or shard == rows["clip_shard"][0].as_py():
        return rows  # whether clip shards are whole, planning sees to
    if not is_intact(cache, shard, rows["shard_sha256"][0].as_py()):
        report(f"the shard {shard_path(cache, shard)} is damaged; it is cut again")
        _remove(cache, shard)
        return nothing
    return rows


def _remove(cache: Path, segments_shard: str) -> None:
    # The index last: as long as it is there, a run that comes after a kill finds both.
    shard_path(cache, segments_shard).unlink(missing_ok=True)
    index_path(cache, "segments", segments_shard).unlink(missing_ok=True)


def _cut_shard(cache: Path, rows: pa.Table, rules: Sequence[str]) -> list[str]:
    """Commit one segments shard per rule of the clips of a clip shard, replaced ones too: a shard's
    content must not hang on when it is written. The clip of each segment."""
    shard = rows["shard"][0].as_py()
    path = shard_path(cache, shard)
    if not is_intact(cache, shard, rows["shard_sha256"][0].as_py()):
        raise CacheError(
            f"the shard {path} is damaged; run the same mlalign-extract again to repair the cache"
        )
    with h5py.File(path, "r") as file:
        features, sampled = file["frames/features"], file["frames/sample_seconds"][()]
        cut = {rule: SegmentRows(width=features.shape[1], dtype=features.dtype) for rule in rules}
        for row in rows.to_pylist():
            facts = _facts(row)
            first, count = row["first_frame_row"], row["num_frames"]
            frames = ArrayMatrix(features, first=first, count=count)
            for rule in rules:
                try:
                    spans = facts.spans(rule)
                except ValueError as error:
                    raise CacheError(f"clip {facts.clip_id}: {error}") from error
                seconds = sampled[first : first + count]
                cut[rule].add(facts.clip_id, rule, spans, frames=frames, sample_seconds=seconds)
    for rule in rules:
        commit_shard(
            cache,
            "segments",
            Path(segments_shard(shard, rule)).stem,
            arrays={"segments/features": cut[rule].features},
            tables={"segments": [{**found, "clip_shard": shard} for found in cut[rule].rows]},
        )
    return [row["clip_id"] for rule in rules for row in cut[rule].rows]


def _facts(row: dict[str, Any]) -> CutFacts:
    """From a row of the clips' index."""
    return CutFacts(
        clip_id=row["clip_id"],
        duration_seconds=row["duration_seconds"],
        text_spans=[(start, end) for start, end in row["text_spans"]],
        shot_seconds=row["shot_seconds"] or (),
    )


def _remove_others(cache: Path) -> None:
    """Remove the segments shards of rules that are no longer in force."""
    rules = read_settings(cache)["layout"]["segments"]  # maybe not ours, by now
    clip_shards = [f"{path.stem}.h5" for path in index_files(cache, "clips")]
    wanted = {segments_shard(clip_shard, rule) for clip_shard in clip_shards for rule in rules}
    for path in index_files(cache, "segments"):
        shard = f"{path.stem}.h5"
        if shard.startswith("segments-") and shard not in wanted:
            _remove(cache, shard)
