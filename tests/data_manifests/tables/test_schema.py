"""The manifest's rules: each broken one is a fault with its table, row, column and value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlalign.data_manifests.core.errors import ManifestError
from mlalign.data_manifests.tables.reader import read_manifest
from mlalign.data_manifests.tables.schema import CLIPS, QUESTIONS, TEXTS, Manifest

Row = dict[str, Any]


def clip(**changes: Any) -> Row:
    row = {"clip_id": "a", "video_path": "a.mp4", "start_seconds": 1.0, "end_seconds": 5.0}
    return {**row, "split": "train", **changes}


def text(**changes: Any) -> Row:
    return {"text_id": "t", "clip_id": "a", "kind": "caption", "text": "a dog", **changes}


def choice(**changes: Any) -> Row:
    row = {"question_id": "q", "clip_id": "a", "kind": "multiple_choice", "question": "what?"}
    return {**row, "options": ["dog", "cat"], "answer_index": 1, **changes}


def open_ended(**changes: Any) -> Row:
    row = {"question_id": "q", "clip_id": "a", "kind": "open_ended", "question": "what?"}
    return {**row, "answer": "dog", **changes}


def without(row: Row, name: str) -> Row:
    return {key: value for key, value in row.items() if key != name}


def written(folder: Path, **tables: list[Row]) -> Path:
    for name, rows in tables.items():
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return folder


def faults(folder: Path) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        read_manifest(folder)
    head, *lines = str(caught.value).split("\n  ")
    count = f"{len(lines)} fault{'s' if len(lines) > 1 else ''} in {folder}:"
    assert head == count
    return lines


def test_a_good_manifest_has_no_faults(tmp_path: Path) -> None:
    rows = [text(), text(text_id="u", start_seconds=0, end_seconds=4.0)]
    asked = [choice(), open_ended(question_id="r"), choice(question_id="s", answer_index=None)]
    manifest = read_manifest(written(tmp_path, clips=[clip()], texts=rows, questions=asked))
    assert manifest.clips.schema.equals(CLIPS)
    assert manifest.texts.schema.equals(TEXTS)
    assert manifest.questions.schema.equals(QUESTIONS)
    assert manifest.texts["split"].to_pylist() == ["train", "train"]
    assert manifest.questions["split"].to_pylist() == ["train"] * 3


@pytest.mark.parametrize(
    ("row", "column", "problem"),
    [
        (clip(clip_id=None), "clip_id", "a value is required, got nothing"),
        (clip(clip_id=" "), "clip_id", "a value is required, got ' '"),
        (clip(clip_id=7), "clip_id", "expected text, got 7"),
        (clip(clip_id="\ud800"), "clip_id", "expected text, got '\\ud800'"),
        (clip(clip_id="z"), "clip_id", "already in line 1, got 'z'"),
        (clip(video_path="/x/a.mp4"), "video_path", "below the videos root, got '/x/a.mp4'"),
        (clip(video_path="../a.mp4"), "video_path", "below the videos root, got '../a.mp4'"),
        (clip(video_path="b/.."), "video_path", "below the videos root, got 'b/..'"),
        (clip(video_path="C:\\a.mp4"), "video_path", "below the videos root"),
        (clip(video_path="http://x/a"), "video_path", "below the videos root"),
        (clip(video_path="a\0b"), "video_path", "below the videos root, got 'a\\x00b'"),
        (clip(start_seconds="1"), "start_seconds", "expected a number, got '1'"),
        (clip(start_seconds=True), "start_seconds", "expected a number, got True"),
        (clip(start_seconds=10**400), "start_seconds", "expected a number, got 1000"),
        (clip(start_seconds=float("nan")), "start_seconds", "a finite number of seconds, got nan"),
        (clip(end_seconds=float("inf")), "end_seconds", "a finite number of seconds, got inf"),
        (clip(start_seconds=-1), "start_seconds", "expected a time >= 0 seconds, got -1.0"),
        (clip(end_seconds=1), "end_seconds", "expected more than start 1, got 1.0"),
        (clip(start_seconds=None, end_seconds=0), "end_seconds", "expected more than start 0"),
        (clip(split=None), "split", "a value is required, got nothing"),
        (clip(split=["a"]), "split", "expected text, got ['a']"),
    ],
)
def test_a_faulty_clip_is_named(tmp_path: Path, row: Row, column: str, problem: str) -> None:
    [fault] = faults(written(tmp_path, clips=[clip(clip_id="z"), row]))
    assert fault.startswith(f"clips.jsonl, line 2, column {column}: ")
    assert problem in fault


@pytest.mark.parametrize(
    ("row", "column", "problem"),
    [
        (text(text_id="z"), "text_id", "already in line 1, got 'z'"),
        (without(text(), "text_id"), "text_id", "a value is required, got nothing"),
        (text(clip_id="b"), "clip_id", "no such clip, got 'b'"),
        (text(kind="poem"), "kind", "expected one of caption, query, paragraph, subtitle, got 'p"),
        (text(text=""), "text", "a value is required, got ''"),
        (text(text="x" * 500_000, kind=3), "kind", "expected text, got 3"),
        (text(clip_id="b\n\x1b" * 90), "clip_id", "no such clip, got 'b\\n\\x1bb"),
        (text(start_seconds=1), "end_seconds", "needs its end as well as its start, got nothing"),
        (text(end_seconds=1), "start_seconds", "needs its start as well as its end, got nothing"),
        (text(start_seconds=2, end_seconds=1.5), "end_seconds", "more than start 2, got 1.5"),
        (text(start_seconds=0, end_seconds=4.1), "end_seconds", "lasts 4 seconds, got 4.1"),
        (text(split="val"), "split", "expected the split of its clip, train, got 'val'"),
        (text(start_seconds="x" * 90), "start_seconds", f"a number, got '{'x' * 56}..."),
        (text(mood="sad"), "mood", "unknown column; there are: text_id, clip_id, kind"),
    ],
)
def test_a_faulty_text_is_named(tmp_path: Path, row: Row, column: str, problem: str) -> None:
    [fault] = faults(written(tmp_path, clips=[clip()], texts=[text(text_id="z"), row]))
    assert fault.startswith(f"texts.jsonl, line 2, column {column}: ")
    assert problem in fault
    assert len(fault) < 300 and fault.isprintable()


def test_multiple_choice_may_ask_without_words(tmp_path: Path) -> None:
    """Which option describes the clip?"""
    path = written(tmp_path, clips=[clip()], questions=[choice(question="")])
    assert read_manifest(path).questions["question"].to_pylist() == [""]


@pytest.mark.parametrize(
    ("row", "column", "problem"),
    [
        (choice(kind="riddle"), "kind", "expected one of multiple_choice, open_ended"),
        (choice(question=None), "question", "a value is required, got nothing"),
        (choice(answer_index=2), "answer_index", "expected 0 <= index < 2, its options, got 2"),
        (choice(answer_index=-1), "answer_index", "expected 0 <= index < 2, its options, got -1"),
        (choice(answer_index=0.5), "answer_index", "expected a whole number, got 0.5"),
        (choice(options=None, answer_index=None), "options", "needs at least 2 options"),
        (choice(options=["dog"], answer_index=0), "options", "needs at least 2 options"),
        (choice(options=["dog", ""]), "options", "every option needs a text, got ['dog', '']"),
        (choice(options=["dog", None]), "options", "expected a list of text, got ['dog', None]"),
        (choice(options="dog", answer_index=None), "options", "expected a list of text, got 'dog'"),
        (choice(answer="dog"), "answer", "expected the option of answer_index 1, got 'dog'"),
        (open_ended(question=" "), "question", "a value is required, got ' '"),
        (open_ended(options=["dog"]), "options", "an open-ended question has no options"),
        (open_ended(answer_index=0), "answer_index", "an open-ended question has no options"),
        (open_ended(start_seconds=0, end_seconds=9), "end_seconds", "outside its clip"),
    ],
)
def test_a_faulty_question_is_named(tmp_path: Path, row: Row, column: str, problem: str) -> None:
    asked = [choice(question_id="z", answer="cat", answer_index=1.0), row]
    fault = faults(written(tmp_path, clips=[clip()], questions=asked))[0]
    assert fault.startswith(f"questions.jsonl, line 2, column {column}: ")
    assert problem in fault


def test_ten_faults_are_reported_at_once_in_order(tmp_path: Path) -> None:
    clips = [clip(), clip(video_path="/a"), clip(clip_id="c", start_seconds=-1, end_seconds=-2)]
    texts = [text(clip_id="b", kind="poem"), text(text_id="u", end_seconds=3), text(text_id="v")]
    asked = [choice(answer_index=9), open_ended(options=["x", ""], question_id=None)]
    found = faults(written(tmp_path, clips=clips, texts=texts, questions=asked))
    places = [fault.split(": ")[0] for fault in found]
    assert places == [
        "clips.jsonl, line 2, column clip_id",
        "clips.jsonl, line 2, column video_path",
        "clips.jsonl, line 3, column start_seconds",
        "clips.jsonl, line 3, column end_seconds",
        "texts.jsonl, line 1, column clip_id",
        "texts.jsonl, line 1, column kind",
        "texts.jsonl, line 2, column start_seconds",
        "questions.jsonl, line 1, column answer_index",
        "questions.jsonl, line 2, column question_id",
        "questions.jsonl, line 2, column options",
    ]


def test_many_faults_are_counted_and_the_first_fifty_shown(tmp_path: Path) -> None:
    texts = [text(text_id=str(row), clip_id="b") for row in range(1234)]
    with pytest.raises(ManifestError) as caught:
        read_manifest(written(tmp_path, clips=[clip()], texts=texts))
    lines = str(caught.value).split("\n")
    assert lines[0].startswith("1,234 faults in ")
    assert len(lines) == 52
    assert lines[-1] == "  and 1,184 more"


def test_lines_are_those_of_the_file_blank_ones_included(tmp_path: Path) -> None:
    rows = [json.dumps(clip()), "", "{not json}", "[1]", "  ", json.dumps(clip())]
    (tmp_path / "clips.jsonl").write_text("\ufeff" + "\r\n".join(rows), encoding="utf-8")
    assert faults(tmp_path) == [
        "clips.jsonl, line 3: not valid JSON (Expecting property name enclosed in double "
        "quotes), got '{not json}'",
        "clips.jsonl, line 4: expected an object {...}, got '[1]'",
        "clips.jsonl, line 6, column clip_id: already in line 1, got 'a'",
    ]


def test_a_key_given_twice_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "clips.jsonl").write_text('{"clip_id": "a", "clip_id": "b"}\n')
    [fault] = faults(tmp_path)
    assert fault.startswith("clips.jsonl, line 1: not valid JSON (a key is given twice)")


def test_bytes_that_are_not_utf8_are_named_by_line(tmp_path: Path) -> None:
    (tmp_path / "clips.jsonl").write_bytes(b'{}\n{"clip_id": "\xff"}\n')
    assert faults(tmp_path) == ["clips.jsonl, line 2: not UTF-8 text; save the file as UTF-8"]


def test_parquet_faults_name_rows_and_columns(tmp_path: Path) -> None:
    clips = pa.table({"clip_id": ["a", "a"], "video_path": [1, 2], "fps": [1, 2]})
    pq.write_table(clips, tmp_path / "clips.parquet")
    texts = pa.table({"text_id": ["t"], "clip_id": ["b"], "kind": ["caption"]})
    pq.write_table(texts, tmp_path / "texts.parquet")
    columns = "clip_id, video_path, start_seconds, end_seconds, split"
    assert faults(tmp_path) == [
        f"clips.parquet, column fps: unknown column; there are: {columns}",
        "clips.parquet, column video_path: expected text, the column is int64",
        "clips.parquet, row 2, column clip_id: already in row 1, got 'a'",
        "texts.parquet, column text: this column is required, but is missing",
        "texts.parquet, row 1, column clip_id: no such clip, got 'b'",
    ]


def test_parquet_of_other_libraries_is_understood(tmp_path: Path) -> None:
    """Large and dictionary strings, float32 times, pandas' floats for whole numbers with gaps."""
    ids = pa.array(["a", "b"]).dictionary_encode()
    paths = pa.array(["a.mp4", "b.mp4"], pa.large_string())
    ends = pa.array([5, 6], pa.float32())
    clips = pa.table({"clip_id": ids, "video_path": paths, "end_seconds": ends})
    pq.write_table(clips, tmp_path / "clips.parquet")
    asked = pa.table(
        {
            "question_id": ["q", "r"],
            "clip_id": ["a", "b"],
            "kind": ["multiple_choice"] * 2,
            "question": ["what?"] * 2,
            "options": pa.array([["x", "y"]] * 2, pa.large_list(pa.large_string())),
            "answer_index": [1.0, None],
        }
    )
    pq.write_table(asked, tmp_path / "questions.parquet")
    manifest = read_manifest(tmp_path)
    assert manifest.questions["answer_index"].to_pylist() == [1, None]
    assert manifest.clips["end_seconds"].to_pylist() == [5.0, 6.0]
    assert manifest.splits == ("all",)
    asked = asked.set_column(5, "answer_index", pa.array([0.5, float("nan")]))
    pq.write_table(asked, tmp_path / "questions.parquet")
    assert len(faults(tmp_path)) == 2


def test_a_damaged_parquet_file_is_one_fault(tmp_path: Path) -> None:
    (tmp_path / "clips.parquet").write_bytes(b"PAR1 no")
    [fault] = faults(tmp_path)
    assert fault.startswith("clips.parquet: cannot be read: not a sound Parquet file")


def test_tables_are_strict_too(tmp_path: Path) -> None:
    written(tmp_path, clips=[clip()], captions=[text()])
    pq.write_table(pa.table({"clip_id": ["a"], "video_path": ["a"]}), tmp_path / "clips.parquet")
    (tmp_path / "dataset.yaml").write_text("nmae: x\n")
    assert faults(tmp_path) == [
        f"dataset.yaml: 1 problem in the settings ({tmp_path / 'dataset.yaml'}): "
        "nmae: no such setting; did you mean name?",
        "captions.jsonl: unknown table; there are: clips, texts, questions",
        "clips.jsonl: the table is also in clips.parquet; keep one",
    ]


def test_a_manifest_needs_clips(tmp_path: Path) -> None:
    (tmp_path / "dataset.yaml").write_text("name: x\n")
    written(tmp_path, texts=[text()])
    assert faults(tmp_path) == ["clips.parquet: a manifest needs at least one clip"]


def test_a_value_of_a_wrong_schema_is_our_own_mistake(tmp_path: Path) -> None:
    table = pa.table({"clip_id": ["a"]})
    with pytest.raises(AssertionError, match="clips: expected"):
        Manifest(name="x", videos_root=tmp_path, clips=table, texts=table, questions=table)
