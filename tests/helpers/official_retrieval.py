"""Retrieval datasets in their official shapes."""

from __future__ import annotations

import json
import pickle

from importer_fixtures import BLANKS, Fixture

GIVEN = "captions of clips whose one query is given in another file"
OTHER = "of clips in none of the splits"
ONE_QUERY = (
    "key,vid_key,video_id,sentence\nret0,msr3,video3,a cat naps\nret1,msr4,video4,a cat naps"
)


def msrvtt(*, mended: int, left_out: dict[str, int], **lists: str) -> Fixture:
    """Clips 0 and 1 (train), 2 (validate), 3 and 4 (test), with two captions each."""
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


def in_parts(whole: Fixture) -> Fixture:
    """MSR-VTT as Microsoft published it: training and validation in one file, test in another."""
    data = json.loads(whole.files["MSRVTT_data.json"])
    tests = {video["video_id"] for video in data["videos"] if video["split"] == "test"}
    files = {
        name: json.dumps(
            {
                key: [row for row in data[key] if (row["video_id"] in tests) == is_test]
                for key in ("videos", "sentences")
            }
        )
        for name, is_test in (
            ("train_val_videodatainfo.json", False),
            ("test_videodatainfo.json", True),
        )
    }
    return Fixture(of="msrvtt-full", files=files, mended=whole.mended, left_out=whole.left_out)


MSVD_LISTS = {
    "train_list.txt": "AbC_1_9\nxY-z_0_5",
    "val_list.txt": "v@l_2_3\n",
    "test_list.txt": "t_1_2",
}
MSVD_CAPTIONS = {
    "AbC_1_9": ["a dog runs", "the dog  is running"],
    "xY-z_0_5": ["a dog runs"],
    "v@l_2_3": ["one\nmore"],
    "t_1_2": ["a dog runs", "a dog runs"],
    "gone_1_2": ["nobody asks for it"],
}


def tabs(*fields: str) -> str:
    return "\t".join(fields)


CLIP = "1001_Film_00.00.05.930-00.00.08.320"
LSMDC = {
    "LSMDC16_annos_training.csv": "\n".join(
        (
            tabs(
                CLIP,
                "00.00.05.930",
                "00.00.08.320",
                "00.00.05.930",
                "00.00.08.320",
                'SOMEONE "waits.',
            ),
            tabs(
                CLIP, "00.00.05.930", "00.00.08.320", "00.00.05.930", "00.00.08.320", "He waits. "
            ),
        )
    ),
    "LSMDC16_annos_val.csv": tabs("1002_F_1", "1", "2", "1", "2", "She's gone, too."),
    "LSMDC16_challenge_1000_publictect.csv": tabs("1003_F_1", "1", "2", "1", "2", "Night.")
    + "\r\n",
}


def vatex_items(*names: str) -> str:
    captions = [f"caption {k} of ten" for k in range(9)] + [" the last one"]
    return json.dumps([{"videoID": name, "enCap": captions, "chCap": ["一只猫"]} for name in names])


VATEX = {
    "vatex_training_v1.0.json": vatex_items("a_000001_000011"),
    "vatex_validation_v1.0.json": vatex_items("b_000001_000011", "c_000001_000011", "d_1_2"),
    "train_list.txt": "a_000001_000011",
    "val_list.txt": "b_000001_000011",
    "test_list.txt": "c_000001_000011",
}

YOUCOOK2 = {
    "youcookii_annotations_trainval.json": json.dumps(
        {
            "database": {
                "GLd3aX": {
                    "duration": 241.62,
                    "subset": "training",
                    "recipe_type": "113",
                    "annotations": [
                        {"id": 0, "segment": [90, 102], "sentence": "spread margarine "},
                        {"id": 1, "segment": [114, 127], "sentence": "place cheese on the bread"},
                    ],
                },
                "xHr8X": {
                    "subset": "validation",
                    "annotations": [{"id": 0, "segment": [47, 60], "sentence": "cut the ends"}],
                },
            }
        }
    ),
    "validation_youcook.csv": "end,start,task,text,video_id\n"
    "60,47,226,cut the ends,xHr8X\n67,63,226,cut the ends,xHr8X",
}

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
    "msrvtt-1k-a-7k": msrvtt(
        mended=1,
        left_out={GIVEN: 4, OTHER: 6},
        **{"MSRVTT_train.7k.csv": "video_id\nvideo0", "MSRVTT_JSFUSION_test.csv": ONE_QUERY},
    ),
    "msrvtt-full": msrvtt(mended=5, left_out={}),
    "msrvtt-full-parts": in_parts(msrvtt(mended=5, left_out={})),
    "msrvtt-1k-b": msrvtt(
        mended=3,
        left_out={OTHER: 6},
        **{"train_list_miech.txt": "video0\nvideo4", "test_list_miech.txt": "video1"},
    ),
    "msvd": Fixture(
        files={
            **MSVD_LISTS,
            "raw-captions.pkl": pickle.dumps(
                {
                    clip: [text.split(" ") for text in texts]
                    for clip, texts in MSVD_CAPTIONS.items()
                },
                protocol=2,
            ),
        },
        mended={BLANKS: 1},
        left_out={"captions of clips in none of the splits": 1},
    ),
    "msvd-json": Fixture(
        of="msvd",
        files={**MSVD_LISTS, "captions_msvd.json": json.dumps(MSVD_CAPTIONS)},
        mended={BLANKS: 1},
        left_out={"captions of clips in none of the splits": 1},
    ),
    "lsmdc": Fixture(files=LSMDC, mended={BLANKS: 1}),
    "vatex": Fixture(files=VATEX, mended={BLANKS: 3}, left_out={OTHER: 1}),
    "youcook2": Fixture(
        files=YOUCOOK2,
        mended={BLANKS: 1},
        left_out={"of the official validation subset, whose clips another file gives": 1},
    ),
}
