"""Moment datasets in their official shapes."""

from __future__ import annotations

import json

from importer_fixtures import BLANKS, Fixture, lines

BEYOND = "moments beyond the clip's end cut there"
NO_LENGTH = "queries whose moment has no length, kept without it"
EMPTY = "moments that end where they start, or before"
QUOTED = "numbers in quotes read as numbers"
SPOKEN = "subtitles of clips that no split has"
MUTE = "subtitles that end where they start, or before, or say nothing"

# An end beyond the video, a start after its end, blanks around sentences.
CAPTIONS = json.dumps(
    {
        "v_abc": {
            "duration": 61.2,
            "timestamps": [[0.5, 20.1], [30.0, 62.0], [9.5, 9.0]],
            "sentences": ["A man bakes.", " He eats. ", "He waits."],
        },
        "v_d-f": {"duration": 30, "timestamps": [[0, 30]], "sentences": ["A dog."]},
    }
)
VAL_1 = json.dumps({"v_g": {"duration": 9.5, "timestamps": [[1, 2]], "sentences": ["One."]}})
VAL_2 = json.dumps({"v_g": {"duration": 9.5, "timestamps": [[1, 3]], "sentences": ["Two."]}})

CHARADES = {
    "charades_sta_train.txt": "AO8RW 0.0 6.9##a person is putting a book on a shelf.\n"
    "AO8RW 8.2 33.0##the person sits down .\nY6R7T 5.0 5.0##nothing.\nY6R7T 2.0 40.0##a##b.",
    "charades_sta_test.txt": "3MSZA 24.3 30.4##person turn a light on.\n",
    "Charades_v1_train.csv": "id,subject,descriptions,length\r\n"
    'AO8RW,TXJK,"one, two ""three""",30.5\r\nY6R7T,A,b,20\r\n',
}

HIGHLIGHTS = {
    "highlight_train_release.jsonl": lines(
        {"qid": 1, "query": "a cat", "duration": 150, "vid": "ab_60.0_210.0"}
        | {"relevant_windows": [[10, 20], [30, 40]], "relevant_clip_ids": [5]}
        | {"saliency_scores": [[3, 2, 4]]},
        {"qid": 2, "query": " dogs ", "duration": 150, "vid": "ab_60.0_210.0"}
        | {"relevant_windows": [[0, 152]]},
    ),
    "highlight_val_release.jsonl": lines(
        {
            "qid": 3,
            "query": "a",
            "duration": 150,
            "vid": "c_0.0_150.0",
            "relevant_windows": [[0, 2]],
        }
    ),
    "highlight_test_release.jsonl": lines(
        {"qid": 4, "query": "b", "duration": 150, "vid": "d_0.0_150.0"}
    ),
}

TVR = {
    "tvr_train_release.jsonl": lines(
        {"vid_name": "s_01_clip_00", "duration": 61.5, "ts": [3.2, 7.9], "desc": "She sits. "}
        | {"type": "v", "desc_id": 1},
        {"vid_name": "s_01_clip_00", "duration": 61.5, "ts": [60, 65.25], "desc": "He goes."}
        | {"type": "vt", "desc_id": 2},
    ),
    "tvr_val_release.jsonl": lines(
        {"vid_name": "t_01_clip_00", "duration": 10, "ts": [1, 2], "desc": "x", "desc_id": 9}
    ),
    "tvr_video2dur_idx.json": json.dumps(
        {
            "train": {"s_01_clip_00": [61.5, 0], "s_01_clip_01": [50, 1]},
            "test_public": {"u_01_clip_00": [9.5, 2]},
            "test_challenge": {"w_01_clip_00": [9.5, 3]},
            "other": {"x_01_clip_00": [9.5, 4]},
        }
    ),
    "tvr_test_public_release.jsonl": lines({"desc": "She stands.", "desc_id": 3}),
    "tvqa_preprocessed_subtitles.jsonl": lines(
        {
            "vid_name": "s_01_clip_00",
            "sub": [
                {"text": "Hello  you", "start": 0.5, "end": 2},
                {"text": " ", "start": 3, "end": 4},
            ],
        },
        {"vid_name": "gone_01_clip_00", "sub": []},
    ),
}

DIDEMO = {
    "train_data.json": json.dumps(
        [
            {"annotation_id": 1, "description": "a cat jumps", "video": "12@N00_34_ab.mov"}
            | {"num_segments": 6, "times": [[1, 1], [1, 2], [1, 1], [0, 1]]},
            {"annotation_id": 2, "description": " it sleeps", "video": "12@N00_34_ab.mov"}
            | {"num_segments": 5, "times": [[0, 1], [2, 2], [0, 0], [1, 1], [4, 4]]},
            {"annotation_id": 3, "description": "d", "video": "1@N01_2_e.avi", "times": [[0, 5]]},
        ]
    ),
    "val_data.json": json.dumps(
        [{"annotation_id": 7, "description": "b", "video": "5@N01_6_c.3gp", "times": [[2, 5]] * 4}]
    ),
    "test_data.json": json.dumps(
        [{"annotation_id": 9, "description": "c", "video": "7@N02_8_d.mp4", "times": [[0, 0]] * 4}]
    ),
}

# With an extension or without; a video that is not described, and one (of train) not listed.
DIDEMO_LISTS = {
    "val_list.txt": "5@N01_6_c.3gp\n",
    "train_list.txt": "12@N00_34_ab.mov\n9@N00_9_gone.mov\n",
    "test_list.txt": "7@N02_8_d",
}

TACOS = {
    f"{split}.json": json.dumps(
        {
            f"s1-d{number}.avi": {
                "timestamps": [[294, 588], [300, end]],
                "sentences": ["He cuts.", "He washes. "],
                "fps": 29.4,
                "num_frames": 2940,
            }
        }
    )
    for number, (split, end) in enumerate((("train", 3000), ("val", 300), ("test", 600)))
}

HOW2R = {
    "how2R_train_release.csv": 'ab_c-1,[10:70.5],[12.5:20],"mix, ""well"""\r\n'
    "ab_c-1,[10:70.5],[60:80],stir \r\n",
    "how2R_val_release.csv": "d,[0:60],[5:5],wait\nd,[0:60],[5:6],go",
    "how2R_test_public_release.csv": "e,[0:59],[1:2],fry it,\r\n",
}

FIXTURES: dict[str, Fixture] = {
    "activitynet-paragraph": Fixture(
        files={"train.json": CAPTIONS, "val_1.json": VAL_1},
        mended={
            BLANKS: 1,
            BEYOND: 1,
            "sentences whose moment has no length stay in the paragraph alone": 1,
        },
    ),
    "activitynet-moments": Fixture(
        files={"train.json": CAPTIONS, "val_1.json": VAL_1, "val_2.json": VAL_2},
        mended={BLANKS: 1, BEYOND: 1},
        left_out={EMPTY: 1},
    ),
    "charades-sta": Fixture(files=CHARADES, mended={BEYOND: 2}, left_out={EMPTY: 1}),
    "qvhighlights": Fixture(files=HIGHLIGHTS, mended={BLANKS: 1, BEYOND: 1}),
    "tvr": Fixture(
        files=TVR,
        mended={BLANKS: 1, BEYOND: 1, MUTE: 1},
        left_out={
            "clips of splits that are not built": 1,
            "queries whose clip is not published": 1,
            SPOKEN: 1,
        },
    ),
    "didemo-paragraph": Fixture(files=DIDEMO, mended={BLANKS: 1}),
    "didemo-paragraph-ce": Fixture(
        files={**DIDEMO, **DIDEMO_LISTS},
        mended={BLANKS: 1},
        left_out={
            "descriptions of videos that the list of the split does not have": 1,
            "listed videos without descriptions": 1,
        },
    ),
    "didemo-moments": Fixture(files=DIDEMO, mended={BLANKS: 1}),
    "tacos": Fixture(files=TACOS, mended={BLANKS: 3, BEYOND: 1}, left_out={EMPTY: 1}),
    "how2r": Fixture(files=HOW2R, mended={BLANKS: 1, BEYOND: 1, NO_LENGTH: 1}),
}
