"""The tables of a dataset, grown row by row from official files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from ..core.faults import excerpt
from ..tables.schema import CLIPS, QUESTIONS, TEXTS, SplitCounts
from .row_log import Row, RowLog

BEYOND: Final = "moments beyond the clip's end cut there"
BEFORE: Final = "moments before the clip's start begin at 0"
EMPTY: Final = "moments that end where they start, or before"
NO_MOMENT: Final = "queries whose moment has no length, kept without it"
SHARED_ID: Final = "ids that another split has, too, became ID@SPLIT"


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """A clip, and what its video may be called."""

    split: str
    """Its split."""
    video_names: tuple[str, ...]
    """Names that the video's file may have, best first; with or without an extension."""
    start_seconds: float | None
    """In the video; null: from its beginning."""
    end_seconds: float | None
    """In the video; null: to its end."""
    duration_seconds: float | None
    """As the annotations have it; null: not told."""
    place: str
    """Where it was first named."""


class DatasetRows:
    """Clips, texts and questions so far; each is given with the row that it comes from."""

    def __init__(self, row_log: RowLog) -> None:
        self.row_log = row_log
        """Counts every row."""
        self.clips: dict[str, Clip] = {}
        """By clip id, in the order of the files."""
        self.texts: dict[str, tuple[Any, ...]] = {}
        """By text id: clip id, kind, text, start, end, and the query that it is a moment of."""
        self.questions: dict[str, dict[str, Any]] = {}
        """By question id."""
        self._next_text: Counter[str] = Counter()
        self._sentences: dict[str, list[str]] = {}

    def each(self, rows: Iterable[Row], handle: Callable[[Row], object]) -> None:
        """Handle every row of a file; see RowLog.each."""
        self.row_log.each(rows, handle)

    def problem(self, file: str, problem: str) -> None:
        """Note a fault of a whole file."""
        self.row_log.fault(file, problem)

    def clip(
        self,
        row: Row,
        clip_id: str,
        *,
        split: str,
        video_names: Sequence[str] | None = None,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
        duration_seconds: float | None = None,
    ) -> Clip:
        """The clip, which may be there already; in another split or span it is a fault.

        video_names: None for the clip id itself. A clip whose id is no printable text, or whose end
        is not after its start, is refused.
        """
        if not clip_id.strip() or not clip_id.isprintable():
            row.refuse(f"expected the id of a clip, got {excerpt(clip_id)}")
        earlier = self.clips.get(clip_id)
        if earlier is not None:
            if (earlier.start_seconds, earlier.end_seconds) != (start_seconds, end_seconds):
                row.refuse(
                    f"the clip {clip_id!r} is {_span_text(start_seconds, end_seconds)} here and "
                    f"{_span_text(earlier.start_seconds, earlier.end_seconds)} at {earlier.place}"
                )
            if earlier.split != split:
                row.refuse(
                    f"the clip {clip_id!r} is in split {split} here and in {earlier.split} "
                    f"at {earlier.place}"
                )
            row.written()
            return earlier
        if end_seconds is not None and end_seconds <= (start_seconds or 0.0):
            row.refuse(f"the clip {clip_id!r} ends at {end_seconds:g}, not after its start")
        clip = Clip(
            split=split,
            video_names=tuple(video_names or (clip_id,)),
            start_seconds=start_seconds,
            end_seconds=end_seconds,
            duration_seconds=duration_seconds,
            place=row.place(),
        )
        self.clips[clip_id] = clip
        row.written()
        return clip

    def text(
        self,
        row: Row,
        clip_id: str,
        text: str,
        *,
        kind: str,
        text_id: str | None = None,
        query_id: str | None = None,
        span: tuple[float, float] | None = None,
    ) -> None:
        """A text of a clip that is there. text_id: None gives CLIP_ID#K, K from 0.

        query_id: the same for the texts that are one query with several moments; None: the text's.
        """
        if text_id is None:
            text_id = f"{clip_id}#{self._next_text[clip_id]}"
            self._next_text[clip_id] += 1
        other = self.texts.get(text_id)
        owner = None if other is None else other[0]
        text_id = self._unique_id(row, "text", text_id, clip_id, owner=owner, taken=self.texts)
        start, end = (None, None) if span is None else span
        self.texts[text_id] = (clip_id, kind, text, start, end, query_id or text_id)
        row.written()

    def sentence(self, row: Row, clip_id: str, text: str) -> None:
        """The next sentence of the paragraph of a clip that is there."""
        self._sentences.setdefault(clip_id, []).append(text)
        row.written()

    def question(
        self,
        row: Row,
        question_id: str,
        clip_id: str,
        *,
        question: str,
        options: Sequence[str] | None = None,
        answer_index: int | None = None,
        answer: str | None = None,
        type: str | None = None,
        span: tuple[float, float] | None = None,
    ) -> None:
        """A question about a clip that is there: multiple choice with options, else open-ended."""
        other = self.questions.get(question_id)
        owner = None if other is None else other["clip_id"]
        question_id = self._unique_id(
            row, "question", question_id, clip_id, owner=owner, taken=self.questions
        )
        if options is not None and answer_index is not None:
            if not 0 <= answer_index < len(options):
                row.refuse(f"the answer is option {answer_index} of {len(options)}, counted from 0")
            answer = options[answer_index]
        self.questions[question_id] = {
            "clip_id": clip_id,
            "kind": "open_ended" if options is None else "multiple_choice",
            "question": question,
            "options": None if options is None else list(options),
            "answer_index": answer_index,
            "answer": answer,
            "type": type,
            "start_seconds": None if span is None else span[0],
            "end_seconds": None if span is None else span[1],
        }
        row.written()

    def _unique_id(
        self,
        row: Row,
        what: str,
        own_id: str,
        clip_id: str,
        *,
        owner: str | None,
        taken: Container[str],
    ) -> str:
        """The id, or ID@SPLIT where a clip of another split has it; twice in a split is a fault.

        owner: the clip that has the id already.
        """
        if owner is None:
            return own_id
        split = self.clips[clip_id].split
        id_with_split = f"{own_id}@{split}"
        if self.clips[owner].split == split or id_with_split in taken:
            row.refuse(f"the {what} {own_id!r} is there twice")
        row.mend(SHARED_ID, own_id)
        return id_with_split

    def paragraphs(self) -> None:
        """Give every clip that has sentences a text CLIP_ID: all of them, in file order."""
        for clip_id, sentences in self._sentences.items():
            text = " ".join(sentences)
            self.texts[clip_id] = (clip_id, "paragraph", text, None, None, clip_id)

    def drop_clips(self, clip_ids: set[str]) -> None:
        """Take clips away with their texts and questions."""
        self.clips = {name: clip for name, clip in self.clips.items() if name not in clip_ids}
        self.texts = {name: row for name, row in self.texts.items() if row[0] not in clip_ids}
        self.questions = {
            name: row for name, row in self.questions.items() if row["clip_id"] not in clip_ids
        }

    def counts(self, kinds: frozenset[str]) -> dict[str, SplitCounts]:
        """Of each split: clips, queries among the texts of these kinds, questions."""
        splits = {name: clip.split for name, clip in self.clips.items()}
        clips = Counter(splits.values())
        queries = {(row[0], row[-1]) for row in self.texts.values() if row[1] in kinds}
        texts = Counter(splits[clip_id] for clip_id, _ in queries)
        questions = Counter(splits[row["clip_id"]] for row in self.questions.values())
        return {
            split: SplitCounts(clips=clips[split], texts=texts[split], questions=questions[split])
            for split in sorted(clips)
        }

    def tables(self, video_paths: dict[str, str]) -> tuple[pa.Table, pa.Table, pa.Table]:
        """The tables clips, texts, questions; video_paths: of each clip."""
        clips, texts = self.clips.values(), self.texts.values()
        splits = {name: clip.split for name, clip in self.clips.items()}
        questions = self.questions.values()
        columns = {
            "clip_id": list(self.clips),
            "video_path": [video_paths[name] for name in self.clips],
            "start_seconds": [clip.start_seconds for clip in clips],
            "end_seconds": [clip.end_seconds for clip in clips],
            "split": [clip.split for clip in clips],
        }
        text_columns = {
            "text_id": list(self.texts),
            **{
                name: [row[place] for row in texts]
                for place, name in enumerate(
                    ("clip_id", "kind", "text", "start_seconds", "end_seconds")
                )
            },
            "split": [splits[row[0]] for row in texts],
        }
        question_columns = {
            "question_id": list(self.questions),
            **{
                name: [row[name] for row in questions]
                for name in QUESTIONS.names
                if name not in ("question_id", "split")
            },
            "split": [splits[row["clip_id"]] for row in questions],
        }
        return (
            pa.table(columns, schema=CLIPS),
            pa.table(text_columns, schema=TEXTS),
            pa.table(question_columns, schema=QUESTIONS),
        )


def _span_text(start: float | None, end: float | None) -> str:
    return f"[{start or 0:g}, {'its end' if end is None else f'{end:g}'})"


def usable_span(
    row: Row, start: float, end: float, *, duration_seconds: float | None
) -> tuple[float, float]:
    """The moment inside its clip; a row whose moment has no length there is left out."""
    span = span_inside(row, start, end, duration_seconds=duration_seconds)
    return row.leave_out(EMPTY, (start, end)) if span is None else span


def span_or_none(
    row: Row, start: float, end: float, *, duration_seconds: float | None
) -> tuple[float, float] | None:
    """The moment inside its clip; None, counted as a mend, where it has no length there: the query
    counts among the dataset's, and finds its clip."""
    span = span_inside(row, start, end, duration_seconds=duration_seconds)
    if span is None:
        row.mend(NO_MOMENT, (start, end))
    return span


def span_inside(
    row: Row, start: float, end: float, *, duration_seconds: float | None
) -> tuple[float, float] | None:
    """The moment cut to its clip, each cut counted as a mend; None where nothing is left of it."""
    first, last = max(start, 0.0), end
    if duration_seconds is not None and end > duration_seconds:
        last = duration_seconds
    if first >= last:
        return None
    if first != start:
        row.mend(BEFORE, (start, end))
    if last != end:
        row.mend(BEYOND, (start, end))
    return first, last
