"""Retrieval datasets in their official shapes."""

from __future__ import annotations

import json

from importer_fixtures import BLANKS, Fixture


def msrvtt(*, mended: int, left_out: dict[str, int], **lists: str) -> Fixture:
    videos = [
        {"video_id": f"video{n}", "url": "https://example.org/v", "category": 3, "start time": 1.0}
        | {"end time": 9.5, "split": split, "id": n}
        for n, split in enumerate(("train", "train", "validate", "test", "test"))
    ]
    captions = [
        {"caption": text, "video_id": f"video{n}", "sen_id": 10 * n + k}
        for n in range(5)
        for k, text in enumerate((f"a cat naps on mat {n}", f" a cat naps {n} "))
    ]
    data = json.dumps({"info": {"year": "2016"}, "videos": videos, "sentences": captions})
    return Fixture(
        files={"MSRVTT_data.json": data, **lists},
        mended={BLANKS: mended},
        left_out=left_out,
    )


GIVEN = "captions of clips whose one query is given in another file"
OTHER = "of clips in none of the splits"
ONE_QUERY = (
    "key,vid_key,video_id,sentence\nret0,msr3,video3,a cat naps\nret1,msr4,video4,a cat naps"
)

FIXTURES: dict[str, Fixture] = {
    # Two train clips, one of no list (its video and two captions), two test clips.
    "msrvtt-1k-a-9k": msrvtt(
        mended=2,
        left_out={GIVEN: 4, OTHER: 3},
        **{
            "MSRVTT_train.9k.csv": "video_id\nvideo0\nvideo1",
            "MSRVTT_JSFUSION_test.csv": ONE_QUERY,
        },
    ),
}
