"""MSR-VTT: MSRVTT_data.json with its captions (or its two official parts), and lists of clips;
MSRVTT-MC: which of five captions is the clip's, as JSON Lines of ClipBERT or of others.

A variant's files train, val and test are lists of clips: CSV with a column video_id (CLIP4Clip,
frozen-in-time) or a plain list. The file test may instead have one given caption for each clip, as
MSRVTT_JSFUSION_test.csv has: then the clip's own captions are no queries and are left out.
"""

from __future__ import annotations

from ..annotations.dataset_rows import DatasetRows
from ..annotations.official_files import OfficialFiles
from ..annotations.row_log import Row
from ..cards.card import Card

OTHER_CLIPS = "of clips in none of the splits"
GIVEN = "captions of clips whose one query is given in another file"


def import_msrvtt(card: Card, files: OfficialFiles, rows: DatasetRows) -> None:
    """Clips by the lists (or, without lists, by the official split), captions from the JSON."""
    given: set[str] = set()
    has_lists = "test" in card.files
    for split in files.splits if has_lists else ():
        is_given = card.queries == "given_caption" and split == card.test_split
        _read_list(files, rows, split, given=given if is_given else None)
    parts = ("captions",) if files.has("captions") else card.files["captions"].instead
    contents = {word: files.json(word) for word in parts if files.has(word)}
    for word, content in contents.items():
        if not isinstance(content, dict):
            rows.problem(files.paths[word].name, "expected an object with videos and sentences")
            return
    official: dict[str, str] = {}

    def take_video(row: Row) -> None:
        clip_id = row.name("video_id")
        if has_lists:
            if clip_id not in rows.clips:
                row.leave_out(OTHER_CLIPS)
            row.written()
            return
        official[clip_id] = {"validate": "val"}.get(row.name("split"), row.name("split"))
        if official[clip_id] not in files.splits:
            row.refuse(f"expected a split of {', '.join(files.splits)}", key="split")
        rows.clip(row, clip_id, split=official[clip_id])

    def take_caption(row: Row) -> None:
        clip_id = row.name("video_id")
        if clip_id in given:
            row.leave_out(GIVEN)
        if clip_id not in rows.clips:
            row.leave_out(OTHER_CLIPS)
        rows.text(row, clip_id, row.words("caption"), kind="caption")

    for key, take in (("videos", take_video), ("sentences", take_caption)):
        for word, content in contents.items():
            rows.each(files.rows(word, files.listed(word, content.get(key))), take)


def _read_list(
    files: OfficialFiles, rows: DatasetRows, split: str, *, given: set[str] | None
) -> None:
    """Clips of a split; `given` takes the clips whose query stands in the list itself."""

    def take_name(row: Row) -> None:
        rows.clip(row, row.value.strip(), split=split)

    def take_record(row: Row) -> None:
        rows.clip(row, row.name("video_id"), split=split)

    def take_query(row: Row) -> None:
        clip_id = row.name("video_id")
        rows.clip(row, clip_id, split=split)
        rows.text(row, clip_id, row.words("sentence"), kind="query", text_id=row.name("key"))
        queried.add(clip_id)

    if given is not None:
        queried = given
        rows.each(files.records(split, ("key", "video_id", "sentence")), take_query)
    elif files.paths[split].suffix == ".csv":
        rows.each(files.records(split, ("video_id",)), take_record)
    else:
        rows.each(files.lines(split), take_name)


def import_msrvtt_choice(card: Card, files: OfficialFiles, rows: DatasetRows) -> None:
    """Keys qid, clip_name and options, or video and caption; without a qid the line, from 0."""
    for split in files.splits:

        def take(row: Row, split: str = split) -> None:
            clip_id = row.name("clip_name" if row.has("clip_name") else "video")
            options = row.sentences("options" if row.has("options") else "caption")
            if len(options) < 2:
                row.refuse(f"expected at least two options, got {len(options)}")
            question_id = row.name("qid") if row.has("qid") else str(row.line - 1)
            rows.clip(row, clip_id, split=split)
            rows.question(
                row,
                question_id,
                clip_id,
                question="",
                options=options,
                answer_index=row.integer("answer"),
            )

        rows.each(files.json_lines(split), take)
