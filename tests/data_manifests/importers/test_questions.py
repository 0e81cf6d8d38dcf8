"""What the question importers write: options, answers, types, spans and ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from importer_fixtures import Fixture
from official_questions import FIXTURES, HOW2QA, xu_qa

from mlalign.data_manifests.annotations.dataset_rows import DatasetRows
from mlalign.data_manifests.annotations.row_log import RowLog
from mlalign.data_manifests.building.build import build_dataset, read_official_files
from mlalign.data_manifests.cards.card import load_card
from mlalign.data_manifests.core.errors import ManifestError
from mlalign.data_manifests.importers.how2 import shuffled
from mlalign.data_manifests.tables.reader import read_manifest


def read(name: str, folder: Path, **changed: str) -> DatasetRows:
    Fixture(files={**FIXTURES[name].files, **changed}).write(folder)
    card = FIXTURES[name].card(name, folder)
    return read_official_files(card, folder, RowLog())[0]


def asked(rows: DatasetRows, question_id: str, *names: str) -> tuple[Any, ...]:
    return tuple(rows.questions[question_id][name] for name in names)


@pytest.mark.parametrize("name", FIXTURES)
def test_every_dataset_of_questions_makes_a_sound_manifest(name, tmp_path):
    FIXTURES[name].write(tmp_path / "files")
    build_dataset(
        FIXTURES[name].card(name, tmp_path),
        annotations=tmp_path / "files",
        videos=None,
        out=tmp_path / "m",
        partial=True,
    )
    manifest = read_manifest(tmp_path / "m")
    assert manifest.questions.num_rows > 0


def test_next_qa_ids_have_the_video_since_numbers_repeat(tmp_path):
    rows = read("next-qa", tmp_path)
    assert {"4000000001_6", "4000000002_6"} <= set(rows.questions)
    assert asked(rows, "4000000001_6", "options", "answer_index", "answer", "type") == (
        ["a", "b, c", "c", "d", "e"],
        2,
        "c",
        "CW",
    )
    assert rows.clips["4000000001"].video_names == ("4000000001", "3238737531")


def test_answers_are_joined_by_id_not_by_order(tmp_path):
    rows = read("activitynet-qa", tmp_path)
    assert asked(rows, "a0_1", "question", "answer", "type", "kind") == (
        "is it red",
        "no",
        "yes/no",
        "open_ended",
    )


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([], "the question 'a0_1' has no answer in the other file"),
        (
            [{"answer": "no", "type": 9, "question_id": "a0_1"}],
            "expected a type from 0 to 8, got 9",
        ),
        (
            [{"answer": "no", "type": 3, "question_id": f"a0_{k}"} for k in (1, 2, 3)],
            "answers of 1 unknown questions, such as 'a0_3'",
        ),
    ],
)
def test_questions_and_answers_must_match(answers, message, tmp_path):
    with pytest.raises(ManifestError, match=message):
        read("activitynet-qa", tmp_path, **{"train_a.json": json.dumps(answers)})


def test_xu_questions_have_clips_by_number_and_types_by_first_word(tmp_path):
    rows = read("msvd-qa", tmp_path)
    assert asked(rows, "1", "clip_id", "question", "answer", "type") == (
        "vid7",
        "what is a Cat doing?",
        "nap",
        "what",
    )
    assert rows.clips["vid7"].video_names == ("AbC_1_9", "vid7")
    assert "video7" in read("msrvtt-qa", tmp_path / "other").clips


def test_msvd_and_msrvtt_files_have_the_same_names_but_are_told_apart(tmp_path):
    with pytest.raises(ManifestError, match="this looks like MSRVTT-QA"):
        read("msvd-qa", tmp_path, **xu_qa(category_id=1))
    with pytest.raises(ManifestError, match="this looks like MSVD-QA"):
        read("msrvtt-qa", tmp_path / "other", **xu_qa())


def test_choices_without_a_question_have_an_empty_one(tmp_path):
    rows = read("msrvtt-mc", tmp_path)
    assert asked(rows, "0", "question", "answer", "options") == ("", "c", ["a", "b", "c", "d", "e"])
    assert asked(rows, "1", "clip_id", "answer_index") == ("video8", 4)


def test_lsmdc_answers_count_from_one(tmp_path):
    rows = read("lsmdc-mc", tmp_path)
    assert asked(rows, "1002_F_1", "answer_index", "answer") == (1, "SOMEONE's \"here")
    assert asked(rows, "1002_F_1/1", "answer_index") == (4,)
    name = "LSMDC16_multiple_choice_test_randomized.csv"
    bad = FIXTURES["lsmdc-mc"].files[name].replace("\t2\n", "\t0\n")
    with pytest.raises(ManifestError, match="the answer is option -1 of 5, counted from 0"):
        read("lsmdc-mc", tmp_path, **{name: bad})


def test_lsmdc_training_does_not_tell_the_answer_by_place(tmp_path):
    rows = read("lsmdc-mc", tmp_path)
    asked_about = [q for q in rows.questions.values() if q["clip_id"] != "1002_F_1"]
    assert len(asked_about) == 4 and all(q["answer"] == "He waits." for q in asked_about)
    assert all(q["options"][q["answer_index"]] == "He waits." for q in asked_about)
    assert len({q["answer_index"] for q in asked_about}) > 1
    unanswered = FIXTURES["lsmdc-mc"].files["LSMDC16_multiple_choice_train.csv"]
    with pytest.raises(ManifestError, match="expected 11 values in the line, got 10"):
        read("lsmdc-mc", tmp_path, **{"LSMDC16_multiple_choice_test_randomized.csv": unanswered})


def test_tvqa_moments_are_text_or_a_list_or_not_there(tmp_path):
    rows = read("tvqa", tmp_path)
    spans = {name: (q["start_seconds"], q["end_seconds"]) for name, q in rows.questions.items()}
    assert spans == {"1": (1.21, 8.49), "2": (None, None), "3": (1.5, 2.5), "4": (0.0, 3.0)}
    assert asked(rows, "4", "answer_index", "answer") == (None, None)
    assert rows.texts["s_01@0"][1:5] == ("subtitle", "Hi", 0.0, 1.0)


def test_tvqa_plus_answers_in_quotes_are_numbers(tmp_path):
    rows = read("tvqa-plus", tmp_path)
    assert asked(rows, "1", "answer_index", "start_seconds") == (3, 1.2)
    assert asked(rows, "2", "answer_index", "start_seconds") == (0, None)


def test_how2qa_has_its_first_line_and_does_not_tell_the_answer_by_place(tmp_path):
    """just-ask takes the first line for a header."""
    rows = read("how2qa", tmp_path)
    assert asked(rows, "train-0", "question", "answer") == ("how many?", "one")
    assert sorted(rows.questions["train-0"]["options"]) == ["no, never", "one", "three", "two"]
    places = [shuffled(["right", "a", "b", "c"], f"val-{k}").index("right") for k in range(2000)]
    assert all(450 < places.count(place) < 550 for place in range(4))


def test_how2qa_options_do_not_depend_on_the_other_lines(tmp_path):
    first = read("how2qa", tmp_path / "a").questions["val-1"]
    lines = HOW2QA["how2QA_val_release.csv"].replace("which color?", "what?")
    again = read("how2qa", tmp_path / "b", **{"how2QA_val_release.csv": lines}).questions["val-1"]
    assert first == again
    assert shuffled(["one", "two", "three", "four"], "val-1") == ["one", "four", "two", "three"]


def test_vlep_events_are_the_options(tmp_path):
    rows = read("vlep", tmp_path)
    assert asked(rows, "5", "options", "answer", "start_seconds", "end_seconds") == (
        ["He goes.", "She stays."],
        "She stays.",
        1.0,
        2.5,
    )
    assert asked(rows, "8", "answer_index") == (None,)


def test_every_violin_statement_is_a_question_of_its_own(tmp_path):
    rows = read("violin", tmp_path)
    assert len(rows.questions) == 3 * 4
    assert asked(rows, "clip1-0-0", "question", "answer") == ("She smiles.", "true")
    assert asked(rows, "clip1-0-1", "question", "answer") == ("She cries.", "false")
    assert rows.clips["clip1"].split == "val"


def test_the_two_forms_of_violin_have_the_same_statements(tmp_path):
    official, value = read("violin", tmp_path / "a"), read("violin-value", tmp_path / "b")
    for name in ("clip0-0-0", "clip0-0-1", "clip1-0-1"):
        assert value.questions[name] == official.questions[name]
    assert asked(value, "clip2-0-1", "answer_index", "question") == (None, "She cries.")
    assert [clip.split for clip in value.clips.values()] == ["train", "val", "test"]


def test_of_violin_in_parts_the_splits_that_are_there_are_built(tmp_path):
    files = dict(FIXTURES["violin-value"].files)
    del files["violin_val_release.jsonl"]
    Fixture(files=files).write(tmp_path)
    _, found = read_official_files(load_card("violin"), tmp_path, RowLog())
    assert found.splits == ("train", "test")
    assert found.absent == {"val": ("violin_annotation.json",)}
