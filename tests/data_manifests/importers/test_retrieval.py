"""What the retrieval importers write: ids, splits, spans and texts."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from importer_fixtures import Fixture
from official_retrieval import CLIP, FIXTURES, MSVD_CAPTIONS, MSVD_LISTS, ONE_QUERY

from mlalign.data_manifests.annotations.dataset_rows import DatasetRows
from mlalign.data_manifests.annotations.row_log import RowLog
from mlalign.data_manifests.building.build import read_official_files
from mlalign.data_manifests.cards.card import load_card
from mlalign.data_manifests.core.errors import ManifestError


def read(name: str, folder: Path, fixture: Fixture | None = None) -> DatasetRows:
    (fixture or FIXTURES[name]).write(folder)
    return read_official_files(load_card(name), folder, RowLog())[0]


def splits(rows: DatasetRows) -> dict[str, str]:
    return {clip_id: clip.split for clip_id, clip in rows.clips.items()}


def texts_of(rows: DatasetRows, clip_id: str) -> list[str]:
    return [text for owner, _, text, *_ in rows.texts.values() if owner == clip_id]


def test_the_given_caption_is_the_one_query_of_a_test_clip(tmp_path):
    rows = read("msrvtt-1k-a-9k", tmp_path)
    assert splits(rows) == {
        "video0": "train",
        "video1": "train",
        "video3": "test",
        "video4": "test",
    }
    assert rows.texts["ret0"] == ("video3", "query", "a cat naps", None, None, "ret0")
    assert texts_of(rows, "video3") == ["a cat naps"]
    assert texts_of(rows, "video1") == ["a cat naps on mat 1", "a cat naps 1"]


def test_the_full_split_is_the_official_one(tmp_path):
    rows = read("msrvtt-full", tmp_path)
    assert splits(rows)["video2"] == "val"
    assert len(rows.texts) == 10


def test_equal_given_captions_stay_apart(tmp_path):
    """MSR-VTT 1k-A has five."""
    rows = read("msrvtt-1k-a-9k", tmp_path)
    assert [rows.texts[key][2] for key in ("ret0", "ret1")] == ["a cat naps", "a cat naps"]


def test_a_clip_in_two_splits_is_refused_with_both_places(tmp_path):
    fixture = FIXTURES["msrvtt-1k-a-9k"]
    lists = {**fixture.files, "MSRVTT_train.9k.csv": "video_id\nvideo0\nvideo3\n"}
    with pytest.raises(
        ManifestError, match=r"MSRVTT_JSFUSION_test.csv, line 2: .*video3.*9k.csv:3"
    ):
        read("msrvtt-1k-a-9k", tmp_path, Fixture(files=lists))


def test_all_faults_are_told_together_with_file_line_and_value(tmp_path):
    files = {
        **FIXTURES["msrvtt-1k-a-9k"].files,
        "MSRVTT_JSFUSION_test.csv": ONE_QUERY + "\nret1,m,video2,\nret3,m,video9",
    }
    with pytest.raises(ManifestError) as error:
        read("msrvtt-1k-a-9k", tmp_path, Fixture(files=files))
    assert "2 faults" in str(error.value)
    assert "MSRVTT_JSFUSION_test.csv, line 4, column sentence: a text is required, got ''" in str(
        error.value
    )
    assert "line 5: expected 4 values, as in the header, got 3" in str(error.value)


@pytest.mark.parametrize("form", ["pickle", "json"])
def test_msvd_is_the_same_from_words_and_from_sentences(form, tmp_path):
    files = dict(FIXTURES["msvd"].files)
    if form == "json":
        del files["raw-captions.pkl"]
        files["captions_msvd.json"] = json.dumps(MSVD_CAPTIONS)
    rows = read("msvd", tmp_path, Fixture(files=files))
    assert splits(rows) == {
        "AbC_1_9": "train",
        "xY-z_0_5": "train",
        "v@l_2_3": "val",
        "t_1_2": "test",
    }
    assert [text_id for text_id in rows.texts if text_id.startswith("t_")] == ["t_1_2#0", "t_1_2#1"]
    assert texts_of(rows, "t_1_2") == ["a dog runs", "a dog runs"]


class Loaded:
    """What no file may make us build."""

    def __reduce__(self):
        return (print, ("loaded",))


def test_a_pickle_that_would_run_code_is_refused(tmp_path, capsys):
    files = {**MSVD_LISTS, "raw-captions.pkl": pickle.dumps({"AbC_1_9": Loaded()})}
    with pytest.raises(ManifestError, match="it wants to load builtins.print"):
        read("msvd", tmp_path, Fixture(files=files))
    assert capsys.readouterr().out == ""


def test_lsmdc_keeps_quotes_and_repeated_clips(tmp_path):
    rows = read("lsmdc", tmp_path)
    assert texts_of(rows, CLIP) == ['SOMEONE "waits.', "He waits."]
    assert splits(rows) == {CLIP: "train", "1002_F_1": "val", "1003_F_1": "test"}


def test_vatex_takes_all_english_captions_of_the_halves(tmp_path):
    rows = read("vatex", tmp_path)
    assert splits(rows) == {
        "a_000001_000011": "train",
        "b_000001_000011": "val",
        "c_000001_000011": "test",
    }
    assert len(texts_of(rows, "c_000001_000011")) == 10


def test_youcook2_clips_are_spans_of_their_videos(tmp_path):
    rows = read("youcook2", tmp_path)
    assert splits(rows) == {
        "xHr8X_0": "val",
        "xHr8X_1": "val",
        "GLd3aX_0": "train",
        "GLd3aX_1": "train",
    }
    clip = rows.clips["xHr8X_1"]
    assert (clip.video_names, clip.start_seconds, clip.end_seconds) == (("xHr8X",), 63.0, 67.0)
    assert texts_of(rows, "GLd3aX_0") == ["spread margarine"]
