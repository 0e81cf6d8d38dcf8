"""Reads and writes datasets: a manifest folder, a folder of videos, a video, a list, a table."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..core.atomic_write import atomic_write
from ..core.errors import ManifestError, SettingsError
from ..core.faults import Faults, Place
from ..core.file_names import VIDEO_EXTENSIONS, name_text
from ..core.settings import load_settings, save_settings
from .checks import check_rows
from .read_table import TableRows, read_table
from .schema import TABLES, WHOLE_DATASET, Manifest, SplitCounts
from .videos import annotated_videos, find_videos, listed_videos, video_clips

CARD: Final = "dataset.yaml"
TABLE_ENDINGS: Final = (".jsonl", ".parquet")
OPTIONAL_COLUMNS: Final = {
    "clips": {"start_seconds", "end_seconds", "split"},
    "texts": {"start_seconds", "end_seconds", "split"},
    "questions": {
        *("options", "answer_index", "answer", "type", "start_seconds", "end_seconds", "split")
    },
}


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetCard:
    """dataset.yaml of a manifest folder."""

    name: str | None = None
    """Name of the dataset; without one, that of the folder."""
    videos_root: Path | None = None
    """Where the videos are, relative to the manifest folder; without one, that folder."""
    description: str = ""
    """A few words for the reader."""
    official: Mapping[str, SplitCounts] = field(default_factory=dict)
    """Of a benchmark, by split: what its official files have, videos or not."""
    segments: tuple[str, ...] = ()
    """Rules that cut its clips where an extraction is told none, such as [uniform:16, spans]."""


def read_manifest(
    path: str | Path, *, videos_root: str | Path | None = None, image_folders: bool = False
) -> Manifest:
    """The dataset at `path`, read strictly: all its faults are reported in one ManifestError.

    path: a manifest folder (dataset.yaml and clips, texts, questions as .parquet or .jsonl), a
    folder of videos (clip_id = path below it), one video, a .txt list of videos, or a .csv or
    .jsonl of video_path[, text][, start_seconds, end_seconds][, split] (without text: the times
    are parts of the videos, each a clip).
    videos_root: where the video paths of a manifest, list or table start from, instead of the
    manifest's own root or the folder of the list. Whether the videos exist is not looked at,
    but for a folder or file of videos.
    image_folders: in a folder of videos, a folder that has images is a clip, too.
    """
    path = Path(path)
    videos_root = None if videos_root is None else Path(videos_root)
    if videos_root is not None and not videos_root.is_dir():
        raise ManifestError(f"the folder of the videos does not exist: {videos_root}")
    try:
        if path.is_dir():
            if _table_files(path) or (path / CARD).exists():
                return _read_folder(path, videos_root=videos_root)
            return _checked_videos(
                find_videos(path, image_folders=image_folders),
                path,
                root=path,
                videos_root=videos_root,
            )
        if not path.exists():
            raise ManifestError(f"no such file or folder: {path}")
    except OSError as error:
        raise ManifestError(f"cannot read {error.filename or path}: {error.strerror}") from error
    suffix = path.suffix.lower()
    base = path.parent if videos_root is None else videos_root
    if suffix in VIDEO_EXTENSIONS:
        rows = video_clips([name_text(path.name)], file=path.name)
        return _checked_videos(rows, path, root=path.parent, videos_root=videos_root)
    faults = Faults()
    if suffix == ".txt":
        root, clips = listed_videos(path, base, faults)
        texts = TableRows.of(TABLES["texts"].empty_table(), file=path.name)
    elif suffix in (".csv", ".jsonl"):
        root, clips, texts = annotated_videos(path, base, faults)
    else:
        endings = ", ".join(sorted(VIDEO_EXTENSIONS))
        raise ManifestError(
            f"{path}: expected a folder, a list (.txt), a table (.csv, .jsonl) or a video "
            f"({endings}); got a file ending in {suffix or 'nothing'}"
        )
    questions = TableRows.of(TABLES["questions"].empty_table(), file=path.name)
    if not clips.table.num_rows and not len(faults):
        faults.add(Place(path.name), "no videos in it")
    return _checked(
        (clips, texts, questions), faults, source=path, name=path.stem, videos_root=root
    )


def write_manifest(manifest: Manifest, folder: str | Path) -> None:
    """Write dataset.yaml and the three Parquet tables into `folder`, made if need be.

    Each file appears whole or not at all, dataset.yaml last; the same manifest gives the same
    bytes. videos_root is written relative to the folder. Raises ManifestError when the rows
    break a rule or the folder already has tables in JSON Lines.
    """
    folder = Path(folder)
    tables = {name: getattr(manifest, name) for name in TABLES}
    rows = [TableRows.of(table, file=f"{name}.parquet") for name, table in tables.items()]
    faults = Faults()
    check_rows(*rows, faults=faults)
    faults.raise_if_any(folder)
    folder.mkdir(parents=True, exist_ok=True)
    others = [file.name for file in _table_files(folder) if file.suffix != ".parquet"]
    if others:
        raise ManifestError(f"{folder} already has {', '.join(others)}; choose another folder")
    for name, table in tables.items():
        atomic_write(folder / f"{name}.parquet", partial(_write_table, table))
    root = Path(os.path.relpath(manifest.videos_root.resolve(), folder.resolve()))
    card = DatasetCard(
        name=manifest.name,
        videos_root=root,
        official=manifest.official,
        segments=manifest.segments,
    )
    save_settings(card, folder / CARD)


def _write_table(table: pa.Table, path: Path) -> None:
    with path.open("wb") as file:  # pyarrow takes a path with a colon for an address
        pq.write_table(table, file, compression="zstd")


def combine(manifests: Sequence[Manifest]) -> Manifest:
    """One dataset of several; their videos are found below the common parent of their roots.

    Clip ids must differ (ManifestError names both datasets). Text and question ids that occur in
    several datasets get the dataset's position in front: "2:row-1".
    """
    if not manifests:
        raise ManifestError("no videos given")
    if len(manifests) == 1:
        return manifests[0]
    owners: dict[str, Manifest] = {}
    for manifest in manifests:
        for clip_id in manifest.clips["clip_id"].to_pylist():
            other = owners.setdefault(clip_id, manifest)
            if other is not manifest:
                raise ManifestError(
                    f"the clip {clip_id!r} is in both {other.name} ({other.videos_root}) and "
                    f"{manifest.name} ({manifest.videos_root}); give the folder above them instead"
                )
    roots = [Path(os.path.abspath(manifest.videos_root)) for manifest in manifests]
    common = Path(os.path.commonpath(roots))
    clips = []
    for manifest, root in zip(manifests, roots, strict=True):
        prefix = "" if root == common else f"{root.relative_to(common).as_posix()}/"
        paths = pc.binary_join_element_wise(prefix, manifest.clips["video_path"], "")
        clips.append(_replaced(manifest.clips, "video_path", paths))
    return Manifest(
        name="+".join(manifest.name for manifest in manifests),
        videos_root=common,
        clips=pa.concat_tables(clips),
        texts=_joined([manifest.texts for manifest in manifests], "text_id"),
        questions=_joined([manifest.questions for manifest in manifests], "question_id"),
    )


def _joined(tables: Sequence[pa.Table], id_column: str) -> pa.Table:
    together = pa.concat_tables(tables)
    if pc.count_distinct(together[id_column]).as_py() == together.num_rows:
        return together
    renamed = []
    for position, table in enumerate(tables, start=1):
        ids = pc.binary_join_element_wise(f"{position}", table[id_column], ":")
        renamed.append(_replaced(table, id_column, ids))
    return pa.concat_tables(renamed)


def _replaced(table: pa.Table, column: str, values: pa.ChunkedArray) -> pa.Table:
    index = table.schema.get_field_index(column)
    return table.set_column(index, table.schema.field(index), values)


def _table_files(folder: Path) -> list[Path]:
    """The files of a folder that hold, or claim to hold, a table of a manifest."""
    candidates = (folder / f"{name}{ending}" for name in TABLES for ending in TABLE_ENDINGS)
    return sorted(file for file in candidates if file.exists())


def _read_folder(folder: Path, *, videos_root: Path | None) -> Manifest:
    faults = Faults()
    card = DatasetCard()
    if (folder / CARD).exists():
        try:
            card = load_settings(DatasetCard, folder / CARD)
        except SettingsError as error:
            faults.add(Place(CARD), " ".join(str(error).split()))
    for file in sorted(folder.iterdir()):
        if (
            file.suffix in TABLE_ENDINGS
            and file.stem not in TABLES
            and not file.name.startswith(".")
        ):
            faults.add(Place(file.name), f"unknown table; there are: {', '.join(TABLES)}")
    rows = []
    for name, schema in TABLES.items():
        files = [file for file in _table_files(folder) if file.stem == name]
        if len(files) == 2:
            faults.add(Place(files[0].name), f"the table is also in {files[1].name}; keep one")
        if files:
            rows.append(read_table(files[0], schema, faults, optional=OPTIONAL_COLUMNS[name]))
        else:
            absent = schema.empty_table()
            rows.append(TableRows.of(absent, file=f"{name}.parquet", missing=tuple(schema.names)))
    clips, texts, questions = rows
    if not clips.table.num_rows and not len(faults):
        faults.add(Place(clips.file), "a manifest needs at least one clip")
    root = folder
    if card.videos_root is not None:
        root = Path(os.path.normpath(folder.resolve() / card.videos_root))
    return _checked(
        (_with_default_split(clips), texts, questions),
        faults,
        source=folder,
        name=card.name or folder.resolve().name,
        videos_root=root if videos_root is None else videos_root,
        official=card.official,
        segments=card.segments,
    )


def _with_default_split(clips: TableRows) -> TableRows:
    """The clips, all in the split "all" when none of them has a split."""
    if clips.table["split"].null_count < clips.table.num_rows:
        return clips
    splits = pa.chunked_array([pa.array([WHOLE_DATASET] * clips.table.num_rows, pa.string())])
    table = _replaced(clips.table, "split", splits)
    return TableRows(file=clips.file, table=table, lines=clips.lines, missing=clips.missing)


def _checked_videos(
    clips: TableRows, source: Path, *, root: Path, videos_root: Path | None
) -> Manifest:
    if videos_root is not None:
        raise ManifestError(
            f"{source} holds the videos itself; a folder of videos goes with a manifest or list"
        )
    empty = [TableRows.of(TABLES[name].empty_table(), file=source.name) for name in TABLES]
    name = source.resolve().name if source.is_dir() else source.stem
    rows = (clips, empty[1], empty[2])
    return _checked(rows, Faults(), source=source, name=name, videos_root=root)


def _checked(
    rows: tuple[TableRows, TableRows, TableRows],
    faults: Faults,
    *,
    source: Path,
    name: str,
    videos_root: Path,
    official: Mapping[str, SplitCounts] = MappingProxyType({}),
    segments: tuple[str, ...] = (),
) -> Manifest:
    tables = check_rows(*rows, faults=faults)
    faults.raise_if_any(source)
    clips, texts, questions = (
        pa.table(table.columns, schema=schema)
        for table, schema in zip(tables, TABLES.values(), strict=True)
    )
    return Manifest(
        name=name,
        videos_root=videos_root,
        clips=clips,
        texts=texts,
        questions=questions,
        official=official,
        segments=segments,
    )
