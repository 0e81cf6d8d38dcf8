"""The tables of a dataset as Arrow schemas, and the value that holds a whole dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ..core.file_names import video_file

TEXT_KINDS = ("caption", "query", "paragraph", "subtitle")
QUESTION_KINDS = ("multiple_choice", "open_ended")

WHOLE_DATASET = "all"
"""Split of every clip of a dataset that has no splits."""

CLIPS = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        # Relative to the videos root; several clips may come from one video.
        pa.field("video_path", pa.string(), nullable=False),
        # The clip is [start, end) of the video; null: from its beginning, to its end.
        pa.field("start_seconds", pa.float64()),
        pa.field("end_seconds", pa.float64()),
        pa.field("split", pa.string(), nullable=False),
    ]
)

TEXTS = pa.schema(
    [
        pa.field("text_id", pa.string(), nullable=False),
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        # Seconds from the start of the clip; both or none. A text with a span is of segment level.
        pa.field("start_seconds", pa.float64()),
        pa.field("end_seconds", pa.float64()),
        pa.field("split", pa.string(), nullable=False),
    ]
)

QUESTIONS = pa.schema(
    [
        pa.field("question_id", pa.string(), nullable=False),
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        # Empty for multiple choice that asks which option describes the clip.
        pa.field("question", pa.string(), nullable=False),
        pa.field("options", pa.list_(pa.string())),
        # 0-based, of multiple choice; null where the answer is not known.
        pa.field("answer_index", pa.int64()),
        pa.field("answer", pa.string()),
        pa.field("type", pa.string()),
        pa.field("start_seconds", pa.float64()),
        pa.field("end_seconds", pa.float64()),
        pa.field("split", pa.string(), nullable=False),
    ]
)

TABLES = {"clips": CLIPS, "texts": TEXTS, "questions": QUESTIONS}


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitCounts:
    """Rows of one split."""

    clips: int
    """Clips."""
    texts: int
    """Queries among their texts; one with several moments counts once."""
    questions: int
    """Questions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """A dataset. Made by `reader.read_manifest`, whose checks its tables have passed."""

    name: str
    """Of the dataset, for reports."""
    videos_root: Path
    """Folder that the clips' video_path starts from; need not exist to read the tables."""
    clips: pa.Table
    """One row per clip, schema CLIPS."""
    texts: pa.Table
    """One row per text, schema TEXTS."""
    questions: pa.Table
    """One row per question, schema QUESTIONS."""
    official: Mapping[str, SplitCounts] = field(default_factory=dict)
    """Of a benchmark, by split: the sizes that its card gives, else those of the files that it was
    built of; videos or not."""
    segments: tuple[str, ...] = ()
    """Rules that cut its clips where an extraction is told none; none: the extraction's own."""

    def __post_init__(self) -> None:
        for name, schema in TABLES.items():
            found = getattr(self, name).schema
            assert found.equals(schema), f"{name}: expected {schema}, got {found}"

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits, sorted."""
        return tuple(sorted(pc.unique(self.clips["split"]).to_pylist()))

    def video_file(self, video_path: str) -> Path:
        """Where the video of a clip lies on this machine (it may be missing)."""
        return video_file(self.videos_root, video_path)


def empty_table(schema: pa.Schema) -> pa.Table:
    """A table of the schema without rows."""
    return schema.empty_table()
