"""Datasets without a manifest: a folder of videos, a list of them, a table of videos and texts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..core.errors import ManifestError
from ..core.faults import Faults, Place
from ..core.file_names import VIDEO_EXTENSIONS, is_image, name_text
from .read_table import TableRows, read_table
from .schema import CLIPS, TEXTS, WHOLE_DATASET
from .text_tables import decoded_text

ANNOTATIONS = pa.schema(
    [
        ("video_path", pa.string()),
        ("text", pa.string()),
        ("start_seconds", pa.float64()),
        ("end_seconds", pa.float64()),
        ("split", pa.string()),
    ]
)


def find_videos(folder: Path, *, image_folders: bool = False) -> TableRows:
    """A clip for every video below `folder`, sorted by path.

    image_folders: also one for every folder that has images, which are then its frames.
    Hidden files and folders are left out. Links to folders are followed, but not into a folder
    that holds them. Raises ManifestError without videos, or when a folder cannot be read.
    """
    paths = sorted(_walk(folder, "", parents=(), image_folders=image_folders))
    if not paths:
        raise ManifestError(
            f"no videos in {folder} (looked in all its folders for files ending in "
            f"{', '.join(sorted(VIDEO_EXTENSIONS))})"
        )
    return video_clips([name_text(path) for path in paths], file=folder.name)


def _walk(
    folder: Path, prefix: str, *, parents: tuple[tuple[int, int], ...], image_folders: bool
) -> list[str]:
    status = folder.stat()
    identity = (status.st_dev, status.st_ino)
    if identity in parents:
        return []
    paths = []
    has_images = False
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                below = f"{prefix}{entry.name}/"
                paths += _walk(
                    Path(entry.path),
                    below,
                    parents=(*parents, identity),
                    image_folders=image_folders,
                )
            elif Path(entry.name).suffix.lower() in VIDEO_EXTENSIONS:
                paths.append(prefix + entry.name)
            has_images = has_images or is_image(entry.name)
    if has_images and image_folders:
        paths.append(prefix.rstrip("/") or ".")
    return paths


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: left for extraction to report, if it poses as a video
        return False


def video_clips(
    paths: Sequence[str],
    *,
    file: str,
    ids: Sequence[str] | None = None,
    splits: Sequence[str | None] | None = None,
    lines: Sequence[int] | None = None,
) -> TableRows:
    """A clip for each whole video; without ids, its path is its id."""
    table = _table(
        CLIPS,
        clip_id=paths if ids is None else ids,
        video_path=paths,
        split=[WHOLE_DATASET] * len(paths) if splits is None else splits,
    )
    numbers = np.arange(1, len(paths) + 1) if lines is None else np.array(lines, dtype=np.int64)
    return TableRows(file=file, table=table, lines=numbers)


def listed_videos(path: Path, base: Path, faults: Faults) -> tuple[Path, TableRows]:
    """The videos root and the clips of a text file with one video path per line.

    Relative paths start from `base`. Empty lines and lines starting with # are skipped.
    """
    paths, lines = [], []
    for line, text in enumerate(decoded_text(path, faults).split("\n"), start=1):
        if text.strip() and not text.lstrip().startswith("#"):
            paths.append(text.strip())
            lines.append(line)
    root, below = _below_common_root(paths, base)
    return root, video_clips(below, ids=paths, file=path.name, lines=lines)


def annotated_videos(path: Path, base: Path, faults: Faults) -> tuple[Path, TableRows, TableRows]:
    """The videos root, clips and texts of a table of video_path[, text][, start_seconds,
    end_seconds][, split].

    With the column text: one clip per video path, one text "row-<n>" per row, whose span the times
    are. Without it: one clip per row, the times being its part of the video.
    """
    optional = {"text", "start_seconds", "end_seconds", "split"}
    read = read_table(path, ANNOTATIONS, faults, optional=optional)
    paths: list[str | None] = read.table["video_path"].to_pylist()
    splits: list[str | None] = read.table["split"].to_pylist()
    lines = read.lines.tolist()
    for row, video in enumerate(paths):
        if not video and "video_path" not in read.missing:
            faults.add(Place(path.name, lines[row], "video_path"), "a value is required")
    if "text" in read.missing:
        root, clips = _parts(read, base)
        return root, clips, TableRows.of(TEXTS.empty_table(), file=path.name)
    first_row: dict[str, int] = {}
    split_of: dict[str, str] = {}
    for row, video in enumerate(paths):
        if video:
            first_row.setdefault(video, row)
            # A row that leaves the split out takes that of the video's other rows.
            split = splits[row]
            if split is not None:
                split_of.setdefault(video, split)
    ids = list(first_row)
    root, below = _below_common_root(ids, base)
    clips = video_clips(
        below,
        ids=ids,
        splits=[split_of.get(video) if split_of else WHOLE_DATASET for video in ids],
        lines=[lines[first_row[video]] for video in ids],
        file=path.name,
    )
    texts = _table(
        TEXTS,
        text_id=[f"row-{row}" for row in range(1, len(paths) + 1)],
        clip_id=paths,
        kind=["caption"] * len(paths),
        **{name: read.table[name] for name in ANNOTATIONS.names[1:]},
    )
    # The column is video_path here: what is wrong with it has been said above.
    missing = ("clip_id", *read.missing)
    return root, clips, TableRows(file=path.name, table=texts, lines=read.lines, missing=missing)


def _parts(read: TableRows, base: Path) -> tuple[Path, TableRows]:
    """A clip for each row of a table without texts; its id is the path, and the part when it is
    one: "a.mp4#1.5-4"."""
    paths = read.table["video_path"].to_pylist()
    starts, ends = (read.table[name].to_pylist() for name in ("start_seconds", "end_seconds"))
    splits = read.table["split"].to_pylist()
    root, below = _below_common_root([path or "" for path in paths], base)
    ids = []
    for video, start, end in zip(paths, starts, ends, strict=True):
        times = ["" if time is None else f"{time:g}" for time in (start, end)]
        ids.append(f"{video}#{'-'.join(times)}" if any(times) else video)
    table = _table(
        CLIPS,
        clip_id=ids,
        video_path=below,
        start_seconds=read.table["start_seconds"],
        end_seconds=read.table["end_seconds"],
        split=splits if any(splits) else [WHOLE_DATASET] * len(ids),
    )
    return root, TableRows(file=read.file, table=table, lines=read.lines)


def _table(schema: pa.Schema, **columns: Any) -> pa.Table:
    """The given columns; the others are null."""
    num_rows = len(next(iter(columns.values())))
    arrays = [
        columns[field.name]
        if isinstance(columns.get(field.name), pa.ChunkedArray)
        else pa.array(columns.get(field.name, [None] * num_rows), field.type)
        for field in schema
    ]
    return pa.table(arrays, schema=pa.schema([f.with_nullable(True) for f in schema]))


def _below_common_root(paths: Sequence[str], base: Path) -> tuple[Path, list[str]]:
    """A folder and the paths relative to it: `base`, unless some path leads out of it."""
    start = os.path.abspath(base)
    whole = [os.path.normpath(os.path.join(start, path)) for path in paths]
    root = os.path.commonpath([start, *whole])
    return (base if root == start else Path(root)), [os.path.relpath(p, root) for p in whole]
