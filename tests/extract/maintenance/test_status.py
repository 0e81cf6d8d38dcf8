"""mlalign-extract status: what is in a cache, what failed and why, what is missing."""

import json
import shutil

import pytest

from mlalign.extract.cache.store import FeatureStore


@pytest.fixture(scope="module")
def videos(make_video, tmp_path_factory):
    """Two videos, and a broken one with an escape sequence in its name."""
    folder = tmp_path_factory.mktemp("videos")
    make_video(folder / "a.mp4", [0, 500, 1000])
    make_video(folder / "b.mp4", [0, 500])
    (folder / "bad\x1b[2J.mp4").write_text("only words")
    return folder


@pytest.fixture(scope="module")
def cache(videos, mlalign_extract, tmp_path_factory):
    path = tmp_path_factory.mktemp("status") / "cache"
    done = mlalign_extract(videos, "-o", path, "--backbone", "tiny", "--workers", 1)
    assert done.exit_code == 1, done.output
    return path


def test_status_counts_what_a_reader_finds(mlalign_extract, small_cache):
    found = json.loads(mlalign_extract("status", small_cache, "--json").stdout)
    store = FeatureStore.open(small_cache)
    assert found["key"] == store.key
    assert found["clips"] == {"ok": 6, "partial": 0, "failed": 0}
    assert {split: sum(counts.values()) for split, counts in found["splits"].items()} == {
        split: len(store.split(split).clip_ids) for split in store.splits
    }
    assert found["segments"] == {
        rule: len(store.split(None, segments=rule).segment_spans) for rule in store.segment_rules
    }
    everything = store.split(None)
    assert found["num_texts"] == len(everything.texts)
    assert found["num_questions"] == len(everything.questions.questions)
    assert found["num_frames"] == sum(store.clips["num_frames"].to_pylist())
    sizes = [path.stat().st_size for path in small_cache.rglob("*") if path.is_file()]
    assert found["num_bytes"] == sum(sizes)
    assert found["missing"] == found["failed"] == found["damaged"] == []


def test_status_tells_how_the_cache_was_made(mlalign_extract, small_cache):
    told = mlalign_extract("status", small_cache).stdout
    record = FeatureStore.open(small_cache).record
    for words in (
        "tiny",
        record["settings"]["weights_sha256"][:16],
        record["settings"]["precision"],
        "fps 2.0",
        "bicubic",
        "pyav",
        f"libavcodec {record['versions']['libavcodec']}",
        record["command"],
        "missing    nothing of",
    ):
        assert words in told


def test_failed_clips_are_told_with_stage_and_reason_and_safe_to_print(mlalign_extract, cache):
    done = mlalign_extract("status", cache)
    assert done.exit_code == 0, "status tells, verify judges"
    assert "bad\\x1b[2J.mp4: open: not a video that can be read" in done.stdout
    assert "\x1b" not in done.stdout
    found = json.loads(mlalign_extract("status", cache, "--json").stdout)
    (failed,) = found["failed"]
    assert (failed["clip_id"], failed["stage"]) == ("bad\x1b[2J.mp4", "open")
    assert found["clips"]["failed"] == 1


def test_videos_that_came_later_are_missing(mlalign_extract, cache, videos, tmp_path):
    more = shutil.copytree(videos, tmp_path / "more")
    shutil.copyfile(videos / "a.mp4", more / "late.mp4")
    assert json.loads(mlalign_extract("status", cache, "--json").stdout)["missing"] == []
    found = json.loads(mlalign_extract("status", cache, more, "--json").stdout)
    assert found["missing"] == ["late.mp4"]
    told = mlalign_extract("status", cache, more).stdout
    assert "missing    1 clips" in told and "  late.mp4" in told


def test_without_the_dataset_what_is_missing_is_not_known(mlalign_extract, copied_cache):
    record = json.loads((copied_cache / "cache.json").read_text())
    record["inputs"]["videos"] = ["/nowhere/at/all"]
    (copied_cache / "cache.json").write_text(json.dumps(record))
    done = mlalign_extract("status", copied_cache)
    assert done.exit_code == 0 and "missing    not known" in done.stdout
    assert mlalign_extract("status", copied_cache, "/nowhere/at/all").exit_code == 2


def test_a_damaged_index_file_is_named_and_the_rest_is_counted(mlalign_extract, copied_cache):
    index = sorted((copied_cache / "index" / "clips").glob("*.parquet"))[0]
    index.write_bytes(index.read_bytes()[:-30])
    found = json.loads(mlalign_extract("status", copied_cache, "--json").stdout)
    assert found["damaged"] == [f"index/clips/{index.name}"]
    assert found["clips"]["ok"] == 4 and len(found["missing"]) == 2
    assert f"  index/clips/{index.name}" in mlalign_extract("status", copied_cache).stdout


def test_status_changes_nothing(mlalign_extract, copied_cache):
    before = {path: path.stat().st_mtime_ns for path in copied_cache.rglob("*")}
    mlalign_extract("status", copied_cache)
    assert {path: path.stat().st_mtime_ns for path in copied_cache.rglob("*")} == before


@pytest.mark.parametrize("command", ["status", "verify"])
def test_what_is_no_cache_is_wrong_usage(mlalign_extract, command, small_scenes, tmp_path):
    for path in (tmp_path / "nowhere", small_scenes, small_scenes / "dataset.yaml"):
        done = mlalign_extract(command, path)
        assert done.exit_code == 2
        assert "Traceback" not in done.output and str(path) in done.stderr
    (tmp_path / "cache.json").write_text("{")
    assert mlalign_extract("status", tmp_path).exit_code == 2
