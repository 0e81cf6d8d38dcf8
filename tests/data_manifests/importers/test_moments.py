"""What the moment importers write: spans in seconds of the clip, ids and splits."""

from __future__ import annotations

import json
import random
from fractions import Fraction
from pathlib import Path

import pytest
from importer_fixtures import Fixture, lines
from official_moments import DIDEMO, EMPTY, FIXTURES, TVR

from mlalign.data_manifests.annotations.dataset_rows import DatasetRows
from mlalign.data_manifests.annotations.row_log import Row, RowLog
from mlalign.data_manifests.building.build import build_dataset, read_official_files
from mlalign.data_manifests.building.export import export_manifest
from mlalign.data_manifests.building.video_matching import match_videos
from mlalign.data_manifests.cards.card import load_card
from mlalign.data_manifests.core.errors import ManifestError
from mlalign.data_manifests.importers.didemo import chosen_chunks, video_names
from mlalign.data_manifests.tables.reader import read_manifest

# As ActivityNet and TACoS have a video; the latter with a rate, so that frames are seconds.
CAPTION = {"duration": 9, "timestamps": [[0, 5]], "sentences": ["x"], "fps": 1, "num_frames": 9}
ONE_EMPTY = {**CAPTION, "timestamps": [[5, 5]]}


def read(name: str, folder: Path, **changed: str) -> DatasetRows:
    Fixture(files={**FIXTURES[name].files, **changed}).write(folder)
    return read_official_files(load_card(name), folder, RowLog())[0]


def spans(rows: DatasetRows) -> dict[str, tuple[float, float]]:
    return {name: (row[3], row[4]) for name, row in rows.texts.items()}


def test_moments_beyond_the_video_are_cut_and_those_without_length_left_out(tmp_path):
    rows = read("activitynet-moments", tmp_path)
    assert spans(rows) == {
        "v_abc#0": (0.5, 20.1),
        "v_abc#1": (30.0, 61.2),
        "v_d-f#0": (0.0, 30.0),
        "v_g#0": (1.0, 2.0),
        "v_g@val_2#0": (1.0, 3.0),
    }
    assert rows.texts["v_abc#1"][2] == "He eats."


def test_val_2_annotates_videos_of_val_1_as_clips_of_its_own(tmp_path):
    rows = read("activitynet-moments", tmp_path)
    assert [rows.clips[name].split for name in ("v_g", "v_g@val_2")] == ["val_1", "val_2"]
    assert rows.clips["v_g@val_2"].video_names == ("v_g",)


def test_a_paragraph_has_all_sentences_in_file_order_and_segments_have_theirs(tmp_path):
    rows = read("activitynet-paragraph", tmp_path)
    assert rows.texts["v_abc"][:3] == ("v_abc", "paragraph", "A man bakes. He eats. He waits.")
    assert spans(rows)["v_abc"] == (None, None)
    assert set(rows.texts) == {"v_abc", "v_abc#0", "v_abc#1", "v_d-f", "v_d-f#0", "v_g", "v_g#0"}


def test_lists_of_other_lengths_are_refused(tmp_path):
    train = '{"v_a": {"duration": 5, "timestamps": [[0, 1]], "sentences": ["a", "b"]}}'
    with pytest.raises(ManifestError, match="item 2: 'v_a': expected as many timestamps as sent"):
        read("activitynet-moments", tmp_path, **{"train.json": train})


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("activitynet-moments", {"train.json": json.dumps({"v_a": ONE_EMPTY, "v_b": CAPTION})}),
        ("charades-sta", {"charades_sta_train.txt": "v_a 5.0 5.0##x.\nv_b 0.0 5.0##x."}),
        ("tacos", {"train.json": json.dumps({"v_a": ONE_EMPTY, "v_b": CAPTION})}),
    ],
)
def test_a_video_of_which_no_moment_has_a_length_is_a_clip_without_queries(name, changed, tmp_path):
    """The official numbers of videos, which the cards state, count it."""
    counts = read(name, tmp_path, **changed).counts(frozenset({"query"}))["train"]
    assert (counts.clips, counts.texts) == (2, 1)


@pytest.mark.parametrize("key", ["", " ", "\ud800", "a\0b", "a\nb"])
@pytest.mark.parametrize(
    ("name", "file", "value"),
    [
        ("activitynet-moments", "train.json", CAPTION),
        ("tacos", "train.json", CAPTION),
        ("tvr", "tvr_video2dur_idx.json", {"v": [5, 0]}),
    ],
)
def test_a_name_that_is_no_id_is_refused(name, file, value, key, tmp_path):
    content = {"train": {key: [5, 0]}} if name == "tvr" else {key: value}
    with pytest.raises(ManifestError, match=rf"{file}, item 1.*expected .*id"):
        read(name, tmp_path, **{file: json.dumps(content)})


def test_an_entry_that_is_there_twice_is_refused(tmp_path):
    """JSON takes the last one: the sentences of the first would be gone without a word."""
    entry = json.dumps(CAPTION)
    with pytest.raises(ManifestError, match=r"train.json: not valid JSON \('v_a' is there twice"):
        read("tacos", tmp_path, **{"train.json": f'{{"v_a": {entry}, "v_a": {entry}}}'})


def test_a_clip_in_another_span_is_refused(tmp_path):
    record = {"qid": 1, "query": "a", "vid": "v", "relevant_windows": [[0, 2]]}
    records = lines({**record, "duration": 150}, {**record, "qid": 2, "duration": 100})
    with pytest.raises(ManifestError, match=r"the clip 'v' is \[0, 100\) here and \[0, 150\) at"):
        read("qvhighlights", tmp_path, **{"highlight_train_release.jsonl": records})


def test_charades_moments_are_cut_at_the_length_and_sentences_may_have_hashes(tmp_path):
    rows = read("charades-sta", tmp_path)
    assert spans(rows) == {
        "AO8RW#0": (0.0, 6.9),
        "AO8RW#1": (8.2, 30.5),
        "Y6R7T#1": (2.0, 20.0),
        "3MSZA#0": (24.3, 30.4),
    }
    assert rows.texts["Y6R7T#1"][2] == "a##b."


def test_charades_builds_without_the_tables_of_lengths(tmp_path):
    fixture = dict(FIXTURES["charades-sta"].files)
    del fixture["Charades_v1_train.csv"]
    Fixture(files=fixture).write(tmp_path)
    rows, _ = read_official_files(load_card("charades-sta"), tmp_path, RowLog())
    assert spans(rows)["AO8RW#1"] == (8.2, 33.0)


def test_a_query_with_several_windows_is_several_texts_and_counts_once(tmp_path):
    rows = read("qvhighlights", tmp_path)
    assert spans(rows) == {
        "1/0": (10.0, 20.0),
        "1/1": (30.0, 40.0),
        "2": (0.0, 150.0),
        "3": (0.0, 2.0),
        "4": (None, None),
    }
    assert rows.counts(frozenset({"query"}))["train"].texts == 2


def test_qvhighlights_goes_back_to_its_own_files(tmp_path):
    FIXTURES["qvhighlights"].write(tmp_path / "files")
    card, out = load_card("qvhighlights"), tmp_path / "m"
    build_dataset(card, annotations=tmp_path / "files", videos=None, out=out, partial=True)
    export_manifest(read_manifest(out), tmp_path / "back", peer="qvhighlights")
    for split in ("train", "val"):
        name = f"highlight_{split}_release.jsonl"
        there, back = (
            [json.loads(line) for line in (tmp_path / folder / name).read_text().splitlines()]
            for folder in ("files", "back")
        )
        for first, second in zip(there, back, strict=True):
            assert first["query"].strip() == second["query"]
            assert [first[key] for key in ("qid", "duration", "vid")] == [
                second[key] for key in ("qid", "duration", "vid")
            ]
        assert back[0]["relevant_windows"] == there[0]["relevant_windows"]


def test_a_corpus_has_the_clips_that_no_query_is_about(tmp_path):
    rows = read("tvr", tmp_path)
    assert {name: clip.split for name, clip in rows.clips.items()} == {
        "s_01_clip_00": "train",
        "s_01_clip_01": "train",
        "t_01_clip_00": "val",
        "u_01_clip_00": "test_public",
        "w_01_clip_00": "test_challenge",
    }


def test_a_split_of_durations_that_is_no_object_is_refused(tmp_path):
    with pytest.raises(ManifestError, match=r"column train: expected clips with .*, got \[1\]"):
        read("tvr", tmp_path, **{"tvr_video2dur_idx.json": json.dumps({"train": [1]})})


def test_tvr_builds_without_the_table_of_durations_and_says_which_splits_it_lacks(tmp_path):
    files = {name: text for name, text in TVR.items() if name != "tvr_video2dur_idx.json"}
    Fixture(files=files).write(tmp_path)
    rows, official = read_official_files(load_card("tvr"), tmp_path, RowLog())
    assert set(rows.clips) == {"s_01_clip_00", "t_01_clip_00"}
    table = ("tvr_video2dur_idx.json",)
    assert official.absent == {"test_public": table, "test_challenge": table}


def test_subtitles_are_texts_of_their_own_kind(tmp_path):
    rows = read("tvr", tmp_path)
    assert rows.texts["s_01_clip_00@0"][:5] == (
        "s_01_clip_00",
        "subtitle",
        "Hello you",
        0.5,
        2.0,
    )
    assert rows.counts(frozenset({"query"}))["train"].texts == 2


def test_half_a_character_in_a_subtitle_becomes_a_question_mark(tmp_path):
    """JSON can spell a lone surrogate, no table can hold one."""
    said = {"vid_name": "s_01_clip_00", "sub": [{"text": "a\ud800", "start": 0, "end": 1}]}
    changed = {"tvqa_preprocessed_subtitles.jsonl": lines(said)}
    assert read("tvr", tmp_path, **changed).texts["s_01_clip_00@0"][2] == "a?"


def test_subtitles_may_be_a_folder_of_srt_files(tmp_path):
    files = {name: text for name, text in TVR.items() if "subtitles" not in name}
    srt = "1\r\n00:00:01,500 --> 00:00:02,750\r\nHello\r\nyou\r\n\r\n"
    srt += "2\r\n00:01:00,000 --> 00:01:00,100 X:1\r\nBye"
    Fixture(
        files={
            **files,
            "tvqa_subtitles/s_01_clip_00.srt": srt,
            "tvqa_subtitles/other.srt": srt,
        }
    ).write(tmp_path)
    row_log = RowLog()
    rows, _ = read_official_files(load_card("tvr"), tmp_path, row_log)
    assert rows.texts["s_01_clip_00@0"][2:5] == ("Hello you", 1.5, 2.75)
    assert rows.texts["s_01_clip_00@1"][2:5] == ("Bye", 60.0, 60.1)
    assert row_log.left_out["subtitles of clips that no split has"].count == 2


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
def test_srt_files_are_utf_8_or_as_their_authors_read_them(encoding, tmp_path):
    row_log = RowLog()
    files = {name: text for name, text in TVR.items() if "subtitles" not in name}
    srt = "1\n00:00:01,500 --> 00:00:02,750\nCafé déjà\n".encode(encoding)
    Fixture(files={**files, "tvqa_subtitles/s_01_clip_00.srt": srt}).write(tmp_path)
    rows, _ = read_official_files(load_card("tvr"), tmp_path, row_log)
    assert rows.texts["s_01_clip_00@0"][2] == "Café déjà"
    note = "files of subtitles that are no UTF-8 text, read as Latin-1 or UTF-16"
    assert (note in row_log.mended) == (encoding in ("latin-1", "utf-16"))


def test_a_broken_srt_block_is_refused_with_its_line(tmp_path):
    files = {name: text for name, text in TVR.items() if "subtitles" not in name}
    srt = "1\n00:00:01,500 --> 00:00:02,750\nHello\n\n2\n00:01 -> 02\nBye\n"
    Fixture(files={**files, "tvqa_subtitles/s_01_clip_00.srt": srt}).write(tmp_path)
    with pytest.raises(ManifestError, match=r"s_01_clip_00.srt, line 5: expected a number, then"):
        read_official_files(load_card("tvr"), tmp_path, RowLog())


def test_a_didemo_moment_is_what_most_annotators_chose(tmp_path):
    """Of several the one that overlaps all choices most: [0, 1] against [0, 0], [1, 1] ..."""
    rows = read("didemo-moments", tmp_path)
    assert spans(rows) == {
        "1": (5.0, 10.0),
        "2": (0.0, 10.0),
        "3": (0.0, 30.0),
        "7": (10.0, 30.0),
        "9": (0.0, 5.0),
    }


def test_the_chosen_chunks_are_those_of_a_loop_in_whole_numbers():
    """Draws of four, five and seven of the 21 moments; moments in order, so the earliest wins."""
    moments = [(first, last) for first in range(6) for last in range(first, 6)]
    rng = random.Random(0)
    draws = [rng.choices(moments, k=k) for k in (4, 5, 7) for _ in range(200)]
    draws += [[(1, 3), (3, 3), (0, 2), (1, 2), (2, 2)]]  # equal, but not in floating point
    row = Row(RowLog(), "train_data.json", 1, {})
    for times in draws:
        best, chosen = (0, Fraction(0)), (0, 0)
        for first, last in moments:
            own = set(range(first, last + 1))
            votes, total = times.count((first, last)), Fraction(0)
            for start, end in times:
                other = set(range(start, end + 1))
                total += Fraction(len(own & other), len(own | other))
            if votes and (votes, total) > best:
                best, chosen = (votes, total), (first, last)
        assert chosen_chunks(times, row) == chosen


def test_a_list_keeps_the_videos_that_it_has_with_extension_or_without(tmp_path):
    rows = read("didemo-paragraph-ce", tmp_path)
    assert set(rows.clips) == {"12@N00_34_ab.mov", "5@N01_6_c.3gp", "7@N02_8_d.mp4"}


def test_without_lists_all_videos_of_the_official_files_are_there(tmp_path):
    assert len(read("didemo-paragraph", tmp_path).clips) == 4


def test_an_annotation_of_two_splits_is_two_texts_and_said(tmp_path):
    row_log = RowLog()
    one = json.loads(DIDEMO["train_data.json"])[:1]
    files = {"train_data.json": one, "val_data.json": [one[0] | {"video": "9@N01_1_x.mov"}]}
    Fixture(files={name: json.dumps(items) for name, items in files.items()}).write(tmp_path)
    rows, _ = read_official_files(load_card("didemo-moments"), tmp_path, row_log)
    own = str(one[0]["annotation_id"])
    assert list(rows.texts) == [own, f"{own}@val"]
    assert row_log.mended["ids that another split has, too, became ID@SPLIT"].count == 1


def test_didemo_videos_are_found_with_and_without_user_and_extension(tmp_path):
    rows = read("didemo-paragraph-ce", tmp_path)
    names = ("12@N00_34_ab.mov", "34_ab.mov", "12@N00_34_ab", "34_ab")
    assert rows.clips["12@N00_34_ab.mov"].video_names == names
    assert rows.texts["12@N00_34_ab.mov"][2] == "a cat jumps it sleeps"


@pytest.mark.parametrize(
    "file",
    [
        "12@N00_34_ab.mov",
        "12@N00_34_ab.mov.mp4",
        "12@N00_34_ab.mp4",
        "34_ab.mov",
        "34_ab.mp4",
        "train/34_ab.avi",
    ],
)
def test_didemo_videos_are_found_as_they_lie_on_disks(file, tmp_path):
    for name in (file, "13@N00_35_ab.mov"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert match_videos(tmp_path, {"clip": video_names("12@N00_34_ab.mov")}) == {"clip": file}


def test_tacos_frames_become_seconds(tmp_path):
    rows = read("tacos", tmp_path)
    assert spans(rows)["s1-d0.avi#0"] == (10.0, 20.0)
    assert spans(rows)["s1-d0.avi#1"] == pytest.approx((300 / 29.4, 100.0))


def test_how2r_moments_become_seconds_of_the_clip(tmp_path):
    rows = read("how2r", tmp_path)
    clip = rows.clips["ab_c-1_10_70.5"]
    assert (clip.video_names[0], clip.start_seconds, clip.end_seconds) == ("ab_c-1", 10.0, 70.5)
    assert spans(rows)["ab_c-1_10_70.5#0"] == (2.5, 10.0)
    assert spans(rows)["ab_c-1_10_70.5#1"] == (50.0, 60.5)
    assert rows.texts["ab_c-1_10_70.5#0"][2] == 'mix, "well"'


def test_a_how2r_query_whose_moment_has_no_length_still_counts(tmp_path):
    """The official sizes are those of the files' lines."""
    rows = read("how2r", tmp_path)
    assert rows.texts["d_0_60#0"][1:5] == ("query", "wait", None, None)
    assert rows.counts(frozenset({"query"}))["val"].texts == 2


def test_clips_that_differ_in_a_late_digit_are_two(tmp_path):
    table = "v,[1234.561:1300],[1240:1250],a\nv,[1234.562:1300.0],[1240:1250],b\n"
    rows = read("how2r", tmp_path, **{"how2R_train_release.csv": table})
    assert [clip for clip in rows.clips if clip.startswith("v")] == [
        "v_1234.561_1300",
        "v_1234.562_1300",
    ]


def test_a_query_id_that_comes_twice_is_refused(tmp_path):
    record = {"qid": 3, "query": "a", "duration": 150, "vid": "c", "relevant_windows": [[0, 2]]}
    with pytest.raises(ManifestError, match=r"val_release.jsonl, line 2: the text '3' is there tw"):
        read("qvhighlights", tmp_path, **{"highlight_val_release.jsonl": lines(record, record)})


OWN_CARD = """
name: own
title: moments of one's own
tasks: [moments]
importer: moments_csv
files:
  train: {names: [train.csv], split: train}
  test: {names: [test.csv], split: test}
where: here
licence: ours
splits: {train: {}, test: {}}
test_split: test
queries: each_sentence
moments: {}
"""
HEADER = "who,video,start_seconds,end_seconds,sentence\n"
OWN_TRAIN = HEADER + 'x,a,1.5,4,"a cat, asleep"\nx,a,-1,2, it wakes \nx,b,3,3,nothing\n'


def read_own(folder: Path, row_log: RowLog, **files: str) -> DatasetRows:
    (folder / "own.yaml").write_text(OWN_CARD)
    own = {"train.csv": OWN_TRAIN, "test.csv": HEADER + "y,c,0,2,a bird"}
    Fixture(files={**own, **files}).write(folder)
    return read_official_files(load_card(str(folder / "own.yaml")), folder, row_log)[0]


def test_moments_of_ones_own_are_read_from_a_table_for_each_split(tmp_path):
    row_log = RowLog()
    rows = read_own(tmp_path, row_log)
    assert {name: clip.split for name, clip in rows.clips.items()} == {
        "a": "train",
        "b": "train",
        "c": "test",
    }
    assert spans(rows) == {"a#0": (1.5, 4.0), "a#1": (0.0, 2.0), "c#0": (0.0, 2.0)}
    assert [rows.texts[name][1:3] for name in ("a#0", "a#1")] == [
        ("query", "a cat, asleep"),
        ("query", "it wakes"),
    ]
    assert {note: counted.count for note, counted in row_log.left_out.items()} == {EMPTY: 1}
    assert sorted(counted.count for counted in row_log.mended.values()) == [1, 1]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("y,c,0,two,a bird", "line 2, column end_seconds: expected a finite number, got 'two'"),
        ("y,,0,2,a bird", "line 2, column video: expected an id, got ''"),
        ("y,c,0,2,", "line 2, column sentence: a text is required"),
        ("y,c,0,2", "line 2: expected 5 values, as in the header, got 4"),
        (
            "y,a,0,2,a bird",
            "line 2: the clip 'a' is in split test here and in train at train.csv:2",
        ),
    ],
)
def test_a_wrong_row_of_ones_own_table_is_refused_with_its_line(row, problem, tmp_path):
    with pytest.raises(ManifestError, match=f"test.csv, {problem}"):
        read_own(tmp_path, RowLog(), **{"test.csv": HEADER + row})


def test_a_column_that_a_table_of_ones_own_lacks_is_named(tmp_path):
    with pytest.raises(ManifestError, match="without start_seconds, end_seconds"):
        read_own(tmp_path, RowLog(), **{"test.csv": "video,start,end,sentence\nc,0,2,a bird"})


def test_a_table_of_ones_own_cut_or_changed_anywhere_is_read_or_refused(tmp_path):
    read_own(tmp_path, RowLog())
    card, num_read = load_card(str(tmp_path / "own.yaml")), 0
    for place in range(len(OWN_TRAIN)):
        other = '"{,0\t'[place % 5]
        for changed in (OWN_TRAIN[:place], OWN_TRAIN[:place] + other + OWN_TRAIN[place + 1 :]):
            (tmp_path / "train.csv").write_text(changed)
            try:
                read_official_files(card, tmp_path, RowLog())
                num_read += 1
            except ManifestError:
                pass
    assert num_read
