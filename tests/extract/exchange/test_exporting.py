"""mlalign-extract export: what is written can be read by other tools, and imported unchanged."""

import json
import tarfile

import h5py
import numpy as np
import pandas
import pytest

from mlalign.extract.cache.contract import CacheError
from mlalign.extract.cache.store import FeatureStore
from mlalign.extract.exchange.exporting import export_features
from mlalign.extract.maintenance.verify import verify_cache

FORMATS = ["npy", "webdataset", "npz", "hdf5"]


def files_in(out, what, form):
    return out / (f"{what}.h5" if form == "hdf5" else what)


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_exported_is_imported_unchanged(
    form, small_cache, small_scenes, mlalign_extract, tmp_path
):
    out, back = tmp_path / "out", tmp_path / "back"
    done = mlalign_extract("export", small_cache, "-o", out, "--format", form, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["num_clips"] == 6
    sources = (files_in(out, "video", form), "--texts", files_in(out, "text", form))
    sources += ("--questions", files_in(out, "questions", form))
    options = ("-o", back, "--manifest", small_scenes, "--fps", "2")
    done = mlalign_extract("import", *sources, *options)
    assert done.exit_code == 0, done.output
    assert verify_cache(back).problems == []
    one, two = FeatureStore.open(small_cache).split(None), FeatureStore.open(back).split(None)
    for name in ("clip_features", "segment_features", "segment_spans", "text_features"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)
    assert one.clip_ids == two.clip_ids and one.text_ids == two.text_ids
    assert one.questions.question_ids == two.questions.question_ids != []
    for name in ("question_features", "option_features", "option_offsets", "answer_indices"):
        parts = (getattr(split.questions, name) for split in (one, two))
        np.testing.assert_array_equal(*parts, err_msg=name)


@pytest.mark.parametrize("level", ["frame", "segment", "clip"])
def test_every_row_has_its_seconds_in_the_index(level, small_cache, tmp_path):
    out = tmp_path / "out"
    done = export_features(small_cache, out, format="npy", level=level)
    store = FeatureStore.open(small_cache)
    split = store.split(None)
    index = pandas.read_parquet(out / "index.parquet")
    assert len(index) == done.num_rows
    for i, clip_id in enumerate(split.clip_ids):
        rows = index[index["key"] == clip_id]
        values = np.load(out / "video" / f"{clip_id}.npy")
        assert values.dtype == np.float16 and rows["row"].tolist() == list(range(len(values)))
        place = slice(split.segment_offsets[i], split.segment_offsets[i + 1])
        if level == "clip":
            np.testing.assert_array_equal(values[0], split.clip_features[i])
            assert rows["end_seconds"].tolist() == [split.clip_durations[i]]
        elif level == "segment":
            np.testing.assert_array_equal(values, split.segment_features[place])
            spans = rows[["start_seconds", "end_seconds"]].to_numpy()
            np.testing.assert_array_equal(spans, split.segment_spans[place])
        else:
            np.testing.assert_array_equal(rows["start_seconds"], np.arange(len(values)) / 2)


def test_the_files_have_the_shapes_that_their_tools_write(small_cache, tmp_path):
    for form in FORMATS:
        export_features(small_cache, tmp_path / form, format=form, level="frame")
    split = FeatureStore.open(small_cache).split(None)
    clip, text, width = split.clip_ids[0], split.text_ids[0], split.text_features.shape[1]
    frames = np.load(tmp_path / f"npy/video/{clip}.npy")
    assert np.load(tmp_path / f"npy/text/{text}.npy").shape == (width,)
    with np.load(tmp_path / f"npz/video/{clip}.npz") as file:
        np.testing.assert_array_equal(file["features"], frames)
    with np.load(tmp_path / f"npz/text/qid{text}.npz") as file:
        assert file["pooler_output"].shape == (width,)
        assert file["last_hidden_state"].shape == (1, width)
    with h5py.File(tmp_path / "hdf5/video.h5") as file:
        np.testing.assert_array_equal(file[clip], frames)
    with h5py.File(tmp_path / "hdf5/text.h5") as file:
        assert file[text].shape == (1, width)
    with tarfile.open(tmp_path / "webdataset/video/00000.tar") as tar:
        assert sorted(tar.getnames()) == sorted(f"{name}.npy" for name in split.clip_ids)


@pytest.mark.parametrize("name", ["../escape", "/etc/x", "a//b", "x" * 300, "a\\b", ".."])
def test_an_id_that_is_no_path_is_refused(name):
    from mlalign.extract.exchange.files import check_names

    with pytest.raises(CacheError, match="cannot be names"):
        check_names([name, "fine/name.mp4"], what="clip", format="npy")
    check_names(["a", "a/b"], what="clip", format="npy")
    with pytest.raises(CacheError, match="1 clip ids"):
        check_names(["a", "a/b"], what="clip", format="hdf5")


def test_nothing_is_left_of_an_export_that_fails(copied_cache, tmp_path):
    (shard, *_) = sorted((copied_cache / "shards").glob("texts-*.h5"))
    shard.write_bytes(b"damaged")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(CacheError, match="damaged"):
        export_features(copied_cache, tmp_path / "out", format="npz", level="frame")
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_with_something_in_it_is_refused(small_cache, mlalign_extract, tmp_path):
    (tmp_path / "mine").write_text("mine")
    done = mlalign_extract("export", small_cache, "-o", tmp_path, "--format", "npy")
    assert done.exit_code == 2 and "not empty" in done.output
