"""YouCook2: steps of cooking videos, each a clip with its sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from ..annotations.dataset_rows import DatasetRows
from ..annotations.official_files import OfficialFiles
from ..annotations.row_log import Row
from ..cards.card import Card
from ..core.faults import excerpt

OTHER_SUBSETS = "of the official validation subset, whose clips another file gives"


def import_youcook2(card: Card, files: OfficialFiles, rows: DatasetRows) -> None:
    """Clips are spans of the videos, VIDEO_K: the K-th of its video in the file, from 0.

    The validation clips are those of MIL-NCE's table, the training clips those of the official
    annotations.
    """
    next_clip: Counter[str] = Counter()

    def add(row: Row, video_id: str, start: float, end: float, *, text: str, split: str) -> None:
        clip_id = f"{video_id}_{next_clip[video_id]}"
        next_clip[video_id] += 1
        rows.clip(
            row,
            clip_id,
            split=split,
            video_names=(video_id,),
            start_seconds=start,
            end_seconds=end,
        )
        rows.text(row, clip_id, text, kind="caption", text_id=clip_id)

    def take_validation(row: Row) -> None:
        span = row.number("start"), row.number("end")
        add(row, row.name("video_id"), *span, text=row.words("text"), split="val")

    def take_training(row: Row) -> None:
        video_id, video, step = row.value
        if not isinstance(video, dict) or not isinstance(step, dict):
            row.refuse(f"expected annotations of the video {video_id!r}, got {excerpt(step)}")
        if video.get("subset") != "training":
            row.leave_out(OTHER_SUBSETS)
        row.value = step
        span = row.pair(row.get("segment"), "segment")
        add(row, video_id, *span, text=row.words("sentence"), split="train")

    if "val" in files.splits:
        columns = ("end", "start", "text", "video_id")
        rows.each(files.records("val", columns), take_validation)
    if "train" in files.splits:
        steps = enumerate(_steps(dict(files.entries("train")).get("database")), start=1)
        rows.each(files.rows("train", steps), take_training)


def _steps(database: Any) -> Iterator[tuple[str, Any, Any]]:
    """Video id, its entry, and one of its steps; an entry without a list of steps gives one."""
    videos = database if isinstance(database, dict) else {"": database}
    for video_id, video in videos.items():
        steps = video.get("annotations") if isinstance(video, dict) else None
        for step in steps if isinstance(steps, list) else [steps]:
            yield video_id, video, step
