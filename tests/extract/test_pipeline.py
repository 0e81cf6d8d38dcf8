"""mlalign-extract from videos to a cache, as a user calls it."""

import json
import os
import shutil
from dataclasses import replace

import ffmpeg
import numpy as np
import open_clip
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from mlalign.data_manifests.core.ffmpeg_program import ffmpeg_program
from mlalign.data_manifests.tables.reader import read_manifest, write_manifest
from mlalign.extract.cache.store import FeatureStore
from mlalign.extract.cli import main

MODEL = "ViT-S-32-alt"
SOURCES = {  # name -> (lavfi source, seconds)
    "fractal.mp4": ("mandelbrot=size=640x360:rate=25", 3),
    "cells.mp4": ("cellauto=size=1280x720:rate=30:rule=110", 2),
    "card.mp4": ("testsrc2=size=322x240:rate=12", 4),
}


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for name, (source, seconds) in SOURCES.items():
        (
            ffmpeg.input(source, f="lavfi", t=seconds)
            .output(str(folder / name), vcodec="libx264", pix_fmt="yuv420p")
            .run(cmd=ffmpeg_program(), quiet=True)
        )
    return folder


@pytest.fixture(scope="module")
def cache(videos, tmp_path_factory):
    """The videos with the tiny backbone, at 2 frames per second."""
    path = tmp_path_factory.mktemp("tiny") / "cache"
    done = run(videos, "-o", path, "--backbone", "tiny", "--fps", 2, "--set", "shard_clips=2")
    assert done.exit_code == 0, done.output
    return path


@pytest.fixture
def copies(videos, tmp_path):
    """The videos in a folder of the test's own."""
    return shutil.copytree(videos, tmp_path / "videos")


def clip_rows(cache):
    rows = pq.read_table(cache / "index" / "clips").to_pylist()
    return {row["clip_id"]: row for row in rows}


def test_every_clip_has_its_frames_segments_and_times(cache):
    rows = clip_rows(cache)
    assert {name: row["num_frames"] for name, row in rows.items()} == {
        name: 2 * seconds for name, (_, seconds) in SOURCES.items()
    }
    for name, (_, seconds) in SOURCES.items():
        assert rows[name]["duration_seconds"] == pytest.approx(seconds)
        assert rows[name]["status"] == "ok"
    features = FeatureStore.open(cache).split("all")
    assert features.clip_ids == sorted(SOURCES)
    assert features.segment_rule == "uniform:4"
    assert np.diff(features.segment_offsets).tolist() == [4, 4, 4]
    assert features.segment_spans[:4].tolist() == [[0, 1], [1, 2], [2, 3], [3, 4]]  # card.mp4


def test_clip_and_segment_features_are_means_of_normalised_frames(cache):
    import h5py

    features = FeatureStore.open(cache).split("all")
    row = clip_rows(cache)["fractal.mp4"]
    with h5py.File(cache / "shards" / row["shard"]) as file:
        start = row["first_frame_row"]
        frames = file["frames/features"][start : start + row["num_frames"]].astype(np.float32)
        assert file["frames/sample_seconds"][start : start + 6].tolist() == [0, 0.5, 1, 1.5, 2, 2.5]
    frames /= np.linalg.norm(frames, axis=1, keepdims=True)
    place = features.clip_ids.index("fractal.mp4")
    np.testing.assert_allclose(features.clip_features[place], frames.mean(axis=0), atol=1e-3)
    segments = features.segment_features[features.segment_offsets[place] :][:4]
    # Spans of 0.75 s, samples every 0.5 s: 0 and 0.5, 1, 1.5 and 2, 2.5.
    for segment, rows in zip(segments, ([0, 1], [2], [3, 4], [5]), strict=True):
        np.testing.assert_allclose(segment, frames[rows].mean(axis=0), atol=1e-3)


def test_frame_features_agree_with_open_clips_own_preprocessing(videos, tmp_path):
    """Frames decoded by the ffmpeg program, open_clip's PIL transform, its tower in float32."""
    torch.manual_seed(0)
    model = open_clip.create_model(MODEL).eval()
    checkpoint = tmp_path / "weights.pt"
    torch.save(model.state_dict(), checkpoint)
    out = tmp_path / "cache"
    settings = ["--set", "precision=float32", "--set", "dtype=float32"]
    done = run(videos, "-o", out, "--backbone", MODEL, "--pretrained", checkpoint, *settings)
    assert done.exit_code == 0, done.output
    config = open_clip.get_model_preprocess_cfg(model)
    transform = open_clip.image_transform(
        config["size"], is_train=False, mean=config["mean"], std=config["std"]
    )
    ours, theirs = [], []
    for name, row in clip_rows(out).items():
        import h5py

        with h5py.File(out / "shards" / row["shard"]) as file:
            start = row["first_frame_row"]
            ours.append(file["frames/features"][start : start + row["num_frames"]])
        rate = {"fractal.mp4": 25, "cells.mp4": 30, "card.mp4": 12}[name]
        wanted = "+".join(f"eq(n,{second * rate})" for second in range(row["num_frames"]))
        raw, _ = (
            ffmpeg.input(str(videos / name))
            .filter("select", wanted)
            .output("pipe:", format="rawvideo", pix_fmt="rgb24", fps_mode="passthrough")
            .run(cmd=ffmpeg_program(), capture_stdout=True, quiet=True)
        )
        frames = np.frombuffer(raw, np.uint8).reshape(-1, row["height"], row["width"], 3)
        assert len(frames) == row["num_frames"]
        batch = torch.stack([transform(Image.fromarray(frame)) for frame in frames])
        with torch.inference_mode():
            theirs.append(model.encode_image(batch).numpy())
    ours, theirs = np.concatenate(ours), np.concatenate(theirs)

    def cosine(a, b):
        return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)

    assert cosine(ours, theirs).min() >= 0.999
    mean = theirs.mean(axis=0)  # random weights squeeze all cosines towards 1
    assert cosine(ours - mean, theirs - mean).min() >= 0.99


def test_both_decoders_make_the_same_cache(videos, cache, tmp_path):
    out = tmp_path / "cache"
    options = ["--backbone", "tiny", "--fps", 2, "--set", "shard_clips=2"]
    assert run(videos, "-o", out, *options, "--set", "decoder=ffmpeg").exit_code == 0
    ours, theirs = FeatureStore.open(out), FeatureStore.open(cache)
    assert ours.key == theirs.key
    np.testing.assert_array_equal(
        ours.split("all").segment_features, theirs.split("all").segment_features
    )


def test_the_number_of_workers_changes_no_byte(videos, cache, tmp_path):
    out = tmp_path / "cache"
    options = ["--backbone", "tiny", "--fps", 2, "--set", "shard_clips=2", "--workers", 1]
    assert run(videos, "-o", out, *options).exit_code == 0
    for path in sorted(cache.rglob("*")):
        if path.is_file() and path.suffix != ".json":
            assert (out / path.relative_to(cache)).read_bytes() == path.read_bytes(), path


def test_running_again_does_nothing(videos, cache):
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    done = run(videos, "-o", cache, "--backbone", "tiny", "--fps", 2, "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["new_frames"] == 0
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == before


def test_a_new_and_a_replaced_video_are_extracted_and_the_rest_is_left(copies, tmp_path):
    out = tmp_path / "cache"
    fractal = copies / "fractal.mp4"
    elsewhere = fractal.rename(tmp_path / "fractal.mp4")
    options = [copies, "-o", out, "--backbone", "tiny", "--json"]
    assert json.loads(run(*options).stdout)["new_clips"] == 2
    shutil.move(elsewhere, fractal)
    assert json.loads(run(*options).stdout)["new_clips"] == 1
    shutil.copyfile(copies / "card.mp4", fractal)
    done = json.loads(run(*options).stdout)
    assert (done["new_clips"], done["clips"]["ok"]) == (1, 3)
    features = FeatureStore.open(out).split("all")
    place = [features.clip_ids.index(name) for name in ("card.mp4", "fractal.mp4")]
    np.testing.assert_array_equal(*features.clip_features[place])


def test_a_broken_video_is_a_row_with_its_reason_and_the_others_are_complete(copies, tmp_path):
    (copies / "notes.mp4").write_text("these are only words\n" * 50)
    (copies / "empty.mkv").touch()
    out = tmp_path / "cache"
    done = run(copies, "-o", out, "--backbone", "tiny")
    assert done.exit_code == 1
    assert "3 ok" in done.stdout and "2 failed" in done.stdout
    assert "failed: notes.mp4: not a video that can be read" in done.stderr
    rows = clip_rows(out)
    assert rows["notes.mp4"]["status"] == rows["empty.mkv"]["status"] == "failed"
    assert FeatureStore.open(out).split("all").num_failed_clips == 2
    again = run(copies, "-o", out, "--backbone", "tiny", "--allow-failures", "--json")
    assert again.exit_code == 0
    assert json.loads(again.stdout)["new_clips"] == 0, "what failed is not tried in vain"
    assert json.loads(again.stdout)["failures"]["notes.mp4"].startswith("not a video")
    retried = run(copies, "-o", out, "--backbone", "tiny", "--retry-failed", "--json")
    assert json.loads(retried.stdout)["new_clips"] == 2
    shutil.copyfile(copies / "card.mp4", copies / "notes.mp4")
    mended = run(copies, "-o", out, "--backbone", "tiny", "--json")
    assert json.loads(mended.stdout)["clips"] == {"ok": 4, "partial": 0, "failed": 1}


def test_a_missing_video_of_a_list_is_one_failed_clip(videos, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text(f"{videos / 'card.mp4'}\n{videos / 'gone.mp4'}\n")
    done = run(listed, "-o", tmp_path / "cache", "--backbone", "tiny", "--json")
    assert done.exit_code == 1
    (reason,) = json.loads(done.stdout)["failures"].values()
    assert reason == "the file does not exist"


def test_a_manifest_s_own_rules_cut_where_nothing_else_is_said(videos, tmp_path):
    table = tmp_path / "captions.csv"
    table.write_text("video_path,text,start_seconds,end_seconds\ncard.mp4,counts,0,2\n")
    manifest = replace(read_manifest(table, videos_root=videos), segments=("fixed:3", "spans"))
    write_manifest(manifest, tmp_path / "manifest")
    tiny = ("--backbone", "tiny")
    for out, more, rules in (
        ("own", (), ("fixed:3", "spans")),
        ("asked", ("--segments", "uniform:2"), ("uniform:2",)),
    ):
        done = run("--manifest", tmp_path / "manifest", "-o", tmp_path / out, *tiny, *more)
        assert done.exit_code == 0, done.output
        assert FeatureStore.open(tmp_path / out).segment_rules == rules
    write_manifest(replace(manifest, segments=("fixed",)), tmp_path / "manifest")
    done = run("--manifest", tmp_path / "manifest", "-o", tmp_path / "wrong", *tiny)
    assert done.exit_code == 2
    assert "dataset.yaml of the dataset captions: unknown segments 'fixed'" in done.stderr


def test_texts_with_spans_make_segments_and_features(videos, tmp_path):
    table = tmp_path / "captions.csv"
    table.write_text(
        "video_path,text,start_seconds,end_seconds\n"
        "card.mp4,a test card,,\n"
        "card.mp4,it counts to two,0,2\n"
        "card.mp4,it counts to four,2,4\n"
        "cells.mp4,cells grow,,\n"
    )
    out = tmp_path / "cache"
    done = run(videos, "--manifest", table, "-o", out, "--backbone", "tiny")
    assert done.exit_code == 0, done.output
    store = FeatureStore.open(out)
    assert store.segment_rules == ("spans", "uniform:4")
    features = store.split("all")
    assert features.segment_spans.tolist() == [[0, 2], [2, 4], [0, 2]]
    assert features.text_is_segment.tolist() == [False, True, True, False]
    assert features.text_clips.tolist() == [0, 0, 0, 1]
    assert np.linalg.norm(features.text_features, axis=1).min() > 0
    changed = table.read_text().replace("cells grow", "cells live and die")
    table.write_text(changed)
    again = run(videos, "--manifest", table, "-o", out, "--backbone", "tiny", "--json")
    summary = json.loads(again.stdout)
    assert (summary["new_texts"], summary["new_clips"]) == (1, 0)
    assert "cells live and die" in FeatureStore.open(out).split("all").texts


def test_options_are_encoded_with_their_questions_and_answers_alone(videos, tmp_path):
    from mlalign.extract.encode.backbones import load_backbone

    dataset = tmp_path / "dataset"
    dataset.mkdir()
    (dataset / "dataset.yaml").write_text(f"name: cards\nvideos_root: {videos}\n")
    (dataset / "clips.jsonl").write_text('{"clip_id": "c", "video_path": "card.mp4"}\n')
    question = {"question_id": "q", "clip_id": "c", "kind": "multiple_choice"}
    question |= {"question": "what is it?", "options": ["a card", "a dog"], "answer_index": 0}
    worded = question | {"question_id": "t", "question": ""}
    opened = {"question_id": "r", "clip_id": "c", "kind": "open_ended", "question": "who?"}
    rows = (question, opened | {"answer": "a dog"}, opened | {"question_id": "s"}, worded)
    (dataset / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "cache"
    done = run(dataset, "-o", out, "--backbone", "tiny", "--set", "precision=float32")
    assert done.exit_code == 0, done.output
    questions = FeatureStore.open(out).split("all").questions
    assert questions.question_ids == ["q", "r", "s", "t"]
    assert questions.option_offsets.tolist() == [0, 2, 3, 3, 5]
    tiny = load_backbone("tiny", tag=None, checkpoint=None, precision="float32", device="cpu")
    texts = ["what is it? a card", "what is it? a dog", "a dog", "a card", "a dog"]
    expected = tiny.encode_texts(texts)
    np.testing.assert_allclose(questions.option_features, expected, rtol=2e-3, atol=2e-3)


def test_a_cache_of_another_backbone_or_rate_is_refused_with_both_values(videos, cache):
    before = sorted(cache.rglob("*"))
    for options, words in (
        (["--backbone", "tiny", "--fps", 3], "fps: the cache has 2.0, this run asks for 3.0"),
        (["--backbone", "ViT-B-32", "--pretrained", "openai"], "backbone: the cache has tiny"),
        (["--backbone", "tiny", "--fps", 2, "--segments", "uniform:8"], "segments: the cache has"),
    ):
        done = run(videos, "-o", cache, *options)
        assert done.exit_code == 2
        assert words in done.stderr
        assert sorted(cache.rglob("*")) == before


def test_a_damaged_shard_is_named_and_repaired_by_running_again(copies, files_of, tmp_path):
    from mlalign.extract.cache.contract import CacheError

    out = tmp_path / "cache"
    options = [copies, "-o", out, "--backbone", "tiny", "--set", "shard_clips=1"]
    assert run(*options).exit_code == 0
    whole = files_of(out)
    shard = sorted((out / "shards").glob("clips-*.h5"))[1]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 4
    shard.write_bytes(content)
    with pytest.raises(CacheError, match=f"{shard.name} is damaged"):
        FeatureStore.open(out).split("all")
    index = sorted((out / "index" / "clips").glob("*.parquet"))[2]
    index.write_bytes(index.read_bytes()[:-20])
    done = run(*options)
    assert done.exit_code == 0
    assert shard.name in done.stderr and index.name in done.stderr
    assert files_of(out) == whole


def test_wrong_usage_is_one_message_and_leaves_nothing(videos, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    out = tmp_path / "cache"
    for arguments, words in (
        ([tmp_path / "nowhere", "-o", out], "nowhere"),
        ([empty, "-o", out], "no videos in"),
        (["-o", out], "say which VIDEOS"),
        ([videos, "-o", out, "--backbone", "tiny", "--fps", 0], "fps must be > 0"),
        ([videos, "-o", out, "--backbone", "tiny", "--segments", "unifrom:4"], "unknown segments"),
        ([videos, "-o", out, "--backbone", "tiny", "--set", "fsp=1"], "did you mean fps?"),
        ([videos, "-o", out, "--backbone", "nothing"], "open_clip has no model 'nothing'"),
        ([videos, "-o", videos, "--backbone", "tiny"], "not empty and not a cache"),
    ):
        done = run(*arguments)
        assert done.exit_code == 2, done.output
        assert words in done.stderr
        assert "Traceback" not in done.stderr
        assert not out.exists()


@pytest.mark.skipif(os.name != "posix", reason="names of POSIX file systems")
def test_odd_file_names_are_only_names(videos, tmp_path):
    folder = tmp_path / "odd"
    folder.mkdir()
    names = ["-i.mp4", "a b.mp4", "50%d.mp4", "c:d.mp4", "q'\".mp4", "l\nf.mp4", "\x1b[31mred.mp4"]
    for name in names:
        shutil.copyfile(videos / "card.mp4", folder / name)
    (folder / "bad\x1b[2J.mp4").write_text("not a video")
    done = run(folder, "-o", tmp_path / "cache", "--backbone", "tiny")
    assert done.exit_code == 1
    assert f"{len(names)} ok" in done.stdout
    assert "\x1b" not in done.output
    features = FeatureStore.open(tmp_path / "cache").split("all")
    assert features.clip_ids == sorted(names)
    assert (features.clip_features == features.clip_features[0]).all()
