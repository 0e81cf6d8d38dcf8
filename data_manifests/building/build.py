"""Builds a dataset: a card and its official files in, the tables of a manifest out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from ..annotations.dataset_rows import DatasetRows
from ..annotations.official_files import OfficialFiles
from ..annotations.row_log import Counted, RowLog
from ..cards.card import Card, Queries, SplitSize
from ..cards.scoring_rules import SPANS
from ..core.atomic_write import atomic_write
from ..core.errors import ManifestError
from ..tables.reader import write_manifest
from ..tables.schema import Manifest, SplitCounts
from .importers import find_importer
from .video_matching import default_path, match_videos

REPORT_FILE: Final = "build_report.json"
MISSING_FILE: Final = "missing_videos.txt"

QUERY_KINDS: Final[Mapping[Queries, frozenset[str]]] = {
    "each_caption": frozenset({"caption", "query"}),
    "given_caption": frozenset({"caption", "query"}),
    "paragraph": frozenset({"paragraph"}),
    "each_sentence": frozenset({"query"}),
    "questions": frozenset(),
}
"""Kinds of texts that a card's sizes count."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileRows:
    """One official file: rows read = written + left_out."""

    read: int
    """Rows of the file."""
    written: int
    """Rows that are in the tables."""
    left_out: int
    """Rows that are not, for the reasons of the report."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildReport:
    """What a build did with every row of the official files."""

    card: str
    """Name of the card."""
    out: str
    """The manifest folder."""
    splits: Mapping[str, SplitCounts]
    """Splits that were built: what their official files have."""
    clips_found: Mapping[str, int] | None
    """Clips of each split whose video was found; null where no folder was looked through."""
    absent_splits: Mapping[str, tuple[str, ...]]
    """Splits of the card that were not, with the files that are missing."""
    files: Mapping[str, FileRows]
    """By file name."""
    mended: Mapping[str, Counted]
    """What was mended, how often, and the first places."""
    left_out: Mapping[str, Counted]
    """Why rows were left out, how often, and the first places."""
    other_sizes: tuple[str, ...]
    """Where sizes differ from the card's (accepted with partial)."""

    def to_json(self) -> dict[str, Any]:
        """The report as JSON takes it."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For a person."""
        lines = []
        for split, counts in self.splits.items():
            parts = [f"{counts.clips:,} clips"]
            parts += [f"{counts.texts:,} queries"] if counts.texts else []
            parts += [f"{counts.questions:,} questions"] if counts.questions else []
            if self.clips_found is not None:
                parts.append(f"videos of {self.clips_found[split]:,} clips found")
            lines.append(f"{split}: {', '.join(parts)}")
        lines += [
            f"{split}: not built, without {', '.join(names)}"
            for split, names in self.absent_splits.items()
        ]
        for title, notes in (("mended", self.mended), ("left out", self.left_out)):
            lines += [
                f"{title}: {noted.count:,} {what} ({noted.examples[0]}{' ...' * (noted.count > 1)})"
                for what, noted in notes.items()
            ]
        lines += [f"other sizes: {line}" for line in self.other_sizes]
        return [*lines, f"{self.card} -> {self.out}"]


def build_dataset(
    card: Card, *, annotations: Path, videos: Path | None, out: Path, partial: bool = False
) -> BuildReport:
    """Write the manifest of a card's dataset into a folder, with a report of every row.

    annotations: folder of the official files.   videos: folder of the videos; clips without one
    are left out and listed in missing_videos.txt. None: all clips are written, and their videos are
    expected beside the manifest, as NAME.mp4.   partial: sizes other than the card's are accepted.
    Raises ManifestError with all that is wrong, and then writes nothing.
    """
    row_log = RowLog()
    rows, files = read_official_files(card, annotations, row_log)
    counted = rows.counts(QUERY_KINDS[card.queries])
    counts = {split: counted[split] for split in card.splits if split in counted}
    other_sizes = _other_sizes(card, files.splits, counts)
    if other_sizes and not partial:
        raise ManifestError(
            "\n  ".join(
                [f"{annotations} is not all of {card.name} (--partial builds it):", *other_sizes]
            )
        )
    names = {clip_id: clip.video_names for clip_id, clip in rows.clips.items()}
    splits = {clip_id: clip.split for clip_id, clip in rows.clips.items()}
    if videos is None:
        paths = {clip_id: default_path(video_names) for clip_id, video_names in names.items()}
    else:
        paths = match_videos(videos, names)
        rows.drop_clips(set(names) - set(paths))
    if not paths:
        first = next(iter(names.values()))[0]
        raise ManifestError(f"no video of {card.name} below {videos}, such as {first}.mp4")
    clips, texts, questions = rows.tables(paths)
    root = out if videos is None else videos
    manifest = Manifest(
        name=card.name,
        videos_root=root,
        clips=clips,
        texts=texts,
        questions=questions,
        official={split: _official(card.splits[split], built) for split, built in counts.items()},
        segments=() if card.moments is None else (card.moments.segments, SPANS),
    )
    write_manifest(manifest, out)
    built_splits = [splits[clip_id] for clip_id in paths]
    report = BuildReport(
        card=card.name,
        out=str(out),
        splits=counts,
        clips_found=None
        if videos is None
        else {split: built_splits.count(split) for split in counts},
        absent_splits=files.absent,
        files=_file_rows(row_log),
        mended=row_log.mended,
        left_out=row_log.left_out,
        other_sizes=tuple(other_sizes),
    )
    missing = [f"{splits[name]}\t{name}\t{names[name][0]}\n" for name in names if name not in paths]
    if videos is not None:
        _write(out / MISSING_FILE, "".join(missing))
    _write(out / REPORT_FILE, json.dumps(report.to_json(), indent=2) + "\n")
    return report


def read_official_files(
    card: Card, annotations: Path, row_log: RowLog
) -> tuple[DatasetRows, OfficialFiles]:
    """The rows of a card's official files; ManifestError with every fault of theirs."""
    files = OfficialFiles(card, annotations, row_log)
    rows = DatasetRows(row_log)
    find_importer(card.importer)(card, files, rows)
    rows.paragraphs()
    row_log.faults.raise_if_any(annotations)
    row_log.balance()
    if not rows.clips:
        raise ManifestError(f"{annotations}: the official files of {card.name} name no clips")
    return rows, files


def _other_sizes(
    card: Card, splits: tuple[str, ...], counts: Mapping[str, SplitCounts]
) -> list[str]:
    """A line for each size of a built split that is not the card's."""
    lines = []
    for split in splits:
        size = card.splits[split]
        built = counts.get(split, SplitCounts(clips=0, texts=0, questions=0))
        for what, wanted, count in (
            ("clips", size.clips, built.clips),
            ("queries", size.texts, built.texts),
            ("questions", size.questions, built.questions),
        ):
            if wanted is not None and wanted != count:
                lines.append(f"{split}: {count:,} {what}, expected {wanted:,}")
    return lines


def _official(size: SplitSize, built: SplitCounts) -> SplitCounts:
    """The sizes that the card gives, since the files may be a part; else those of the files."""
    return SplitCounts(
        clips=built.clips if size.clips is None else size.clips,
        texts=built.texts if size.texts is None else size.texts,
        questions=built.questions if size.questions is None else size.questions,
    )


def _file_rows(row_log: RowLog) -> dict[str, FileRows]:
    return {
        file: FileRows(
            read=count,
            written=row_log.outcomes["written"][file],
            left_out=row_log.outcomes["left_out"][file],
        )
        for file, count in row_log.read.items()
    }


def _write(path: Path, content: str) -> None:
    atomic_write(path, content)
