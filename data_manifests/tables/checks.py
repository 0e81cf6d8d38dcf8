"""The rules a dataset's rows must keep: whole columns at a time, every offending cell a fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.faults import Faults, row_name
from .read_table import TableRows
from .schema import QUESTION_KINDS, TEXT_KINDS

SPAN_TOLERANCE_SECONDS: Final = 1e-6
"""How far a span may reach over the end of its clip: rounding of sums of seconds."""

ESCAPING_PATH = r"^[/\\]|^[A-Za-z]:[/\\]|(^|[/\\])\.\.([/\\]|$)|\x00|^[a-z]+://"


def check_rows(
    clips: TableRows, texts: TableRows, questions: TableRows, *, faults: Faults
) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Note every broken rule in `faults`; the tables, with the splits of texts and questions
    that leave theirs out filled in from their clips."""
    _check_clips(_Checker(clips, faults))
    checker = _Checker(texts, faults)
    _check_text_like(checker, clips, id_column="text_id", kinds=TEXT_KINDS, prose="text")
    checker = _Checker(questions, faults)
    _check_text_like(
        checker, clips, id_column="question_id", kinds=QUESTION_KINDS, prose="question"
    )
    _check_answers(checker)
    return clips.table, _with_clip_splits(texts, clips), _with_clip_splits(questions, clips)


class _Checker:
    """One table with short ways to say that cells of it are wrong."""

    def __init__(self, rows: TableRows, faults: Faults) -> None:
        self.rows = rows
        self.faults = faults

    def column(self, name: str) -> pa.Array:
        return self.rows.table[name].combine_chunks()

    def is_null(self, name: str) -> np.ndarray:
        return np.asarray(self.column(name).is_null())

    def fault(self, name: str, wrong: Any, problem: str | Callable[[int], str]) -> None:
        """Note the problem for each row where `wrong` is true (null counts as false)."""
        mask = wrong if isinstance(wrong, np.ndarray) else np.asarray(pc.fill_null(wrong, False))
        places = np.nonzero(mask)[0]
        if len(places):
            values = self.column(name).take(pa.array(places)).to_pylist()
            self.faults.add_cells(
                zip(places.tolist(), values, strict=True),
                table=self.rows.file,
                column=name,
                problem=problem,
                lines=self.rows.lines,
            )

    def given(self, name: str) -> None:
        if name not in self.rows.missing:  # said once, for the column
            self.fault(name, self.is_null(name), "a value is required")

    def required(self, name: str) -> None:
        if name in self.rows.missing:
            return
        self.given(name)
        blank = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(self.column(name))), 0)
        self.fault(name, blank, "a value is required")

    def unique(self, name: str) -> None:
        codes = self.column(name).dictionary_encode().indices
        codes = np.asarray(pc.fill_null(codes, -1))
        _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
        again = (first[inverse] != np.arange(len(codes))) & (codes >= 0)
        file, lines = self.rows.file, self.rows.lines
        self.fault(
            name, again, lambda row: f"already in {row_name(file, lines[first[inverse[row]]])}"
        )

    def one_of(self, name: str, allowed: tuple[str, ...]) -> None:
        wrong = pc.invert(pc.is_in(self.column(name), value_set=pa.array(allowed)))
        wrong = pc.and_(wrong, self.column(name).is_valid())
        self.fault(name, wrong, f"expected one of {', '.join(allowed)}")

    def seconds(self, name: str) -> np.ndarray:
        """(num_rows,) float64; null and what cannot be a time are NaN."""
        values = self.column(name).to_numpy(zero_copy_only=False)
        given = ~self.is_null(name)
        self.fault(name, given & ~np.isfinite(values), "expected a finite number of seconds")
        self.fault(name, given & (values < 0), "expected a time >= 0 seconds")
        return np.where(np.isfinite(values), values, np.nan)


def _check_clips(clips: _Checker) -> None:
    clips.required("clip_id")
    clips.unique("clip_id")
    clips.required("video_path")
    escaping = pc.match_substring_regex(clips.column("video_path"), ESCAPING_PATH)
    clips.fault("video_path", escaping, "expected a path that stays below the videos root")
    clips.required("split")
    start, end = clips.seconds("start_seconds"), clips.seconds("end_seconds")
    start = np.where(np.isnan(start), 0.0, start)
    _check_order(clips, start, end)


def _check_order(rows: _Checker, start: np.ndarray, end: np.ndarray) -> None:
    rows.fault("end_seconds", end <= start, lambda row: f"expected more than start {start[row]:g}")


def _check_text_like(
    rows: _Checker, clips: TableRows, *, id_column: str, kinds: tuple[str, ...], prose: str
) -> None:
    rows.required(id_column)
    rows.unique(id_column)
    rows.required("clip_id")
    clip_of_row = _clip_of_row(rows.rows, clips)
    if "clip_id" not in clips.missing:
        unknown = (clip_of_row < 0) & ~rows.is_null("clip_id")
        rows.fault("clip_id", unknown, "no such clip")
    rows.required("kind")
    rows.one_of("kind", kinds)
    if prose == "question":
        # Of multiple choice it may be empty: which option describes the clip?
        rows.given(prose)
        is_open = pc.equal(rows.column("kind"), "open_ended")
        blank = pc.equal(pc.utf8_trim_whitespace(rows.column(prose)), "")
        rows.fault(prose, pc.and_kleene(is_open, blank), "a value is required")
    else:
        rows.required(prose)
    _check_spans_in_clips(rows, clips, clip_of_row)
    given_split, clip_split = rows.column("split"), _taken(clips.table["split"], clip_of_row)
    splits = clip_split.to_pylist() if pc.any(pc.not_equal(given_split, clip_split)).as_py() else []
    rows.fault(
        "split",
        pc.not_equal(given_split, clip_split),
        lambda row: f"expected the split of its clip, {splits[row]}",
    )


def _check_spans_in_clips(rows: _Checker, clips: TableRows, clip_of_row: np.ndarray) -> None:
    start, end = rows.seconds("start_seconds"), rows.seconds("end_seconds")
    no_start, no_end = rows.is_null("start_seconds"), rows.is_null("end_seconds")
    rows.fault("start_seconds", no_start & ~no_end, "a span needs its start as well as its end")
    rows.fault("end_seconds", no_end & ~no_start, "a span needs its end as well as its start")
    _check_order(rows, start, end)
    times = (clips.table[name].combine_chunks() for name in ("start_seconds", "end_seconds"))
    clip_start, clip_end = (
        time.to_numpy(zero_copy_only=False).astype(np.float64) for time in times
    )
    duration = clip_end - np.where(np.isnan(clip_start), 0.0, clip_start)
    # The last, extra entry is that of rows without a clip.
    limit = np.append(duration, np.nan)[clip_of_row]
    rows.fault(
        "end_seconds",
        end > limit + SPAN_TOLERANCE_SECONDS,
        lambda row: f"outside its clip, which lasts {limit[row]:g} seconds",
    )


def _check_answers(questions: _Checker) -> None:
    options, answer = questions.column("options"), questions.column("answer")
    index = questions.column("answer_index")
    kind = questions.column("kind")
    choice = np.asarray(pc.fill_null(pc.equal(kind, "multiple_choice"), False))
    open_ended = np.asarray(pc.fill_null(pc.equal(kind, "open_ended"), False))
    count = np.asarray(pc.fill_null(pc.list_value_length(options), 0))
    number = np.asarray(pc.fill_null(index, -1)).astype(np.int64)
    indexed = ~np.asarray(index.is_null())
    questions.fault("options", choice & (count < 2), "multiple choice needs at least 2 options")
    flat = pc.list_flatten(options)
    blank = pc.or_kleene(flat.is_null(), pc.equal(pc.utf8_trim_whitespace(flat), ""))
    owner = np.asarray(pc.list_parent_indices(options))[np.asarray(pc.fill_null(blank, True))]
    has_blank = np.zeros(len(options), dtype=bool)
    has_blank[owner] = True
    questions.fault("options", has_blank, "every option needs a text")
    questions.fault("options", open_ended & (count > 0), "an open-ended question has no options")
    questions.fault("answer_index", open_ended & indexed, "an open-ended question has no options")
    outside = choice & indexed & ((number < 0) | (number >= count))
    questions.fault(
        "answer_index", outside, lambda row: f"expected 0 <= index < {count[row]}, its options"
    )
    starts = np.cumsum(count) - count
    inside = choice & indexed & ~outside
    right = flat.take(pa.array(np.where(inside, starts + number, 0), mask=~inside))
    questions.fault(
        "answer",
        pc.not_equal(answer, right),
        lambda row: f"expected the option of answer_index {number[row]}",
    )


def _clip_of_row(rows: TableRows, clips: TableRows) -> np.ndarray:
    """(num_rows,) row of its clip in `clips`, -1 where there is none."""
    wanted = rows.table["clip_id"].combine_chunks()
    rows_of_clips = pc.index_in(
        wanted, value_set=clips.table["clip_id"].combine_chunks(), skip_nulls=True
    )
    return np.asarray(pc.fill_null(rows_of_clips, -1)).astype(np.int64)


def _taken(column: pa.ChunkedArray, places: np.ndarray) -> pa.Array:
    return column.combine_chunks().take(pa.array(places, mask=places < 0))


def _with_clip_splits(rows: TableRows, clips: TableRows) -> pa.Table:
    filled = pc.coalesce(
        rows.table["split"].combine_chunks(),
        _taken(clips.table["split"], _clip_of_row(rows, clips)),
    )
    index = rows.table.schema.get_field_index("split")
    return rows.table.set_column(index, rows.table.schema.field(index), filled)
