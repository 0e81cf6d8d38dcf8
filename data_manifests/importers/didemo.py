"""DiDeMo: descriptions of five-second chunks, each placed by several people."""

from __future__ import annotations

import re
from collections import Counter
from fractions import Fraction

from ..annotations.dataset_rows import DatasetRows
from ..annotations.official_files import OfficialFiles
from ..annotations.row_log import Row
from ..cards.card import Card
from ..core.faults import excerpt

CHUNK_SECONDS = 5.0
UNLISTED = "descriptions of videos that the list of the split does not have"
NOT_DESCRIBED = "listed videos without descriptions"
USER = re.compile(r"^[^_]*@N\d\d_")
"""Flickr's name of the user, before that of the video."""

Chunks = tuple[int, int]


def import_didemo(card: Card, files: OfficialFiles, rows: DatasetRows) -> None:
    """A clip for each video; a moment is what most annotators chose.

    With `queries: paragraph` the descriptions of a video are joined, in file order. Where a list of
    the videos of a split is there, the others are left out.
    """
    is_paragraph = card.queries == "paragraph"
    for split in files.splits:
        lines = list(files.lines(f"{split}_list")) if files.has(f"{split}_list") else None
        listed = None if lines is None else {_bare(row.value) for row in lines}
        described: set[str] = set()

        def take(
            row: Row,
            split: str = split,
            listed: set[str] | None = listed,
            described: set[str] = described,
        ) -> None:
            clip_id, text = row.name("video"), row.words("description")
            described.add(_bare(clip_id))
            if listed is not None and _bare(clip_id) not in listed:
                row.leave_out(UNLISTED)
            first, last = chosen_chunks([_chunks(row, item) for item in row.items("times")], row)
            span = first * CHUNK_SECONDS, (last + 1) * CHUNK_SECONDS
            rows.clip(row, clip_id, split=split, video_names=video_names(clip_id))
            if is_paragraph:
                rows.sentence(row, clip_id, text)
            rows.text(
                row,
                clip_id,
                text,
                kind="caption" if is_paragraph else "query",
                text_id=row.name("annotation_id"),
                span=span,
            )

        def take_listed(row: Row, described: set[str] = described) -> None:
            if _bare(row.value) not in described:
                row.leave_out(NOT_DESCRIBED, row.value)
            row.written()

        rows.each(files.items(split), take)
        rows.each(lines or (), take_listed)


def video_names(name: str) -> tuple[str, ...]:
    """12@N00_34_ab.mov: as it is called, without the user, and both without the extension."""
    names = (name, USER.sub("", name))
    return tuple(dict.fromkeys((*names, *map(_bare, names))))


def _bare(name: str) -> str:
    """Without the extension, which lists may leave out."""
    return re.sub(r"\.\w{2,4}$", "", name.strip())


def chosen_chunks(times: list[Chunks], row: Row) -> Chunks:
    """First and last chunk that most annotators chose.

    Of several the one that overlaps all choices most, then the earliest.
    """
    if not times:
        row.refuse("expected the choice of one annotator at least", key="times")
    votes = Counter(times)
    max_votes = max(votes.values())
    tied = sorted(chunks for chunks, count in votes.items() if count == max_votes)
    return max(tied, key=lambda choice: sum(_overlap(choice, other) for other in times))


def _chunks(row: Row, value: object) -> Chunks:
    if not isinstance(value, list) or len(value) != 2:
        row.refuse(f"expected pairs of chunks, got {excerpt(value)}", key="times")
    first, last = (row.as_number(item, "times") for item in value)
    if not (first.is_integer() and last.is_integer() and 0 <= first <= last <= 100):
        row.refuse(
            f"expected first and last chunk, counted from 0, got {excerpt(value)}", key="times"
        )
    return int(first), int(last)


def _overlap(one: Chunks, other: Chunks) -> Fraction:
    """Intersection over union, chunks inclusive; exact, since sums of them are compared."""
    shared = min(one[1], other[1]) - max(one[0], other[0]) + 1
    union = max(one[1], other[1]) - min(one[0], other[0]) + 1
    return Fraction(max(shared, 0), union)
