"""Reading all that counts as a dataset, writing manifests, and combining several."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from mlalign.data_manifests.core.errors import ManifestError
from mlalign.data_manifests.tables.reader import combine, read_manifest, write_manifest
from mlalign.data_manifests.tables.schema import CLIPS, QUESTIONS, TEXTS, Manifest


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def small_manifest(root: Path, *, name: str = "small", clip_id: str = "a") -> Manifest:
    clips = [{"clip_id": clip_id, "video_path": "x/a.mp4", "split": "train"}]
    text = {"text_id": "t", "clip_id": clip_id, "kind": "query", "text": "ünïcode \u2028 text"}
    span = {"start_seconds": 0.1, "end_seconds": 0.3, "split": "train"}
    asked = {"question_id": "q", "clip_id": clip_id, "kind": "open_ended", "question": "what?"}
    return Manifest(
        name=name,
        videos_root=root,
        clips=pa.Table.from_pylist(clips, schema=CLIPS),
        texts=pa.Table.from_pylist([text | span], schema=TEXTS),
        questions=pa.Table.from_pylist([{**asked, "split": "train"}], schema=QUESTIONS),
    )


def test_a_folder_of_videos_is_a_dataset_of_clips(tmp_path: Path) -> None:
    touched(tmp_path, "b.mp4", "a.MKV", "sub/deep/c d.webm", "notes.txt", "x.gif", ".hidden.mp4")
    touched(tmp_path, ".git/d.mp4", "sub/._e.mp4", "folder.mp4/f.mp4")
    manifest = read_manifest(tmp_path)
    paths = ["a.MKV", "b.mp4", "folder.mp4/f.mp4", "sub/deep/c d.webm"]
    assert manifest.clips["clip_id"].to_pylist() == paths
    assert manifest.clips["video_path"].to_pylist() == paths
    assert manifest.splits == ("all",)
    assert manifest.name == tmp_path.name
    assert all(manifest.video_file(path).is_file() for path in paths)
    assert manifest.texts.num_rows == manifest.questions.num_rows == 0


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    touched(tmp_path, "in/a.mp4", "out/b.mp4")
    (tmp_path / "in" / "up").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "other").symlink_to(tmp_path / "out")
    (tmp_path / "in" / "self.mp4").symlink_to("self.mp4")
    ids = read_manifest(tmp_path / "in").clips["clip_id"].to_pylist()
    assert ids == ["a.mp4", "other/b.mp4", "self.mp4"]


def test_a_folder_without_videos_says_so(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no videos in .*looked .*[.]mp4"):
        read_manifest(touched(tmp_path, "a.jpg"))


def test_a_missing_path_says_so(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such file or folder: .*nowhere"):
        read_manifest(tmp_path / "nowhere")


def test_a_file_of_another_kind_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(
        ManifestError, match="expected a folder, a list .*got a file ending in .pdf"
    ):
        read_manifest(touched(tmp_path, "a.pdf") / "a.pdf")


def test_one_video_is_a_dataset(tmp_path: Path) -> None:
    manifest = read_manifest(touched(tmp_path, "a b.mov") / "a b.mov")
    assert manifest.clips["clip_id"].to_pylist() == ["a b.mov"]
    assert manifest.videos_root == tmp_path
    assert manifest.name == "a b"


def test_a_list_skips_comments_and_takes_any_line_ending(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes("\ufeff# videos\r\na.mp4\r\n\r\n  # more\r\nsub/ü b.mp4".encode())
    manifest = read_manifest(path)
    assert manifest.clips["clip_id"].to_pylist() == ["a.mp4", "sub/ü b.mp4"]
    assert manifest.videos_root == tmp_path
    assert read_manifest(path, videos_root=tmp_path.parent).videos_root == tmp_path.parent


def test_a_list_may_lead_out_of_its_folder(tmp_path: Path) -> None:
    inside = tmp_path / "lists"
    inside.mkdir()
    (inside / "list.txt").write_text(f"../a.mp4\n{tmp_path}/videos/b.mp4\nc.mp4\n")
    manifest = read_manifest(inside / "list.txt")
    ids = ["../a.mp4", f"{tmp_path}/videos/b.mp4", "c.mp4"]
    assert manifest.clips["clip_id"].to_pylist() == ids
    files = [manifest.video_file(path) for path in manifest.clips["video_path"].to_pylist()]
    assert files == [tmp_path / "a.mp4", tmp_path / "videos/b.mp4", inside / "c.mp4"]


@pytest.mark.parametrize("text", ["", "\n# nothing\n"])
def test_an_empty_list_says_so(tmp_path: Path, text: str) -> None:
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(ManifestError, match="list.txt: no videos in it"):
        read_manifest(tmp_path / "list.txt")


def test_a_list_names_the_line_of_a_video_given_twice(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.mp4\n\na.mp4\n")
    with pytest.raises(ManifestError, match="list.txt, line 3, .*already in line 1, got 'a.mp4'"):
        read_manifest(tmp_path / "list.txt")


CSV = """video_path, text, start_seconds, end_seconds, split
a.mp4, "a dog, running", 0, 1.5, train

a.mp4,a dog,,,
sub/b.mp4,"two
lines",,,test
"""
JSONL = """{"video_path": "a.mp4", "text": "a dog, running", "start_seconds": 0, "end_seconds": 1.5, "split": "train"}
{"video_path": "a.mp4", "text": "a dog"}
{"video_path": "sub/b.mp4", "text": "two\\nlines", "split": "test"}
"""  # noqa: E501


@pytest.mark.parametrize(("name", "content"), [("t.csv", CSV), ("t.jsonl", JSONL)])
def test_a_table_of_videos_and_texts_is_a_dataset(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8-sig")
    manifest = read_manifest(tmp_path / name)
    assert manifest.clips["clip_id"].to_pylist() == ["a.mp4", "sub/b.mp4"]
    assert manifest.clips["split"].to_pylist() == ["train", "test"]
    texts = manifest.texts.to_pylist()
    assert [row["text_id"] for row in texts] == ["row-1", "row-2", "row-3"]
    assert [row["text"] for row in texts] == ["a dog, running", "a dog", "two\nlines"]
    assert [row["end_seconds"] for row in texts] == [1.5, None, None]
    assert [row["split"] for row in texts] == ["train", "train", "test"]
    assert {row["kind"] for row in texts} == {"caption"}


def test_the_faults_of_a_table_are_named_by_line(tmp_path: Path) -> None:
    rows = [
        "video_path,text,start_seconds,end_seconds,split,mood",
        'a.mp4,"two',
        'lines",0,1,train,',
        "a.mp4,x,one,2,val,",
        ",x,,,train,",
        "b.mp4,x,3,2,,",
        "c.mp4,too,few",
        "d.mp4,,1_0,nan,test,",
    ]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    with pytest.raises(ManifestError) as caught:
        read_manifest(tmp_path / "t.csv")
    columns = "video_path, text, start_seconds, end_seconds, split"
    assert str(caught.value).split("\n  ")[1:] == [
        f"t.csv, line 1, column mood: unknown column; there are: {columns}",
        "t.csv, line 4, column start_seconds: expected a number, got 'one'",
        "t.csv, line 4, column split: expected the split of its clip, train, got 'val'",
        "t.csv, line 5, column video_path: a value is required",
        "t.csv, line 6, column split: a value is required, got nothing",
        "t.csv, line 6, column end_seconds: expected more than start 3, got 2.0",
        "t.csv, line 7: expected 6 values, as in the first line, got 3",
        "t.csv, line 8, column start_seconds: expected a number, got '1_0'",
        "t.csv, line 8, column text: a value is required, got nothing",
        "t.csv, line 8, column end_seconds: expected a finite number of seconds, got nan",
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("video,text\na.mp4,x\n", "column video_path: this column is required"),
        ("video_path,text,text\na.mp4,x,y\n", "column text: this column is given twice"),
        ('video_path,text\na.mp4,"x\n', "line 2: not valid CSV"),
        ("", "no videos in it"),
    ],
)
def test_a_table_with_a_bad_shape_says_so(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(ManifestError, match=said):
        read_manifest(tmp_path / "t.csv")


def test_writing_and_reading_gives_the_same_manifest(tmp_path: Path) -> None:
    manifest = small_manifest(tmp_path / "videos")
    write_manifest(manifest, tmp_path / "sub" / "m")
    again = read_manifest(tmp_path / "sub" / "m")
    assert again.clips.equals(manifest.clips)
    assert again.texts.equals(manifest.texts)
    assert again.questions.equals(manifest.questions)
    assert (again.name, again.videos_root) == ("small", tmp_path / "videos")


def test_the_same_manifest_is_the_same_bytes_and_moves_with_its_videos(tmp_path: Path) -> None:
    contents = []
    for place in ("one", "two"):
        write_manifest(small_manifest(tmp_path / place / "v"), tmp_path / place / "m")
        files = sorted((tmp_path / place / "m").iterdir())
        contents.append([(file.name, file.read_bytes()) for file in files])
    assert contents[0] == contents[1]
    names = ["clips.parquet", "dataset.yaml", "questions.parquet", "texts.parquet"]
    assert [name for name, _ in contents[0]] == names


def test_what_breaks_a_rule_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="clips.parquet, row 1, column clip_id"):
        write_manifest(small_manifest(tmp_path, clip_id=""), tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_tables_in_json_lines_are_not_joined_by_parquet(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="already has texts.jsonl"):
        write_manifest(small_manifest(tmp_path), touched(tmp_path / "m", "texts.jsonl"))


def test_the_videos_may_lie_elsewhere(tmp_path: Path) -> None:
    write_manifest(small_manifest(tmp_path / "gone"), tmp_path / "m")
    assert read_manifest(tmp_path / "m", videos_root=tmp_path).videos_root == tmp_path
    with pytest.raises(ManifestError, match="folder of the videos does not exist"):
        read_manifest(tmp_path / "m", videos_root=tmp_path / "nowhere")
    with pytest.raises(ManifestError, match="holds the videos itself"):
        read_manifest(touched(tmp_path / "v", "a.mp4"), videos_root=tmp_path)


def test_combining_keeps_every_video_reachable(tmp_path: Path) -> None:
    first = small_manifest(tmp_path / "one" / "deep", name="first", clip_id="a")
    second = small_manifest(tmp_path / "two", name="second", clip_id="b")
    both = combine([first, second])
    assert both.videos_root == tmp_path
    paths = both.clips["video_path"].to_pylist()
    assert paths == ["one/deep/x/a.mp4", "two/x/a.mp4"]
    assert both.texts["text_id"].to_pylist() == ["1:t", "2:t"]
    assert both.questions["question_id"].to_pylist() == ["1:q", "2:q"]
    write_manifest(both, tmp_path / "m")


def test_combining_one_changes_nothing(tmp_path: Path) -> None:
    manifest = small_manifest(tmp_path)
    assert combine([manifest]) is manifest


def test_combining_the_same_clip_twice_names_both(tmp_path: Path) -> None:
    manifests = [small_manifest(tmp_path / name, name=name) for name in ("one", "two")]
    with pytest.raises(ManifestError, match="clip 'a' is in both one .* and two "):
        combine(manifests)


def test_a_table_without_texts_names_parts_of_videos(tmp_path: Path) -> None:
    table = tmp_path / "parts.csv"
    table.write_text(
        "video_path,start_seconds,end_seconds\na.mp4,1.5,4\na.mp4,4,9.25\nb.mp4,,\nc.mp4,3,\n"
    )
    manifest = read_manifest(table)
    assert manifest.clips.select(["clip_id", "video_path", "start_seconds"]).to_pylist() == [
        {"clip_id": "a.mp4#1.5-4", "video_path": "a.mp4", "start_seconds": 1.5},
        {"clip_id": "a.mp4#4-9.25", "video_path": "a.mp4", "start_seconds": 4.0},
        {"clip_id": "b.mp4", "video_path": "b.mp4", "start_seconds": None},
        {"clip_id": "c.mp4#3-", "video_path": "c.mp4", "start_seconds": 3.0},
    ]
    assert manifest.splits == ("all",)
    assert manifest.texts.num_rows == 0


def test_the_faults_of_parts_are_named_by_line(tmp_path: Path) -> None:
    table = tmp_path / "parts.jsonl"
    rows = [
        {"video_path": "a.mp4", "start_seconds": 4, "end_seconds": 1},
        {"video_path": "a.mp4", "start_seconds": 0, "end_seconds": 1},
        {"video_path": "a.mp4", "start_seconds": 0, "end_seconds": 1},
        {"start_seconds": 0, "end_seconds": 1},
    ]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ManifestError) as caught:
        read_manifest(table)
    message = str(caught.value)
    for line in ("line 1, column end_seconds", "line 3, column clip_id", "line 4, column video"):
        assert line in message
