"""Questions about clips: MSRVTT-QA and MSVD-QA, and NExT-QA.

MSRVTT-QA and MSVD-QA (Xu et al. 2017): open-ended, a JSON list for each split. NExT-QA: multiple
choice about actions and their order, a CSV for each split.
"""

from __future__ import annotations

from ..annotations.dataset_rows import DatasetRows
from ..annotations.official_files import OfficialFiles
from ..annotations.row_log import Row
from ..cards.card import Card
from ..core.faults import excerpt


def import_xu_qa(card: Card, files: OfficialFiles, rows: DatasetRows) -> None:
    """Clips are videoN (variant msrvtt) or vidN (msvd); a question's type is its first word.

    With youtube_mapping.txt a video of MSVD is also found under its name on YouTube.
    """
    is_msrvtt = card.variant == "msrvtt"
    youtube: dict[str, str] = {}

    def take_name(row: Row) -> None:
        names = row.value.split()
        if len(names) != 2:
            row.refuse(f"expected YOUTUBE_NAME vidN, got {excerpt(row.value)}")
        youtube[names[1]] = names[0]
        row.written()

    if files.has("names"):
        rows.each(files.lines("names"), take_name)
    for split in files.splits:

        def take(row: Row, split: str = split) -> None:
            if row.has("category_id") != is_msrvtt:
                other = "MSVD-QA" if is_msrvtt else "MSRVTT-QA"
                row.refuse(f"only MSRVTT-QA has category_id; this looks like {other}")
            clip_id = f"{'video' if is_msrvtt else 'vid'}{row.name('video_id')}"
            question, answer = row.words("question"), row.words("answer")
            names = dict.fromkeys((youtube.get(clip_id, clip_id), clip_id))
            rows.clip(row, clip_id, split=split, video_names=tuple(names))
            rows.question(
                row,
                row.name("id"),
                clip_id,
                question=question,
                answer=answer,
                type=question.split()[0].lower(),
            )

        rows.each(files.items(split), take)


OPTIONS = ("a0", "a1", "a2", "a3", "a4")
COLUMNS = ("video", "question", "answer", "qid", "type", *OPTIONS)


def import_next_qa(card: Card, files: OfficialFiles, rows: DatasetRows) -> None:
    """A question's id is VIDEO_QID: qid alone repeats between videos.

    Where the map to VidOR is there, a video is also found under its name there.
    """
    vidor: dict[str, str] = {}

    def take_name(row: Row) -> None:
        video, place = row.value
        if not isinstance(place, str) or not place:
            row.refuse(f"{video!r}: expected where VidOR has it, got {excerpt(place)}")
        vidor[video] = place.rsplit("/", 1)[-1]
        row.written()

    if files.has("names"):
        rows.each(files.rows("names", enumerate(files.entries("names"), start=1)), take_name)
    for split in files.splits:

        def take(row: Row, split: str = split) -> None:
            clip_id, question = row.name("video"), row.words("question")
            options = [row.words(name) for name in OPTIONS]
            names = dict.fromkeys((clip_id, vidor.get(clip_id, clip_id)))
            rows.clip(row, clip_id, split=split, video_names=tuple(names))
            rows.question(
                row,
                f"{clip_id}_{row.name('qid')}",
                clip_id,
                question=question,
                options=options,
                answer_index=row.integer("answer"),
                type=row.name("type"),
            )

        rows.each(files.records(split, COLUMNS), take)
