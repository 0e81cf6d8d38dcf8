"""The features of a cache as files of other tools: whole or not at all."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..cache.contract import CacheError, option_counts, shard_path
from ..cache.disk_files import disk_errors
from ..cache.shards import is_intact
from ..cache.store import FeatureStore
from ..cache.writer import check_new
from .files import check_names, open_feature_writer
from .sources import FormatName

Level = Literal["frame", "segment", "clip"]

BLOCK_ROWS: Final = 65_536
"""Of the index, written together."""

INDEX: Final = pa.schema(
    [
        ("key", pa.string()),  # of the features: the clip's id
        ("row", pa.int64()),  # of the features
        ("start_seconds", pa.float64()),  # of a frame: the instant that asked for it
        ("end_seconds", pa.float64()),  # null for frames
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """What was written."""

    out: str
    num_clips: int
    num_failed_clips: int
    """Of the cache: they have no features."""
    num_rows: int
    num_texts: int
    num_questions: int

    def line(self) -> str:
        """One line for a person."""
        left_out = [f"{self.num_failed_clips} failed clips"] * bool(self.num_failed_clips)
        return (
            f"{self.num_clips} clips with {self.num_rows} rows, {self.num_texts} texts, "
            f"{self.num_questions} questions"
            + (f" (left out: {', '.join(left_out)})" if left_out else "")
            + f" -> {self.out}"
        )


def export_features(cache: Path, out: Path, *, format: FormatName, level: Level) -> Exported:
    """Write OUT/video, OUT/text, OUT/questions and OUT/index.parquet.

    Features are as the cache has them, type included. Texts have one row each. Raises CacheError
    when the cache is damaged or does not keep the level, an id cannot be a name in the format, or
    OUT is not empty; DiskError.
    """
    store = FeatureStore.open(cache)
    if level == "frame" and not store.record["layout"]["keep_frames"]:
        raise CacheError(f"{cache} keeps no frame features; choose --level segment or clip")
    check_new(out)
    clips = store.clips.filter(pc.not_equal(store.clips["status"], "failed"))
    check_names(clips["clip_id"].to_pylist(), what="clip", format=format)
    check_names(store.texts["text_id"].to_pylist(), what="text", format=format)
    asked = [f"{name}_q" for name in store.questions["question_id"].to_pylist()]
    check_names(asked, what="question", format=format)
    building = out.absolute().parent / f".{out.name}.{os.getpid()}.exporting"
    with disk_errors(out):
        try:
            building.mkdir(parents=True)
            num_rows = _write_videos(store, clips, building, format=format, level=level)
            if store.texts.num_rows:
                _write_texts(store, building / "text", format)
            if store.questions.num_rows:
                _write_questions(store, building / "questions", format)
            if out.is_dir():
                out.rmdir()
            building.rename(out)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return Exported(
        out=str(out),
        num_clips=clips.num_rows,
        num_failed_clips=store.clips.num_rows - clips.num_rows,
        num_rows=num_rows,
        num_texts=store.texts.num_rows,
        num_questions=store.questions.num_rows,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Features:
    """Of one clip, at one level."""

    clip_id: str
    values: np.ndarray
    """(n, D), as stored."""
    start_seconds: Sequence[float]
    """n."""
    end_seconds: Sequence[float | None]
    """n."""


def _write_videos(
    store: FeatureStore, clips: pa.Table, out: Path, *, format: FormatName, level: Level
) -> int:
    """Features and index; how many rows."""
    num_rows = 0
    columns: tuple[list[Any], ...] = ([], [], [], [])
    with (
        open_feature_writer(out / "video", format, is_text=False) as writer,
        pq.ParquetWriter(out / "index.parquet", INDEX) as index,
    ):
        for found in _of_level(store, clips, level):
            writer.put(found.clip_id, found.values)
            count = len(found.values)
            columns[0].extend([found.clip_id] * count)
            columns[1].extend(range(count))
            columns[2].extend(found.start_seconds)
            columns[3].extend(found.end_seconds)
            num_rows += count
            if len(columns[0]) >= BLOCK_ROWS:
                index.write_table(_table(columns))
                columns = ([], [], [], [])
        index.write_table(_table(columns))
    return num_rows


def _table(columns: Sequence[list[Any]]) -> pa.Table:
    arrays = [pa.array(part, type=field.type) for part, field in zip(columns, INDEX, strict=True)]
    return pa.table(arrays, schema=INDEX)


def _of_level(store: FeatureStore, clips: pa.Table, level: Level) -> Iterator[_Features]:
    if level == "segment":
        table = store.segments.filter(pc.equal(store.segments["rule"], store.segment_rules[0]))
    else:
        table = clips
    for file, rows in _by_shard(store.path, table):
        if level == "segment":
            features = file["segments/features"][()]
            for clip_id, group in itertools.groupby(rows, key=lambda row: row["clip_id"]):
                own = list(group)
                yield _Features(
                    clip_id=clip_id,
                    values=features[[row["row"] for row in own]],
                    start_seconds=[row["start_seconds"] for row in own],
                    end_seconds=[row["end_seconds"] for row in own],
                )
            continue
        for row in rows:
            if level == "clip":
                values = file["clips/features"][row["row"] : row["row"] + 1]
                starts, ends = [0.0], [row["duration_seconds"]]
            else:
                place = slice(row["first_frame_row"], row["first_frame_row"] + row["num_frames"])
                values = file["frames/features"][place]
                starts, ends = list(file["frames/sample_seconds"][place]), [None] * len(values)
            yield _Features(
                clip_id=row["clip_id"], values=values, start_seconds=starts, end_seconds=ends
            )


def _write_texts(store: FeatureStore, out: Path, format: FormatName) -> None:
    with open_feature_writer(out, format, is_text=True) as writer:
        for file, rows in _by_shard(store.path, store.texts):
            features = file["texts/features"][()]
            for row in rows:
                writer.put(row["text_id"], features[row["row"] : row["row"] + 1])


def _write_questions(store: FeatureStore, out: Path, format: FormatName) -> None:
    """Under the names that `keys.question_keys` looks for."""
    with open_feature_writer(out, format, is_text=True) as writer:
        for shard, rows in _by_shard(store.path, store.questions):
            questions, options = shard["questions/features"][()], shard["options/features"][()]
            counts = option_counts(pa.Table.from_pylist(rows, schema=store.questions.schema))
            for row, count in zip(rows, counts, strict=True):
                name, first = row["question_id"], row["first_option_row"]
                writer.put(f"{name}_q", questions[row["row"] : row["row"] + 1])
                for k in range(count):
                    writer.put(f"{name}_a{k}", options[first + k : first + k + 1])


def _by_shard(cache: Path, table: pa.Table) -> Iterator[tuple[h5py.File, list[dict[str, Any]]]]:
    """Each shard that a table names, open and checked, and the rows that name it, in the table's
    order. Raises CacheError when it is damaged."""
    for shard in sorted(pc.unique(table["shard"]).to_pylist()):
        rows = table.filter(pc.equal(table["shard"], shard)).to_pylist()
        if not is_intact(cache, shard, rows[0]["shard_sha256"]):
            raise CacheError(
                f"the shard {shard_path(cache, shard)} is damaged; run the command that made the "
                "cache again to repair it"
            )
        with h5py.File(shard_path(cache, shard), "r") as file:
            yield file, rows
