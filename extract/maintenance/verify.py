"""Whether a cache is whole: every checksum, and every promise of the contract. Changes nothing."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h5py
import pyarrow as pa
import pyarrow.compute as pc

from ..cache.contract import (
    TABLES,
    CacheError,
    index_path,
    read_settings,
    settings_path,
    shard_path,
)
from ..cache.shards import index_files, live_rows, read_index_file
from ..cache.writer import orphans
from .shard_checks import array_problems, row_problems, wanted_arrays

NEVER_NULL: Final = frozenset(
    (
        *("clip_id", "text_id", "question_id", "status", "split", "item_digest", "generation"),
        *("shard", "shard_sha256", "clip_shard", "rule", "segment_index"),
    )
)
"""Columns of the index that every row has a value in."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One thing that is wrong with one file."""

    file: str
    """Relative to the cache."""
    problem: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Verified:
    """What was looked at and what was found."""

    cache: str
    num_shards: int
    num_index_files: int
    num_bytes: int
    problems: list[Problem]

    def lines(self) -> list[str]:
        """For a person."""
        looked = (
            f"{self.num_shards} shards, {self.num_index_files} index files, "
            f"{self.num_bytes / 2**20:.1f} MiB"
        )
        if not self.problems:
            return [f"{self.cache} is whole: {looked}"]
        hint = "run the same mlalign-extract command again: it repairs the cache"
        if self.problems[0].file == "cache.json":
            hint = "put back cache.json from a copy, or extract into a new folder"
        return [
            f"{self.cache} has {len(self.problems)} faults ({looked}):",
            *(f"  {found.file}: {found.problem}" for found in self.problems),
            hint,
        ]


def verify_cache(cache: Path) -> Verified:
    """Read all of a cache, arrays included, and list what is not as the contract has it.

    What a run that is at work may be about to commit is no fault (`writer.orphans`).
    Raises CacheError when there is no cache.
    """
    if not settings_path(cache).exists():
        read_settings(cache)  # says what is wrong
    found = _Findings(cache)
    try:
        content = read_settings(cache)
        wanted_arrays("clips", content)
    except (CacheError, KeyError, TypeError, ValueError) as error:
        found.note(settings_path(cache), str(error))
    else:
        tables = {table: _index(table, found) for table in TABLES}
        for shard, sha256 in _named_shards(tables):
            _check_shard(shard, sha256, tables, content, found)
        for path in orphans(cache):
            if path not in found.unreadable:
                found.note(path, "belongs to nothing in the index")
        problems = list(_segment_problems(cache, tables, content["layout"]["segments"]))
        if content["layout"]["keep_tokens"]:
            problems += _token_problems(cache, live_rows(tables["texts"], "texts"))
        for path, problem in problems:
            if path not in found.unreadable:
                found.note(path, problem)
    return Verified(
        cache=str(cache),
        num_shards=found.num_shards,
        num_index_files=found.num_index_files,
        num_bytes=found.num_bytes,
        problems=found.problems,
    )


class _Findings:
    """What was looked at, and the problems so far."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.problems: list[Problem] = []
        self.unreadable: set[Path] = set()
        """Files of the shards whose index cannot be read: they have been named."""
        self.num_shards = self.num_index_files = self.num_bytes = 0

    def note(self, path: Path, problem: str) -> None:
        name = path.relative_to(self.cache).as_posix()
        self.problems.append(Problem(file=name, problem=problem))


def _index(table: str, found: _Findings) -> pa.Table:
    """All rows of the index files of a table that can be read."""
    parts = [TABLES[table].empty_table()]
    for path in index_files(found.cache, table):
        found.num_index_files += 1
        found.num_bytes += path.stat().st_size
        try:
            rows = read_index_file(path, table)
        except CacheError as error:
            found.note(path, str(error).rpartition("; ")[0])
            shard = f"{path.stem}.h5"
            found.unreadable |= {path, shard_path(found.cache, shard)}
            found.unreadable |= {index_path(found.cache, other, shard) for other in TABLES}
            continue
        for name in rows.column_names:
            if name in NEVER_NULL and rows[name].null_count:
                found.note(path, f"the column {name} has rows without a value")
        named = set(rows["shard"].to_pylist())
        if named - {f"{path.stem}.h5"}:
            found.note(path, f"names another shard than its own: {', '.join(sorted(named))}")
        parts.append(rows)
    return pa.concat_tables(parts)


def _named_shards(tables: dict[str, pa.Table]) -> list[tuple[str, str]]:
    """(shard, digest) of all rows, sorted; a shard that has two digests comes twice."""
    named: set[tuple[str, str]] = set()
    for rows in tables.values():
        pairs = (
            rows.select(["shard", "shard_sha256"]).drop_null().group_by(["shard", "shard_sha256"])
        )
        columns = pairs.aggregate([]).to_pydict()
        named |= set(zip(columns["shard"], columns["shard_sha256"], strict=True))
    return sorted(named)


def _check_shard(
    shard: str,
    sha256: str,
    tables: dict[str, pa.Table],
    content: dict[str, Any],
    found: _Findings,
) -> None:
    path = shard_path(found.cache, shard)
    found.num_shards += 1
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        found.num_bytes += path.stat().st_size
    except OSError as error:
        found.note(path, f"is named by the index but cannot be read: {error.strerror}")
        return
    if digest != sha256:
        found.note(path, f"is damaged: its SHA-256 is {digest}, the index has {sha256}")
        return
    own = {table: rows.filter(pc.equal(rows["shard"], shard)) for table, rows in tables.items()}
    try:
        with h5py.File(path, "r") as file:
            wanted = wanted_arrays(shard.partition("-")[0], content)
            problems = list(array_problems(file, wanted)) or list(row_problems(file, own))
    except (OSError, RuntimeError, KeyError) as error:
        problems = [f"is not such a shard: {error}"]
    for problem in problems:
        found.note(path, problem)


def _segment_problems(
    cache: Path, tables: dict[str, pa.Table], rules: list[str]
) -> Iterator[tuple[Path, str]]:
    """Clips without their segments by a rule, and segments without their clip."""
    segments = tables["segments"].select(["clip_shard", "clip_id", "rule", "segment_index"])
    indices: dict[tuple[str, str, str], list[int]] = {}
    for shard, clip_id, rule, index in zip(*segments.to_pydict().values(), strict=True):
        indices.setdefault((shard, clip_id, rule), []).append(index)
    usable = live_rows(tables["clips"], "clips")
    for shard, clip_id in _pairs(usable.filter(pc.not_equal(usable["status"], "failed"))):
        for rule in rules:
            numbers = sorted(indices.get((shard, clip_id, rule), []))
            if not numbers or numbers != list(range(len(numbers))):
                has = f"segments {numbers}" if numbers else "no segments"
                problem = f"the clip {clip_id!r} has {has} by the rule {rule}"
                yield index_path(cache, "segments", shard), problem
    known = set(_pairs(tables["clips"]))
    shards = {shard for shard, _ in known}
    for shard, clip_id in sorted({(shard, clip_id) for shard, clip_id, _ in indices} - known):
        if shard in shards:  # else they belong to an orphan, or to what is about to be committed
            problem = f"has segments of the clip {clip_id!r}, which is not in the index"
            yield index_path(cache, "segments", shard), problem


def _token_problems(cache: Path, texts: pa.Table) -> list[tuple[Path, str]]:
    """Texts that were to be encoded again, to have tokens, and were not yet."""
    shards = Counter(texts.filter(pc.is_null(texts["first_token_row"]))["shard"].to_pylist())
    return [
        (index_path(cache, "texts", shard), f"{count} texts have no tokens")
        for shard, count in sorted(shards.items())
    ]


def _pairs(clips: pa.Table) -> list[tuple[str, str]]:
    """(shard, clip id) of each row."""
    return list(zip(clips["shard"].to_pylist(), clips["clip_id"].to_pylist(), strict=True))
