"""A manifest as the annotation files that other tools read: CLIP4Clip's and QVHighlights'."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

from ..core.atomic_write import atomic_write
from ..core.errors import ManifestError
from ..tables.schema import Manifest

PeerName = Literal["clip4clip", "qvhighlights"]
Row = Mapping[str, Any]

HIGHLIGHT_SECONDS: Final = 2
"""Length of the clips that QVHighlights numbers in relevant_clip_ids."""
MAX_NAMES: Final = 5
"""Names in a message."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportReport:
    """What was written, and what the format has no place for."""

    out: str
    files: dict[str, int]
    """File name to its number of rows (of a JSON: sentences)."""
    left_out: list[str]
    """In words, with counts."""

    def lines(self) -> list[str]:
        """For a person."""
        written = ", ".join(f"{name} ({count})" for name, count in self.files.items())
        return [*(f"left out: {line}" for line in self.left_out), f"{written} -> {self.out}"]


def export_manifest(manifest: Manifest, out: Path, *, peer: PeerName) -> ExportReport:
    """Write the files of a peer into a folder; what they cannot express is reported.

    clip4clip: MSRVTT_data.json and a CSV for each split, as its MSR-VTT loaders read them.
    qvhighlights: highlight_SPLIT_release.jsonl for each split, as Moment-DETR and lighthouse do.
    Raises ManifestError, before anything is written, where the peer would read something else
    than the manifest says.
    """
    clips = {row["clip_id"]: row for row in manifest.clips.to_pylist()}
    texts = manifest.texts.to_pylist()
    left_out = []
    if subtitles := sum(row["kind"] == "subtitle" for row in texts):
        left_out.append(f"{subtitles} subtitles")
    texts = [row for row in texts if row["kind"] != "subtitle"]
    write = _clip4clip if peer == "clip4clip" else _qvhighlights
    contents = write(clips, texts, left_out)
    if manifest.questions.num_rows:
        left_out.append(f"{manifest.questions.num_rows} questions")
    out.mkdir(parents=True, exist_ok=True)
    for name, (content, _) in contents.items():
        atomic_write(out / name, content)
    files = {name: count for name, (_, count) in contents.items()}
    return ExportReport(out=str(out), files=files, left_out=left_out)


_Files = dict[str, tuple[str, int]]
"""File name to its content and the number of its rows."""


def _clip4clip(clips: Mapping[str, Row], texts: Sequence[Row], left_out: list[str]) -> _Files:
    """Read off dataloader_msrvtt_retrieval.py of CLIP4Clip: training takes the column video_id of
    a CSV and the sentences of MSRVTT_data.json; testing takes video_id and sentence of a CSV, and
    row i of the sentences belongs to row i of the videos. Videos are VIDEO_ID.mp4 (or .webm ...)
    in one folder, seen whole."""
    names = {clip_id: PurePosixPath(row["video_path"]).stem for clip_id, row in clips.items()}
    _raise_for(
        [i for i, row in clips.items() if row["start_seconds"] or row["end_seconds"] is not None],
        "clips are parts of videos, and CLIP4Clip reads videos whole: cut them into files first",
    )
    counts = Counter(names.values())
    _raise_for(
        [clip_id for clip_id, name in names.items() if counts[name] > 1],
        "clips have a video of the same name as another clip's; CLIP4Clip knows videos by name",
    )
    elsewhere = sum(
        row["video_path"] not in (f"{names[clip_id]}.mp4", f"{names[clip_id]}.webm")
        for clip_id, row in clips.items()
    )
    if elsewhere:
        left_out.append(f"where {elsewhere} videos lie: CLIP4Clip wants NAME.mp4 in one folder")
    captions = [row for row in texts if row["start_seconds"] is None]
    if len(captions) < len(texts):
        left_out.append(f"{len(texts) - len(captions)} texts of spans")
    videos = [
        # The loader takes clips of one url for parts of one video.
        {"video_id": names[clip_id], "url": names[clip_id], "split": row["split"], "id": number}
        for number, (clip_id, row) in enumerate(clips.items())
    ]
    sentences = [
        {"caption": row["text"], "video_id": names[row["clip_id"]], "sen_id": number}
        for number, row in enumerate(captions)
    ]
    data = json.dumps({"videos": videos, "sentences": sentences}, ensure_ascii=False)
    files = {"MSRVTT_data.json": (data, len(sentences))}
    captions_of: dict[str, list[str]] = {clip_id: [] for clip_id in clips}
    for row in captions:
        captions_of[row["clip_id"]].append(row["text"])
    for split in sorted({row["split"] for row in clips.values()}):
        members = [clip_id for clip_id, row in clips.items() if row["split"] == split]
        silent = sum(not captions_of[clip_id] for clip_id in members)
        if silent:
            left_out.append(f"{silent} clips of {split} without a caption")
        members = [clip_id for clip_id in members if captions_of[clip_id]]
        if all(len(captions_of[clip_id]) == 1 for clip_id in members) and split != "train":
            header = ["key", "vid_key", "video_id", "sentence"]
            rows = [
                [f"ret{number}", f"msr{number}", names[clip_id], captions_of[clip_id][0]]
                for number, clip_id in enumerate(members)
            ]
        else:
            header, rows = ["video_id"], [[names[clip_id]] for clip_id in members]
            if split != "train":
                left_out.append(
                    f"the sentences of {_file_part(split)}.csv: its clips have several, and "
                    "CLIP4Clip's test table pairs one with each (all are in MSRVTT_data.json)"
                )
        if members:
            files[f"{_file_part(split)}.csv"] = _csv([header, *rows]), len(rows)
    return files


def _qvhighlights(clips: Mapping[str, Row], texts: Sequence[Row], left_out: list[str]) -> _Files:
    """One line per query, the spans of one text of one clip together; a query whose moment is not
    known has no windows, as in the official test file. No saliency scores: a manifest has none,
    and nothing is made up."""
    queries: dict[tuple[str, str], list[Row]] = {}
    without = 0
    for row in texts:
        if row["start_seconds"] is None and row["kind"] != "query":
            without += 1
        else:
            queries.setdefault((row["clip_id"], row["text"]), []).append(row)
    if without:
        left_out.append(f"{without} texts of whole clips, which have no window")
    left_out.append("saliency_scores, which a manifest does not have")
    queried = {clip_id: clips[clip_id] for clip_id, _ in queries}
    _raise_for(
        [clip_id for clip_id, row in queried.items() if row["end_seconds"] is None],
        "clips have no end_seconds, and QVHighlights needs the duration of each: write "
        "start_seconds 0 and end_seconds into the table clips",
    )
    numbers = _query_numbers(list(queries.values()))
    lines: dict[str, list[str]] = {}
    for number, ((clip_id, text), rows) in zip(numbers, queries.items(), strict=True):
        clip = clips[clip_id]
        spans = {(row["start_seconds"], row["end_seconds"]) for row in rows}
        windows = sorted(spans - {(None, None)})
        query = {
            "qid": number,
            "query": text,
            "duration": _number(clip["end_seconds"] - (clip["start_seconds"] or 0.0)),
            "vid": clip_id,
        }
        if windows:
            query["relevant_windows"] = [[_number(start), _number(end)] for start, end in windows]
            query["relevant_clip_ids"] = _clip_numbers(windows)
        lines.setdefault(rows[0]["split"], []).append(json.dumps(query, ensure_ascii=False))
    return {
        f"highlight_{_file_part(split)}_release.jsonl": (
            "\n".join(split_lines) + "\n",
            len(split_lines),
        )
        for split, split_lines in sorted(lines.items())
    }


def _clip_numbers(windows: Sequence[tuple[float, float]]) -> list[int]:
    """The 2-second clips that a window overlaps: [10, 20) -> 5 to 9."""
    numbers: set[int] = set()
    for start, end in windows:
        first = math.floor(start / HIGHLIGHT_SECONDS)
        numbers |= set(range(first, max(first + 1, math.ceil(end / HIGHLIGHT_SECONDS))))
    return sorted(numbers)


def _query_numbers(queries: Sequence[Sequence[Row]]) -> list[int]:
    """The number that a query's text id is ("7", "qid7", "7/0" of several windows), where every one
    is such a number and all differ; else their positions."""
    matches = [re.fullmatch(r"(?:qid)?(\d{1,15})(?:/\d+)?", rows[0]["text_id"]) for rows in queries]
    numbers = [int(match[1]) for match in matches if match is not None]
    if len(set(numbers)) == len(queries):
        return numbers
    return list(range(len(queries)))


def _number(seconds: float) -> int | float:
    """2 rather than 2.0, as QVHighlights has it."""
    return int(seconds) if seconds == int(seconds) else seconds


def _csv(rows: Sequence[Sequence[str]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def _file_part(split: str) -> str:
    """Raises ManifestError for a split that cannot be part of a file name."""
    if not re.fullmatch(r"[\w.-]{1,100}", split) or split.startswith("."):
        raise ManifestError(f"the split {split!r} cannot be part of a file name; rename it")
    return split


def _raise_for(clip_ids: Sequence[str], why: str) -> None:
    if clip_ids:
        more = ", ..." if len(clip_ids) > MAX_NAMES else ""
        names = ", ".join(map(repr, clip_ids[:MAX_NAMES]))
        raise ManifestError(f"{len(clip_ids)} {why} ({names}{more})")
