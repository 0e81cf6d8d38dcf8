"""Subtitles of TV clips: one file of JSON Lines for all clips, or an .srt file for each."""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import Final

from .dataset_rows import DatasetRows, span_inside
from .official_files import OfficialFiles
from .row_log import Counted, Row, RowLog

SUBTITLES: Final = "subtitles"
"""The word of cards for the file or folder."""
OTHER_CLIPS: Final = "subtitles of clips that no split has"
NO_LENGTH: Final = "subtitles that end where they start, or before, or say nothing"
OTHER_ENCODING: Final = "files of subtitles that are no UTF-8 text, read as Latin-1 or UTF-16"
TIMES: Final = re.compile(
    r"(\d+):(\d\d):(\d\d)[,.](\d{1,3}) *--> *(\d+):(\d\d):(\d\d)[,.](\d{1,3}).*"
)


def import_subtitles(files: OfficialFiles, rows: DatasetRows) -> None:
    """Subtitles of the clips there are, CLIP@0, CLIP@1 ..., if the file or folder is there."""
    if not files.has(SUBTITLES):
        return
    if files.paths[SUBTITLES].is_dir():
        for path in sorted(files.paths[SUBTITLES].glob("*.srt")):
            _import_srt(path, rows)
        return

    def take(row: Row) -> None:
        clip_id = row.name("vid_name")
        if clip_id not in rows.clips:
            row.leave_out(OTHER_CLIPS)
        row.written()
        for place, spoken in enumerate(row.items("sub")):
            if not isinstance(spoken, dict):
                row.refuse("expected objects with text, start and end", key="sub")
            start, end = (row.as_number(spoken.get(key), "sub") for key in ("start", "end"))
            text = spoken.get("text")
            if not isinstance(text, str):
                row.refuse("expected objects with text, start and end", key="sub")
            _add(rows, row, clip_id, place, text, (start, end))

    rows.each(files.json_lines(SUBTITLES), take)


def _import_srt(path: Path, rows: DatasetRows) -> None:
    """Blocks of a number, START --> END, and lines of text, with blank lines between."""
    row_log: RowLog = rows.row_log
    text = _decoded(path, row_log)
    blocks, line = list[tuple[int, str]](), 1
    for block in re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n")):
        if block.strip():
            blocks.append((line, block.strip("\n")))
        line += block.count("\n") + 2
    places = iter(range(len(blocks)))

    def take(row: Row) -> None:
        if path.stem not in rows.clips:
            row.leave_out(OTHER_CLIPS)
        number, _, rest = row.value.partition("\n")
        times, _, spoken = (rest if number.strip().isdigit() else row.value).partition("\n")
        match = TIMES.fullmatch(times.strip())
        if match is None:
            row.refuse("expected a number, then START --> END, then what is said")
        numbers = [int(group) for group in match.groups()]
        start, end = (
            3600.0 * h + 60.0 * m + s + ms / 1000 for h, m, s, ms in (numbers[:4], numbers[4:])
        )
        row.written()
        _add(rows, row, path.stem, next(places), spoken, (start, end))

    rows.each(row_log.rows(path.name, blocks), take)


def _decoded(path: Path, row_log: RowLog) -> str:
    """The text of an .srt file. TVQA's are a mixture; its authors read them as Latin-1."""
    try:
        data = path.read_bytes()
    except OSError as error:
        row_log.fault(path.name, f"cannot be read: {error.strerror}")
        return ""
    is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        if not is_utf16:
            return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    row_log.mended.setdefault(OTHER_ENCODING, Counted()).add(path.name)
    return data.decode("utf-16" if is_utf16 else "latin-1", errors="replace")


def _add(
    rows: DatasetRows, row: Row, clip_id: str, place: int, text: str, span: tuple[float, float]
) -> None:
    duration = rows.clips[clip_id].duration_seconds
    inside = span_inside(row, *span, duration_seconds=duration)
    words = " ".join(row.characters(text).split())
    if inside is None or not words:
        row.mend(NO_LENGTH, text)
        return
    rows.text(row, clip_id, words, kind="subtitle", text_id=f"{clip_id}@{place}", span=inside)
