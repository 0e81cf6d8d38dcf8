"""Question datasets in their official shapes."""

from __future__ import annotations

import json

from importer_fixtures import BLANKS, Fixture, lines
from official_moments import MUTE, QUOTED, SPOKEN
from official_retrieval import tabs

NO_MOMENT = "questions whose moment is not told, or has no length, kept without it"
EMPTY_MOMENT = "questions whose moment has no length, kept without it"

HEADER = "video,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4\n"
NEXT_QA = {
    "train.csv": HEADER + '4000000001,300,640,480,why did the boy jump,2,6,CW,a,"b, c",c,d,e\n'
    "4000000002,300,640,480,what happened before,0,6,TP,a ,b,c,d,e",
    "val.csv": HEADER + "5,300,640,480,how many,1,0,DC,one,two,three,four,five\r\n",
    "test.csv": HEADER + "6,300,640,480,where,4,0,DL,one,two,three,four,five\n",
    "map_vid_vidorID.json": json.dumps({"4000000001": "1164/3238737531", "5": "0/5"}),
}


def activitynet_qa(split: str, number: int) -> dict[str, str]:
    questions = [
        {"video_name": f"a{number}", "question": "is it red ", "question_id": f"a{number}_1"},
        {"video_name": f"a{number}", "question": "what is it", "question_id": f"a{number}_2"},
    ]
    answers = [  # in another order, though official files have the same
        {"answer": "dog", "type": 5, "question_id": f"a{number}_2"},
        {"answer": "no", "type": 3, "question_id": f"a{number}_1"},
    ]
    return {f"{split}_q.json": json.dumps(questions), f"{split}_a.json": json.dumps(answers)}


def xu_qa(**extra: int) -> dict[str, str]:
    asked = [("who sings?", "man", 7), (" what is a Cat doing?", "nap", 7), ("how many?", "2", 8)]
    return {
        f"{split}_qa.json": json.dumps(
            [
                {"answer": answer, "id": 10 * number + k, "question": question}
                | {"video_id": video + 10 * number}
                | extra
                for k, (question, answer, video) in enumerate(asked)
            ]
        )
        for number, split in enumerate(("train", "val", "test"))
    }


def tvqa(qid: int, ts: object, **more: object) -> dict[str, object]:
    options = {f"a{k}": f"answer {k}" for k in range(5)}
    return {
        "qid": qid,
        "q": "Who?",
        **options,
        "ts": ts,
        "vid_name": "s_01",
        "show_name": "S",
    } | more


SUBTITLES = lines(
    {
        "vid_name": "s_01",
        "sub": [
            {"text": "Hi", "start": 0, "end": 1},
            {"text": "x", "start": 2, "end": 2},
        ],
    },
    {"vid_name": "gone", "sub": []},
)

TVQA = {
    "tvqa_train.jsonl": lines(tvqa(1, "1.21-8.49", answer_idx=3), tvqa(2, "nan-nan", answer_idx=0)),
    "tvqa_val.jsonl": lines(tvqa(3, [1.5, 2.5], answer_idx=1, vid_name="t_01")),
    "tvqa_test_public.jsonl": lines(tvqa(4, "0-3", vid_name="u_01")),
    "tvqa_preprocessed_subtitles.jsonl": SUBTITLES,
}
BOXES = {"bbox": {"3": [{"img_id": 3, "label": "cup", "left": 1, "top": 2, "width": 3}]}}
TVQA_PLUS = {
    "tvqa_plus_train.json": json.dumps([tvqa(1, [1.2, 8.4], answer_idx="3", **BOXES)]),
    "tvqa_plus_val.json": json.dumps([tvqa(2, [5.0, 5.0], answer_idx="0", vid_name="t_01")]),
    "tvqa_plus_test_public.json": json.dumps([tvqa(3, [0, 1], vid_name="u_01")]),
}

HOW2QA = {
    "how2QA_train_release.csv": 'ab-1,[0:4.5],"no, never",two,three,how many?,one\r\n'
    "ab-1,[5:5],x,y,z ,why?,w\r\n",
    "how2QA_val_release.csv": "c,[1:2],red,blue,green,which color?,pink\nd,[0:1],a,b,c,who?,e",
    "how2QA_test_public_release.csv": "e,[1:2],red,blue,green,which color?,pink\r\n",
}


def vlep(number: int, split: str, **more: object) -> str:
    record = {"example_id": number, "vid_name": f"x_{number}", "ts": [1.0, 2.5]}
    return lines(record | {"events": ["He goes. ", "She stays."], "split": split} | more)


VLEP = {
    "vlep_train_release.jsonl": vlep(5, "train", answer=1) + vlep(6, "train", answer=0, ts=[2, 2]),
    "vlep_dev_release.jsonl": vlep(7, "dev", answer=0),
    "vlep_test_release.jsonl": vlep(8, "test"),
}

VIOLIN = {
    "violin_annotation.json": json.dumps(
        {
            f"clip{n}": {
                "file": f"clip{n}",
                "split": split,
                "sub": [["Hello", 0, 1]],
                "statement": [["She smiles.", " She cries."], ["He sits.", "He runs."]],
            }
            for n, split in enumerate(("train", "validate", "test", "extra"))
        }
    )
}

VIOLIN_VALUE = {
    f"violin_{split}_release.jsonl": lines(
        *(
            {"paired_id": f"clip{n}-0-{k}", "vid_name": f"clip{n}", "statement": text}
            | {"example_id": 10 * n + k}
            | ({"answer": 1 - k} if answered else {})
            for k, text in enumerate(("She smiles.", " She cries."))
        )
    )
    for n, (split, answered) in enumerate((("train", True), ("val", True), ("test_private", False)))
}

MSRVTT_MC = {
    "msrvtt_mc_test.jsonl": lines(
        {"qid": 0, "clip_name": "video7", "options": ["a", "b", "c ", "d", "e"], "answer": 2},
        {"video": "video8", "caption": ["a", "b", "c", "d", "e"], "answer": 4},
    )
}

TIMES = ("00.00.05.930", "00.00.08.320") * 2
OPTIONS = ("He waits.", "SOMEONE's \"here", "Night.", "She sits.", "Day. ")
LSMDC_MC = {  # training and validation have the right sentence first, and no answer
    f"LSMDC16_multiple_choice_{split}.csv": tabs(f"100{number}_F_1", *TIMES, *OPTIONS, *answers[0])
    + "\n"
    + tabs(f"100{number}_F_1", *TIMES, *OPTIONS, *answers[1])
    for number, (split, answers) in enumerate(
        {"train": ((), ()), "valid": ((), ()), "test_randomized": (("2",), ("5",))}.items()
    )
}

FIXTURES: dict[str, Fixture] = {
    "next-qa": Fixture(files=NEXT_QA, mended={BLANKS: 1}),
    "activitynet-qa": Fixture(
        files={
            name: text
            for number, split in enumerate(("train", "val", "test"))
            for name, text in activitynet_qa(split, number).items()
        },
        mended={BLANKS: 3},
    ),
    "msrvtt-qa": Fixture(files=xu_qa(category_id=3), mended={BLANKS: 3}),
    "msvd-qa": Fixture(
        files={**xu_qa(), "youtube_mapping.txt": "AbC_1_9 vid7\nxY_0_2 vid8"}, mended={BLANKS: 3}
    ),
    "msrvtt-mc": Fixture(files=MSRVTT_MC, mended={BLANKS: 1}),
    "lsmdc-mc": Fixture(files=LSMDC_MC, mended={BLANKS: 6}),
    "tvqa": Fixture(files=TVQA, mended={NO_MOMENT: 1, MUTE: 1}, left_out={SPOKEN: 1}),
    "tvqa-plus": Fixture(files=TVQA_PLUS, mended={NO_MOMENT: 1, QUOTED: 2}),
    "how2qa": Fixture(files=HOW2QA, mended={BLANKS: 1, EMPTY_MOMENT: 1}),
    "vlep": Fixture(files=VLEP, mended={BLANKS: 4, EMPTY_MOMENT: 1}),
    "violin": Fixture(
        files=VIOLIN,
        mended={BLANKS: 3},
        left_out={"statements of splits that the card does not have": 4},
    ),
    "violin-value": Fixture(of="violin", files=VIOLIN_VALUE, mended={BLANKS: 3}),
}
