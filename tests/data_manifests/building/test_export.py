"""mlalign-manifest export: other tools' files, nothing left out in silence."""

import csv
import json

import pytest
from click.testing import CliRunner
from official_moments import FIXTURES as MOMENTS
from official_retrieval import FIXTURES as RETRIEVAL

from mlalign.data_manifests.building.build import build_dataset
from mlalign.data_manifests.cards.card import load_card
from mlalign.data_manifests.cli import main
from mlalign.data_manifests.tables.reader import read_manifest


def write_manifest(folder, *, clips, texts, questions=()):
    folder.mkdir()
    (folder / "dataset.yaml").write_text("name: small\n")
    for name, rows in (("clips", clips), ("texts", texts), ("questions", questions)):
        if rows:
            lines = "".join(f"{json.dumps(row)}\n" for row in rows)
            (folder / f"{name}.jsonl").write_text(lines)
    return folder


def clip(name, split, path=None, **more):
    return {"clip_id": name, "video_path": path or f"{name}.mp4", "split": split, **more}


def text(name, of, split, words=None, kind="caption", **more):
    row = {"text_id": name, "clip_id": of, "kind": kind, "text": words or f"about {of}"}
    return {**row, "split": split, **more}


def export(manifest, out, form):
    arguments = ["export", str(manifest), "-o", str(out), "--format", form, "--json"]
    return CliRunner().invoke(main, arguments)


def rows_of(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_clip4clip_gets_its_csv_and_json(tmp_path):
    clips = [clip("a", "train"), clip("b", "train"), clip("c", "test"), clip("d", "test")]
    texts = [
        *(text(f"t{i}", "a", "train", f"words, {i}") for i in range(3)),
        text("u", "b", "train"),
        text("v", "c", "test", 'a "quoted", ünïcode one'),
        text("w", "d", "test"),
    ]
    out = tmp_path / "out"
    done = export(write_manifest(tmp_path / "m", clips=clips, texts=texts), out, "clip4clip")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["left_out"] == []
    assert rows_of(out / "train.csv") == [{"video_id": "a"}, {"video_id": "b"}]
    assert rows_of(out / "test.csv") == [
        {
            "key": "ret0",
            "vid_key": "msr0",
            "video_id": "c",
            "sentence": 'a "quoted", ünïcode one',
        },
        {"key": "ret1", "vid_key": "msr1", "video_id": "d", "sentence": "about d"},
    ]
    data = json.loads((out / "MSRVTT_data.json").read_text(encoding="utf-8"))
    assert [row["video_id"] for row in data["videos"]] == ["a", "b", "c", "d"]
    assert [row["url"] for row in data["videos"]] == ["a", "b", "c", "d"]
    assert [row["video_id"] for row in data["sentences"]] == ["a", "a", "a", "b", "c", "d"]
    assert data["sentences"][1] == {"caption": "words, 1", "video_id": "a", "sen_id": 1}


def test_what_clip4clip_has_no_place_for_is_named(tmp_path):
    clips = [clip("a", "test"), clip("b", "test"), clip("c", "test")]
    texts = [
        text("1", "a", "test"),
        text("2", "a", "test", "another"),
        text("3", "b", "test"),
        text("4", "b", "test", start_seconds=0.0, end_seconds=1.0),
        text("5", "b", "test", kind="subtitle", start_seconds=0.0, end_seconds=1.0),
    ]
    question = {
        "question_id": "q",
        "clip_id": "a",
        "kind": "open_ended",
        "question": "who?",
        "answer": "me",
        "split": "test",
    }
    manifest = write_manifest(tmp_path / "m", clips=clips, texts=texts, questions=[question])
    done = export(manifest, tmp_path / "out", "clip4clip")
    left_out = json.loads(done.stdout)["left_out"]
    assert left_out[:3] == ["1 subtitles", "1 texts of spans", "1 clips of test without a caption"]
    assert "its clips have several" in left_out[3] and left_out[4] == "1 questions"
    assert rows_of(tmp_path / "out" / "test.csv") == [{"video_id": "a"}, {"video_id": "b"}]


@pytest.mark.parametrize(
    ("clips", "why"),
    [
        ([clip("a", "test", start_seconds=1.0, end_seconds=2.0)], "parts of videos"),
        ([clip("a", "test", "x/v.mp4"), clip("b", "test", "y/v.mp4")], "of the same name"),
        ([clip("a", "a/b")], "rename it"),
    ],
)
def test_what_clip4clip_would_read_otherwise_is_refused(clips, why, tmp_path):
    texts = [text(row["clip_id"], row["clip_id"], row["split"]) for row in clips]
    manifest = write_manifest(tmp_path / "m", clips=clips, texts=texts)
    done = export(manifest, tmp_path / "out", "clip4clip")
    assert done.exit_code == 2 and why in done.output, done.output
    assert not (tmp_path / "out").exists()


def test_qvhighlights_gets_a_line_per_query(tmp_path):
    times = {"start_seconds": 0.0, "end_seconds": 150.0}
    clips = [clip("abc_60.0_210.0", "train", **times), clip("def", "val", **times)]
    texts = [
        text("12", "abc_60.0_210.0", "train", "a cat", start_seconds=10.0, end_seconds=20.0),
        text("12b", "abc_60.0_210.0", "train", "a cat", start_seconds=30.5, end_seconds=31.0),
        text("7", "def", "val", "a dog", start_seconds=0.0, end_seconds=2.0),
        text("8", "def", "val", "the whole"),
    ]
    out = tmp_path / "out"
    done = export(write_manifest(tmp_path / "m", clips=clips, texts=texts), out, "qvhighlights")
    assert done.exit_code == 0, done.output
    assert json.loads((out / "highlight_train_release.jsonl").read_text()) == {
        "qid": 12,
        "query": "a cat",
        "duration": 150,
        "vid": "abc_60.0_210.0",
        "relevant_windows": [[10, 20], [30.5, 31]],
        "relevant_clip_ids": [5, 6, 7, 8, 9, 15],
    }
    assert json.loads((out / "highlight_val_release.jsonl").read_text())["qid"] == 7
    left_out = json.loads(done.stdout)["left_out"]
    assert left_out == [
        "1 texts of whole clips, which have no window",
        "saliency_scores, which a manifest does not have",
    ]


def test_videos_that_clip4clip_would_not_find_are_counted(tmp_path):
    clips = [clip("a", "train", "x/a.mp4"), clip("b", "train", "b.avi"), clip("c", "train")]
    texts = [text(row["clip_id"], row["clip_id"], "train") for row in clips]
    manifest = write_manifest(tmp_path / "m", clips=clips, texts=texts)
    (line,) = json.loads(export(manifest, tmp_path / "out", "clip4clip").stdout)["left_out"]
    assert line.startswith("where 2 videos lie")


def test_qvhighlights_needs_the_durations(tmp_path):
    texts = [text("1", "a", "train", start_seconds=0.0, end_seconds=2.0)]
    manifest = write_manifest(tmp_path / "m", clips=[clip("a", "train")], texts=texts)
    done = export(manifest, tmp_path / "out", "qvhighlights")
    assert done.exit_code == 2 and "no end_seconds" in done.output
    assert not (tmp_path / "out").exists()


def test_query_ids_that_are_no_numbers_become_positions(tmp_path):
    times = {"start_seconds": 0.0, "end_seconds": 9.0}
    spans = {"start_seconds": 0.0, "end_seconds": 2.0}
    texts = [text(name, "a", "train", name, **spans) for name in ("one", "7")]
    manifest = write_manifest(tmp_path / "m", clips=[clip("a", "train", **times)], texts=texts)
    assert export(manifest, tmp_path / "out", "qvhighlights").exit_code == 0
    lines = (tmp_path / "out" / "highlight_train_release.jsonl").read_text().splitlines()
    assert [json.loads(line)["qid"] for line in lines] == [0, 1]


@pytest.mark.parametrize(
    ("name", "form", "names"),
    [
        ("qvhighlights", "qvhighlights", {}),
        (
            "msrvtt-1k-a-9k",
            "clip4clip",
            {"train.csv": "MSRVTT_train.9k.csv", "test.csv": "MSRVTT_JSFUSION_test.csv"},
        ),
    ],
)
def test_what_is_exported_is_built_again_unchanged(name, form, names, tmp_path):
    """CLIP4Clip is told the names of its tables; the card has those of its own."""
    fixture, files, found = (MOMENTS | RETRIEVAL)[name], tmp_path / "official", []
    fixture.write(files)
    for turn in ("first", "again"):
        folder = tmp_path / turn
        build_dataset(load_card(name), annotations=files, videos=None, out=folder, partial=True)
        found.append(read_manifest(folder))
        files = tmp_path / f"{turn}-exported"
        assert export(folder, files, form).exit_code == 0
        for own, official in names.items():
            (files / own).rename(files / official)
    for table, key in (("clips", "clip_id"), ("texts", "text_id")):
        one, two = (getattr(manifest, table).sort_by(key) for manifest in found)
        assert one.num_rows > 0 and one.equals(two)
    exported = (tmp_path / f"{turn}-exported" for turn in ("first", "again"))
    one, two = ({path.name: path.read_text() for path in out.iterdir()} for out in exported)
    assert one == two
