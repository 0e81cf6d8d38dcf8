"""mlalign-extract import: imported features become an ordinary cache, bad files failed clips."""

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from mlalign.extract.cache.contract import CacheError
from mlalign.extract.cache.store import FeatureStore
from mlalign.extract.exchange.keys import text_keys
from mlalign.extract.maintenance.verify import verify_cache

WIDTH = 8
CLIPS = [f"video{i}" for i in range(6)]


def features(name, rows=5, width=WIDTH):
    rng = np.random.default_rng(list(name.encode()))
    return rng.normal(size=(rows, width)).astype(np.float16)


@pytest.fixture
def manifest(tmp_path):
    """Six clips of a video each with a caption each."""
    return write_manifest(tmp_path / "manifest", [(name, f"{name}.mp4", {}) for name in CLIPS])


def write_manifest(folder, clips, *, captions=True):
    folder.mkdir()
    (folder / "dataset.yaml").write_text("name: small\nvideos_root: videos\n")
    splits = ["train", "train", "train", "val", "test", "test"]
    rows = [
        {"clip_id": name, "video_path": path, "split": splits[i % 6], **more}
        for i, (name, path, more) in enumerate(clips)
    ]
    (folder / "clips.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    if captions:
        texts = [
            {
                "text_id": str(100 + i),
                "clip_id": row["clip_id"],
                "kind": "caption",
                "text": f"words {i}",
                "split": row["split"],
            }
            for i, row in enumerate(rows)
        ]
        (folder / "texts.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in texts))
    return folder


def npy_bytes(values, **options):
    buffer = io.BytesIO()
    np.save(buffer, values, **options)
    return buffer.getvalue()


def write_source(path, form, names=CLIPS):
    """A fixture of the shape that the format's tools write; the path to import."""
    if form == "hdf5":  # TVR: one dataset per video
        with h5py.File(path.with_suffix(".h5"), "w") as file:
            for name in names:
                file[name] = features(name)
        return path.with_suffix(".h5")
    path.mkdir()
    for name in names:
        if form == "npy":  # video_features
            np.save(path / f"{name}_clip.npy", features(name))
            np.save(path / f"{name}_fps.npy", np.array(25.0))
            np.save(path / f"{name}_timestamps_ms.npy", np.arange(5) * 40.0)
        if form == "npz":  # Moment-DETR, HERO
            np.savez(path / f"{name}.npz", features=features(name))
    if form == "webdataset":  # clip-video-encode
        for number, part in enumerate((names[:4], names[4:])):
            with tarfile.open(path / f"{number:05}.tar", "w") as tar:
                for name in part:
                    contents = {
                        "json": b'{"duration": 5}',
                        "npy": npy_bytes(features(name)),
                        "txt": b"words",
                    }
                    for ending, content in contents.items():
                        member = tarfile.TarInfo(f"{name}.{ending}")
                        member.size = len(content)
                        tar.addfile(member, io.BytesIO(content))
    return path


def frames_of(cache):
    """clip id -> (features as stored, sample_seconds)."""
    found = {}
    for row in FeatureStore.open(cache).clips.to_pylist():
        if row["status"] == "failed":
            continue
        place = slice(row["first_frame_row"], row["first_frame_row"] + row["num_frames"])
        with h5py.File(cache / "shards" / row["shard"], "r") as file:
            seconds = file["frames/sample_seconds"][place]
            found[row["clip_id"]] = file["frames/features"][place], seconds
    return found


def failures(done):
    return json.loads(done.stdout)["failures"]


@pytest.fixture
def importing(mlalign_extract, manifest, tmp_path):
    def run(source, *options, manifest=manifest, cache=tmp_path / "cache", fps="1"):
        rate = ("--fps", fps) if fps else ()
        given = ("-o", cache, "--manifest", manifest, *rate, "--json")
        return mlalign_extract("import", source, *given, *options)

    return run


@pytest.mark.parametrize("form", ["npy", "webdataset", "npz", "hdf5"])
def test_every_format_becomes_a_cache_with_the_same_features(form, importing, tmp_path):
    source = write_source(tmp_path / "source", form)
    done = importing(source, fps="0.5")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["unused"] == []
    cache = tmp_path / "cache"
    for name, (values, seconds) in frames_of(cache).items():
        np.testing.assert_array_equal(values, features(name))
        np.testing.assert_array_equal(seconds, [0.0, 2.0, 4.0, 6.0, 8.0])
    assert verify_cache(cache).problems == []
    store = FeatureStore.open(cache)
    assert store.settings["backbone"] == f"imported: {form}"
    assert store.split("train").clip_durations.tolist() == [10.0] * 3
    assert store.texts.num_rows == 0


def test_running_again_imports_what_is_new_or_changed(importing, tmp_path, files_of):
    source = write_source(tmp_path / "source", "npy", CLIPS[:5])
    done = importing(source)
    assert done.exit_code == 1
    assert list(failures(done)) == ["video5"] and "no features" in failures(done)["video5"]
    before = files_of(tmp_path / "cache")
    again = importing(source)
    assert again.exit_code == 1 and json.loads(again.stdout)["new_clips"] == 0
    assert files_of(tmp_path / "cache") == before
    np.save(source / "video5_clip.npy", features("video5"))  # new
    np.save(source / "video0_clip.npy", features("other", rows=6))  # changed
    os.utime(source / "video1_clip.npy", (1, 1))  # touched only
    done = importing(source)
    assert done.exit_code == 0 and json.loads(done.stdout)["new_clips"] == 2
    np.testing.assert_array_equal(
        frames_of(tmp_path / "cache")["video0"][0], features("other", rows=6)
    )
    assert verify_cache(tmp_path / "cache").problems == []


BAD = {
    "NaN": (npy_bytes(np.array([[1.0, np.nan] * 4])), "NaN or infinite"),
    "infinity": (npy_bytes(np.array([[1.0, np.inf] * 4])), "NaN or infinite"),
    "too large for float16": (npy_bytes(np.full((2, WIDTH), 1e6)), "not finite in float16"),
    "one dimension": (npy_bytes(np.ones(WIDTH)), r"shape \(rows, 8\), got \(8,\)"),
    "three": (npy_bytes(np.ones((1, 2, WIDTH))), "got \\(1, 2, 8\\)"),
    "another width": (npy_bytes(np.ones((2, 9))), "got \\(2, 9\\)"),
    "no rows": (npy_bytes(np.ones((0, WIDTH))), "no values"),
    "whole numbers": (npy_bytes(np.ones((2, WIDTH), int)), "floating-point numbers, got int64"),
    "objects": (npy_bytes(np.array([[{}] * WIDTH])), "Object arrays cannot be loaded"),
    "no array": (b"not an array", "cannot be read"),
    "nothing": (b"", "cannot be read"),
    "cut short": (npy_bytes(features("video0"))[:-3], "cannot be read"),
    "a huge shape": (
        npy_bytes(np.ones((2, WIDTH))).replace(b"(2, 8), }  ", b"(9999999, 8), }")[:300],
        "cannot be read",
    ),
}


@pytest.mark.parametrize("dirt", BAD)
def test_one_bad_file_is_one_failed_clip(dirt, importing, tmp_path):
    content, reason = BAD[dirt]
    source = write_source(tmp_path / "source", "npy")
    (source / "video2_clip.npy").write_bytes(content)
    done = importing(source)
    assert done.exit_code == 1, done.output
    assert list(failures(done)) == ["video2"]
    assert re.search(reason, failures(done)["video2"]), failures(done)
    assert len(frames_of(tmp_path / "cache")) == 5
    assert verify_cache(tmp_path / "cache").problems == []


def test_no_truncation_of_a_file_ends_in_a_traceback(tmp_path):
    from mlalign.extract.exchange.sources import FeatureError, open_source

    for form in ("npy", "npz"):
        source = write_source(tmp_path / form, form, CLIPS[:1])
        (file,) = (p for p in source.iterdir() if "_fps" not in p.name and "_time" not in p.name)
        whole = file.read_bytes()
        key = file.stem
        for length in range(len(whole)):
            file.write_bytes(whole[:length])
            with pytest.raises(FeatureError):
                open_source(source, None, npz_array="features").read(key)


@pytest.mark.filterwarnings("ignore:Reading `.npy`:UserWarning")
@pytest.mark.parametrize("form", ["npy", "npz", "webdataset", "hdf5"])
def test_no_changed_byte_ends_in_a_traceback(form, tmp_path):
    from mlalign.extract.exchange.sources import FeatureError, open_source

    written = write_source(tmp_path / form, form, CLIPS[:1])
    file = written if form == "hdf5" else next(written.glob("video0_clip*"), None)
    file = file or next(written.iterdir())
    whole = file.read_bytes()
    source = tmp_path / "changed"
    if form != "hdf5":
        source.mkdir()
    target = source if form == "hdf5" else source / file.name
    rng = np.random.default_rng(0)
    for place in [*range(0, min(len(whole), 4000), 17), *range(128)]:
        changed = bytearray(whole)
        changed[place] = rng.choice([0, 255, whole[place] ^ 1, ord("9")])
        target.write_bytes(changed)
        with contextlib.suppress(CacheError, FeatureError):
            opened = open_source(source, form, npz_array="features")
            for key in opened.files:
                opened.read(key)


def test_float64_and_big_endian_features_are_stored_as_float16(importing, tmp_path):
    source = write_source(tmp_path / "source", "npy")
    np.save(source / "video0_clip.npy", features("video0").astype(">f8"))
    assert importing(source).exit_code == 0
    values, _ = frames_of(tmp_path / "cache")["video0"]
    assert values.dtype == np.float16
    np.testing.assert_array_equal(values, features("video0"))


def test_features_without_a_clip_are_named(importing, tmp_path):
    source = write_source(tmp_path / "source", "npz", [*CLIPS, "stranger", "escape"])
    done = importing(source)
    assert done.exit_code == 0
    assert json.loads(done.stdout)["unused"] == ["escape", "stranger"]


def test_a_damaged_tar_gives_what_lies_before_the_damage(importing, tmp_path):
    source = write_source(tmp_path / "source", "webdataset")
    tar = source / "00000.tar"
    tar.write_bytes(tar.read_bytes()[:4000])
    done = importing(source)
    assert done.exit_code == 1
    assert "video0" not in failures(done) and "video3" in failures(done)
    (problem,) = json.loads(done.stdout)["problems"]
    assert "00000.tar" in problem


def test_names_and_links_within_tars_and_hdf5_reach_no_file(importing, tmp_path):
    secret = tmp_path / "secret.npy"
    np.save(secret, features("secret"))
    folder = tmp_path / "tars"
    folder.mkdir()
    with tarfile.open(folder / "0.tar", "w") as tar:
        for number, name in enumerate(("../secret.npy", "video0.npy", "video1.npy")):
            member = tarfile.TarInfo(name)
            if number == 1:
                member.type, member.linkname = tarfile.SYMTYPE, str(secret)
            content = npy_bytes(features(name))
            member.size = 0 if number == 1 else len(content)
            tar.addfile(member, None if number == 1 else io.BytesIO(content))
    done = importing(folder)
    assert json.loads(done.stdout)["unused"] == ["../secret"]
    assert sorted(frames_of(tmp_path / "cache")) == ["video1"]
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = features("secret")
    with h5py.File(tmp_path / "links.h5", "w") as file:
        file["video0"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "x")
        file["video1"] = features("video1")
        outside = [(str(secret), 0, h5py.h5f.UNLIMITED)]
        file.create_dataset("video2", shape=(4, WIDTH), dtype="f2", external=outside)
    done = importing(tmp_path / "links.h5", cache=tmp_path / "second")
    assert sorted(frames_of(tmp_path / "second")) == ["video1"]
    assert "other files" in failures(done)["video2"]


def test_clips_are_cut_out_of_the_features_of_their_video(importing, tmp_path):
    part = {"start_seconds": 2.0, "end_seconds": 4.5}
    clips = [("a", "v.mp4", part), ("b", "v.mp4", {}), ("own", "v.mp4", part)]
    manifest = write_manifest(tmp_path / "parts", clips, captions=False)
    source = tmp_path / "source"
    source.mkdir()
    np.save(source / "v.npy", features("v", rows=10))
    np.save(source / "own.npy", features("own", rows=3))
    done = importing(source, manifest=manifest)
    assert done.exit_code == 0, done.output
    found = frames_of(tmp_path / "cache")
    np.testing.assert_array_equal(found["a"][0], features("v", rows=10)[2:5])
    np.testing.assert_array_equal(found["a"][1], [0.0, 1.0, 2.0])
    np.testing.assert_array_equal(found["b"][0], features("v", rows=10))
    np.testing.assert_array_equal(found["own"][0], features("own", rows=3))
    assert FeatureStore.open(tmp_path / "cache").split(None).clip_durations.tolist() == [
        2.5,
        10.0,
        2.5,
    ]


def test_a_rate_that_cannot_be_right_is_told(importing, tmp_path):
    clips = [
        ("long", "long.mp4", {"start_seconds": 0.0, "end_seconds": 10.0}),
        ("late", "v.mp4", {"start_seconds": 60.0, "end_seconds": 70.0}),
        ("short", "w.mp4", {"start_seconds": 0.0, "end_seconds": 10.0}),
    ]
    manifest = write_manifest(tmp_path / "parts", clips, captions=False)
    source = tmp_path / "source"
    source.mkdir()
    for name, rows in (("late", 30), ("v", 10), ("short", 3), ("long", 10)):
        np.save(source / f"{name}.npy", features(name, rows=rows))
    done = importing(source, manifest=manifest)
    assert "is the rate right?" in failures(done)["late"]
    rows = {row["clip_id"]: row for row in FeatureStore.open(tmp_path / "cache").clips.to_pylist()}
    assert rows["long"]["status"] == "ok"
    assert rows["short"]["status"] == "partial"
    assert rows["short"]["reason"] == "3 rows last for 3 s, the clip for 10 s"


def text_source(path, form, ids, width=WIDTH):
    if form == "hdf5":  # TVR: (words, width) per desc_id
        with h5py.File(path.with_suffix(".h5"), "w") as file:
            for name in ids:
                file[name] = features(name, rows=4, width=width)
        return path.with_suffix(".h5")
    path.mkdir()
    for name in ids:
        words = features(name, rows=4, width=width)
        if form == "npy":
            np.save(path / f"{name}.npy", words[0])
        if form == "npz":  # Moment-DETR
            np.savez(path / f"qid{name}.npz", last_hidden_state=words, pooler_output=words[0])
    return path


IDS = [str(100 + i) for i in range(6)]


@pytest.mark.parametrize("form", ["npy", "npz", "hdf5"])
def test_text_features_come_along(form, importing, tmp_path):
    source = write_source(tmp_path / "source", "npy")
    texts = text_source(tmp_path / "texts", form, IDS)
    done = importing(source, "--texts", texts)
    assert done.exit_code == 0, done.output
    split = FeatureStore.open(tmp_path / "cache").split(None)
    for text_id, found in zip(split.text_ids, split.text_features, strict=True):
        words = features(text_id, rows=4)
        wanted = words.astype(np.float64).mean(axis=0) if form == "hdf5" else words[0]
        np.testing.assert_array_equal(found, wanted.astype(np.float16))
    assert verify_cache(tmp_path / "cache").problems == []
    assert json.loads(importing(source, "--texts", texts).stdout)["new_texts"] == 0


def test_texts_without_usable_features_are_named(importing, tmp_path):
    source = write_source(tmp_path / "source", "npy")
    texts = text_source(tmp_path / "texts", "npy", IDS[:5])
    np.save(texts / "101.npy", np.full(WIDTH, np.nan))
    done = importing(source, "--texts", texts)
    said = json.loads(done.stdout)
    assert done.exit_code == 1
    assert said["texts_without_features"] == ["105"] and list(said["text_failures"]) == ["101"]
    assert said["new_texts"] == 4
    np.save(texts / "101.npy", np.ones(WIDTH))
    np.save(texts / "105.npy", np.ones(WIDTH))
    done = importing(source, "--texts", texts)
    assert done.exit_code == 0 and json.loads(done.stdout)["new_texts"] == 2
    assert FeatureStore.open(tmp_path / "cache").texts.num_rows == 6


def test_texts_may_have_another_width_than_videos(importing, tmp_path):
    source = write_source(tmp_path / "source", "npy")
    texts = text_source(tmp_path / "texts", "npy", IDS, width=12)
    done = importing(source, "--texts", texts)
    assert done.exit_code == 0, done.output
    assert importing(source, "--texts", texts).exit_code == 0  # again: nothing new
    store = FeatureStore.open(tmp_path / "cache")
    assert (store.dim, store.text_dim) == (8, 12)
    found = store.split(None)
    assert found.clip_features.shape[1] == found.segment_features.shape[1] == 8
    assert found.text_features.shape[1] == 12
    assert not verify_cache(tmp_path / "cache").problems


ASKED = [
    {"question_id": "1", "kind": "multiple_choice", "options": ["x", "y", "z"], "answer_index": 1},
    {"question_id": "2", "kind": "open_ended", "answer": "red", "options": None},
    {"question_id": "3", "kind": "open_ended", "options": None},
    {"question_id": "4", "kind": "multiple_choice", "question": "", "options": ["x", "y"]},
]
PARTS = {"1": ["q", "a0", "a1", "a2"], "2": ["q", "a0"], "3": ["q"], "4": ["a0", "a1"]}


def add_questions(manifest):
    rows = [
        {"clip_id": "video0", "split": "train", "question": "what?", "answer_index": None} | row
        for row in ASKED
    ]
    (manifest / "questions.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def question_source(path, form, parts=PARTS, width=WIDTH):
    names = [f"{question}_{part}" for question, own in parts.items() for part in own]
    return text_source(path, form, names, width=width)


@pytest.mark.parametrize("form", ["npy", "npz", "hdf5"])
def test_question_and_option_features_come_along(form, importing, manifest, tmp_path):
    """Of hdf5 as TVQA's features are: QID_q and QID_a0 ..., (words, width) each."""
    add_questions(manifest)
    source = write_source(tmp_path / "source", "npy")
    asked = question_source(tmp_path / "asked", form)
    done = importing(source, "--questions", asked)
    assert done.exit_code == 0, done.output
    found = FeatureStore.open(tmp_path / "cache").split(None).questions
    assert found.question_ids == ["1", "2", "3", "4"]

    def wanted(question, part):
        words = features(f"{question}_{part}", rows=4)
        vector = words.astype(np.float64).mean(axis=0) if form == "hdf5" else words[0]
        return vector.astype(np.float16)

    options = [wanted(i, part) for i, own in PARTS.items() for part in own if part != "q"]
    np.testing.assert_array_equal(found.option_features, options)
    assert found.option_offsets.tolist() == [0, 3, 4, 4, 6]
    for i, row in zip("123", found.question_features, strict=False):
        np.testing.assert_array_equal(row, wanted(i, "q"))
    assert not found.question_features[3].any()  # without words
    assert verify_cache(tmp_path / "cache").problems == []
    assert json.loads(importing(source, "--questions", asked).stdout)["new_questions"] == 0


def test_a_question_without_all_its_features_is_named_and_the_others_are_there(
    importing, manifest, tmp_path
):
    add_questions(manifest)
    source = write_source(tmp_path / "source", "npy")
    asked = question_source(tmp_path / "asked", "npy", {**PARTS, "1": ["q", "a0", "a2"]})
    np.save(asked / "2_a0.npy", np.full(WIDTH, np.nan))
    done = importing(source, "--questions", asked)
    said = json.loads(done.stdout)
    assert done.exit_code == 1 and said["questions_without_features"] == ["1"]
    assert list(said["question_failures"]) == ["2"] and "'2_a0'" in said["question_failures"]["2"]
    assert said["new_questions"] == 2
    np.save(asked / "1_a1.npy", np.ones(WIDTH))
    np.save(asked / "2_a0.npy", np.ones(WIDTH))
    done = importing(source, "--questions", asked)
    assert done.exit_code == 0 and json.loads(done.stdout)["new_questions"] == 2
    split = FeatureStore.open(tmp_path / "cache").split(None)
    assert split.questions.question_ids == ["1", "2", "3", "4"]
    np.testing.assert_array_equal(split.questions.option_features[1], np.ones(WIDTH))


def test_questions_of_another_width_than_texts_are_refused_with_it(importing, manifest, tmp_path):
    add_questions(manifest)
    source = write_source(tmp_path / "source", "npy")
    texts = text_source(tmp_path / "texts", "npy", IDS)
    asked = question_source(tmp_path / "asked", "npy", width=12)
    done = importing(source, "--texts", texts, "--questions", asked)
    assert done.exit_code == 1
    assert "got (1, 12)" in json.loads(done.stdout)["question_failures"]["1"]
    done = importing(source, "--questions", asked, cache=tmp_path / "alone")
    assert done.exit_code == 0, done.output
    assert FeatureStore.open(tmp_path / "alone").text_dim == 12


def test_questions_are_told_to_have_no_features_where_none_were_given(
    mlalign_extract, manifest, tmp_path
):
    add_questions(manifest)
    source = write_source(tmp_path / "source", "npy")
    options = ("-o", tmp_path / "cache", "--manifest", manifest, "--fps", "1")
    done = mlalign_extract("import", source, *options)
    assert done.exit_code == 0
    assert "4 questions have no features: none were given" in done.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--seconds-per-feature", "2"), "say at which rate"),
        (("--segments", "shots"), "shots are found in pictures"),
        (("--segments", "thirds"), "unknown segments"),
        (("--format", "npz"), "no features of the format npz"),
    ],
)
def test_wrong_usage_ends_with_2(options, said, importing, tmp_path):
    done = importing(write_source(tmp_path / "source", "npy"), *options)
    assert done.exit_code == 2 and said in done.output
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "1/0", "many", ""])
def test_a_rate_that_is_none_is_refused(rate, importing, tmp_path):
    done = importing(write_source(tmp_path / "source", "npy"), fps=rate)
    assert done.exit_code == 2, done.output


def test_a_folder_of_several_formats_asks_for_one(importing, tmp_path):
    source = write_source(tmp_path / "source", "npy")
    np.savez(source / "more.npz", features=features("more"))
    done = importing(source)
    assert done.exit_code == 2 and "--format" in done.output
    assert importing(source, "--format", "npy").exit_code == 0


def test_features_of_no_clip_at_all_show_both_names(importing, tmp_path):
    done = importing(write_source(tmp_path / "source", "npy", ["x", "y"]))
    assert done.exit_code == 2
    assert "x_clip, y_clip" in done.output and "video0" in done.output


def test_another_rate_or_source_is_refused_with_both_values(importing, tmp_path):
    source = write_source(tmp_path / "source", "npy")
    assert importing(source).exit_code == 0
    done = importing(source, fps="2")
    assert done.exit_code == 2
    assert "seconds_per_feature: the cache has 1.0, this run asks for 0.5" in done.output


def test_an_imported_cache_is_no_recipe_and_says_so(importing, manifest, mlalign_extract, tmp_path):
    importing(write_source(tmp_path / "source", "npy"))
    recipe = ("--recipe", tmp_path / "cache")
    done = mlalign_extract("--manifest", manifest, "-o", tmp_path / "new", *recipe)
    assert done.exit_code == 2 and "were imported from" in done.output
    status = mlalign_extract("status", tmp_path / "cache")
    assert status.exit_code == 0 and "imported: npy" in status.output


def test_segments_are_cut_anew(importing, mlalign_extract, tmp_path):
    importing(write_source(tmp_path / "source", "npy"))
    done = mlalign_extract("resegment", tmp_path / "cache", "--segments", "fixed:2")
    assert done.exit_code == 0, done.output
    assert len(FeatureStore.open(tmp_path / "cache").split("val").segment_spans) == 3
    assert verify_cache(tmp_path / "cache").problems == []


def test_a_damaged_shard_is_imported_again(importing, tmp_path):
    source = write_source(tmp_path / "source", "hdf5")
    importing(source)
    (shard,) = (tmp_path / "cache" / "shards").iterdir()
    shard.write_bytes(shard.read_bytes()[:-1])
    assert json.loads(importing(source).stdout)["new_clips"] == 6
    assert verify_cache(tmp_path / "cache").problems == []


def test_an_import_killed_midway_is_finished_by_the_same_command(
    tmp_path, files_of, mlalign_extract
):
    names = [f"video{i}" for i in range(300)]
    manifest = write_manifest(tmp_path / "many", [(name, f"{name}.mp4", {}) for name in names])
    source = write_source(tmp_path / "source", "npz", names)
    options = ["--manifest", str(manifest), "--fps", "1"]
    command = "from mlalign.extract.cli import program; program()"
    arguments = ["import", str(source), "-o", str(tmp_path / "killed"), *options]
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", command, *arguments], stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not list(tmp_path.glob("killed/index/clips/*.parquet")):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for cache in ("killed", "whole"):
        done = mlalign_extract("import", source, "-o", tmp_path / cache, *options)
        assert done.exit_code == 0, done.output
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")
    assert verify_cache(tmp_path / "killed").problems == []


@pytest.mark.slow
def test_heads_train_and_score_on_an_imported_cache(importing, tmp_path):
    from mlalign.align.cli import main as align
    from mlalign.evaluate.cli import main as evaluate

    source = write_source(tmp_path / "source", "npy")
    texts = text_source(tmp_path / "texts", "npz", IDS)
    assert importing(source, "--texts", texts).exit_code == 0
    cache, run = str(tmp_path / "cache"), str(tmp_path / "run")
    small = ["--set", "optimiser.epochs=1", "--set", "losses.segment_weight=0"]
    done = CliRunner().invoke(align, [cache, "-o", run, *small])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(evaluate, [cache, "--run", run, "-o", str(tmp_path / "report")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "report" / "results.json").exists()


def test_the_moments_of_a_query_have_the_features_of_the_query():
    keys = {"qid7", "8", "qid9/1"}
    assert text_keys(["7/0", "7/1", "8", "9/1", "9/2", "x/y"], keys) == {
        "7/0": "qid7",
        "7/1": "qid7",
        "8": "8",
        "9/1": "qid9/1",
    }
