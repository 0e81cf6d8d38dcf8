"""MSVD: lists of clips; captions as a pickle of words (CE, CLIP4Clip) or as JSON (X-Pool)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..annotations.dataset_rows import DatasetRows
from ..annotations.official_files import OfficialFiles
from ..annotations.row_log import Row
from ..cards.card import Card
from ..core.faults import excerpt

OTHER_CLIPS = "captions of clips in none of the splits"


def import_msvd(card: Card, files: OfficialFiles, rows: DatasetRows) -> None:
    """Clips by the lists; every caption of a clip that is in one of them."""
    for split in files.splits:

        def take_name(row: Row, split: str = split) -> None:
            rows.clip(row, row.value.strip(), split=split)

        rows.each(files.lines(split), take_name)

    def take_caption(row: Row) -> None:
        clip_id, caption = row.value
        if clip_id not in rows.clips:
            row.leave_out(OTHER_CLIPS)
        if isinstance(caption, list) and all(isinstance(word, str) for word in caption):
            caption = " ".join(caption)
        rows.text(row, clip_id, row.sentence(caption, clip_id), kind="caption")

    is_pickle = files.paths["captions"].suffix == ".pkl"
    content = files.pickled("captions") if is_pickle else files.json("captions")
    if not isinstance(content, dict):
        problem = f"expected captions of each clip, got {excerpt(content)}"
        rows.problem(files.paths["captions"].name, problem)
        return
    rows.each(files.rows("captions", enumerate(_captions(content), start=1)), take_caption)


def _captions(content: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Clip and caption; what should be a list of captions and is none counts as one."""
    for clip_id, captions in content.items():
        for caption in captions if isinstance(captions, list) else [captions]:
            yield str(clip_id), caption
