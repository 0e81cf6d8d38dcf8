"""mlalign-extract merge: several caches as the one that a single extraction would have left."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from mlalign.extract.cache.contract import CacheError
from mlalign.extract.cache.store import FeatureStore
from mlalign.extract.maintenance import merge as merging
from mlalign.extract.maintenance import merge_plan
from mlalign.extract.maintenance.merge import merge_caches
from mlalign.extract.maintenance.verify import verify_cache

TINY = ("--backbone", "tiny", "--workers", "1", "--allow-failures")


def snapshot(cache):
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(cache.rglob("*"))
        if path.is_file()
    }


def same(one, two):
    """Whether two features of a split are equal in every field, questions included."""
    for field in dataclasses.fields(one):
        mine, theirs = getattr(one, field.name), getattr(two, field.name)
        if dataclasses.is_dataclass(mine):
            same(mine, theirs)
        elif isinstance(mine, np.ndarray):
            np.testing.assert_array_equal(mine, theirs, err_msg=field.name)
        else:
            assert mine == theirs, field.name


@pytest.fixture(scope="module")
def halves(mlalign_extract, small_scenes, small_options, tmp_path_factory):
    """small_scenes in two caches; a clip is in one of them."""
    folder = tmp_path_factory.mktemp("halves")
    paths = [folder / "a", folder / "b"]
    for index, path in enumerate(paths, start=1):
        options = ("-o", path, *small_options, "--shard", f"{index}/2")
        done = mlalign_extract(small_scenes, *options)
        assert done.exit_code == 0, done.output
        assert FeatureStore.open(path).clips.num_rows < 6
    return paths


@pytest.fixture(scope="module")
def extracted(mlalign_extract, tmp_path_factory):
    """Extracts a folder of videos into a new cache."""

    def extract(*videos, cache=None):
        path = cache or tmp_path_factory.mktemp("extracted") / "cache"
        done = mlalign_extract(*videos, "-o", path, *TINY)
        assert done.exit_code == 0, done.output
        return path

    return extract


def test_merged_halves_are_the_whole(mlalign_extract, halves, small_cache, tmp_path):
    before = [snapshot(path) for path in halves]
    target = tmp_path / "deep" / "c"
    done = mlalign_extract("merge", *halves, "-o", target, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["clips"] == {"ok": 6, "partial": 0, "failed": 0}
    merged, whole = FeatureStore.open(target), FeatureStore.open(small_cache)
    assert merged.key == whole.key and merged.splits == whole.splits
    for rule in whole.segment_rules:
        for split in (*whole.splits, None):
            same(merged.split(split, segments=rule), whole.split(split, segments=rule))
    assert verify_cache(target).problems == []
    assert [snapshot(path) for path in halves] == before
    assert all(path.stat().st_nlink > 1 for path in target.glob("shards/*.h5"))
    assert not list(target.parent.glob(".*"))


def test_extracting_into_a_merged_cache_finds_nothing_to_do(
    mlalign_extract, halves, small_scenes, small_options, tmp_path
):
    merge_caches(halves, tmp_path / "c", copy=True)
    assert all(path.stat().st_nlink == 1 for path in tmp_path.glob("c/shards/*.h5"))
    done = mlalign_extract(small_scenes, "-o", tmp_path / "c", *small_options, "--json")
    summary = json.loads(done.stdout)
    assert (summary["new_clips"], summary["new_texts"]) == (0, 0)
    status = json.loads(mlalign_extract("status", tmp_path / "c", "--json").stdout)
    assert status["missing"] == [] and status["num_missing_texts"] == 0


def test_what_several_caches_have_alike_is_there_once(halves, small_cache, tmp_path):
    done = merge_caches([halves[0], small_cache, halves[1]], tmp_path / "c")
    assert done.num_shared_clips == 6
    same(FeatureStore.open(tmp_path / "c").split(None), FeatureStore.open(small_cache).split(None))
    assert verify_cache(tmp_path / "c").problems == []


@pytest.mark.slow
def test_tables_of_other_folders_are_combined_as_one_extraction_does(
    mlalign_extract, make_video, extracted, tmp_path
):
    """Their roots differ, and so does what the text ids row-1, row-2 ... mean."""
    tables = []
    for number, name in enumerate(("one", "two"), start=1):
        folder = tmp_path / "videos" / name
        folder.mkdir(parents=True)
        make_video(folder / f"{name}.mp4", [0, 500, 1000], first_number=number)
        (folder / "texts.csv").write_text(
            f"video_path,text,start_seconds,end_seconds\n{name}.mp4,number {number},,\n"
            f"{name}.mp4,its beginning,0,0.5\n"
        )
        tables.append(folder / "texts.csv")
    target = tmp_path / "c"
    merge_caches([extracted(table) for table in tables], target)
    store = FeatureStore.open(target)
    assert sorted(store.split(None).texts) == sorted(
        ["number 1", "number 2"] + ["its beginning"] * 2
    )
    for path in store.clips["video_path"].to_pylist():
        assert (tmp_path / "videos" / path).is_file()
    done = mlalign_extract(*tables, "-o", target, *TINY, "--json")
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert (summary["new_clips"], summary["new_texts"]) == (0, 0)
    whole = extracted(*tables)
    same(store.split(None), FeatureStore.open(whole).split(None))


def test_one_name_for_two_videos_is_an_error_that_names_both(
    mlalign_extract, make_video, extracted, tmp_path
):
    caches = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        make_video(folder / "same\x1b.mp4", [0, 500], first_number=number)
        caches.append(extracted(folder))
    done = mlalign_extract("merge", *caches, "-o", tmp_path / "c")
    assert done.exit_code == 2
    digests = [FeatureStore.open(cache).clips["source_sha256"][0].as_py() for cache in caches]
    for words in (*map(str, caches), r"'same\x1b.mp4'", *(digest[:16] for digest in digests)):
        assert words in done.stderr
    assert not (tmp_path / "c").exists()


def test_features_come_before_a_failure(make_video, extracted, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "a.mp4").write_text("not yet a video")
    make_video(videos / "b.mp4", [0, 500])
    before = extracted(videos)
    make_video(videos / "a.mp4", [0, 500, 1000])
    after = extracted(videos)
    for number, order in enumerate(([before, after], [after, before])):
        done = merge_caches(order, tmp_path / str(number))
        assert done.clips == {"ok": 2, "partial": 0, "failed": 0}
        features = FeatureStore.open(tmp_path / str(number)).split(None)
        same(features, FeatureStore.open(after).split(None))


def test_caches_of_other_settings_are_refused_with_both_values(
    mlalign_extract, make_video, extracted, small_cache, tmp_path
):
    make_video(tmp_path / "a.mp4", [0, 500])
    other = extracted(tmp_path / "a.mp4")
    done = mlalign_extract("merge", small_cache, other, "-o", tmp_path / "c")
    assert done.exit_code == 2
    assert f"fps: {small_cache} has 2.0, {other} has 1.0" in done.stderr
    assert f"segments: {small_cache} has spans, uniform:4, {other} has uniform:4" in done.stderr
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("survivors", [0, 1, 3, 6])
def test_a_killed_merge_leaves_no_cache_and_is_finished_by_the_same_call(
    monkeypatch, halves, small_cache, tmp_path, survivors
):
    target = tmp_path / "c"
    link, put = merge_plan.link_file, merging.put_file
    left = survivors

    def killed(function):
        def call(*arguments, **options):
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(merge_plan, "link_file", killed(link))
    for module in (merge_plan, merging):
        monkeypatch.setattr(module, "put_file", killed(put))
    with pytest.raises(KeyboardInterrupt):
        merge_caches(halves, target, copy=True)
    assert not target.exists()
    monkeypatch.undo()
    building = tmp_path / ".c.merging"
    copied = {path: path.stat().st_ino for path in building.glob("shards/*.h5")}
    merge_caches(halves, target, copy=True)
    assert not building.exists()
    for path, inode in copied.items():
        assert (target / "shards" / path.name).stat().st_ino == inode, "copied once"
    same(FeatureStore.open(target).split(None), FeatureStore.open(small_cache).split(None))


def test_leftovers_of_a_merge_of_others_do_not_get_in(halves, small_cache, tmp_path):
    building = tmp_path / ".c.merging"
    shutil.copytree(small_cache, building)
    shard = sorted(building.glob("shards/*.h5"))[0]
    shard.write_bytes(b"something else")
    merge_caches(halves, tmp_path / "c")
    assert verify_cache(tmp_path / "c").problems == []
    assert len(list(tmp_path.glob("c/index/clips/*.parquet"))) == sum(
        len(list(half.glob("index/clips/*.parquet"))) for half in halves
    )


def test_what_cannot_be_merged_is_named(
    mlalign_extract, halves, copied_cache, small_scenes, tmp_path
):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    target = tmp_path / "c"
    for arguments, words in (
        ([halves[0], tmp_path / "nowhere", "-o", target], "nowhere is not a feature cache"),
        ([halves[0], small_scenes, "-o", target], "scenes is not a feature cache"),
        ([halves[0], halves[0], "-o", target], "is named twice"),
        ([*halves, "-o", halves[0]], "is a cache already"),
        ([*halves, "-o", halves[0] / "c"], "lies within"),
        ([*halves, "-o", tmp_path / "full"], "is not empty"),
    ):
        done = mlalign_extract("merge", *arguments)
        assert done.exit_code == 2, done.output
        assert words in done.stderr and "Traceback" not in done.output
    shard = sorted(copied_cache.glob("shards/clips-*.h5"))[0]
    for damage in (lambda: shard.write_bytes(shard.read_bytes()[:-1]), shard.unlink):
        damage()
        with pytest.raises(CacheError, match=f"{shard.name} is damaged; repair that cache first"):
            merge_caches([copied_cache, halves[1]], target)
    index = sorted(copied_cache.glob("index/clips/*.parquet"))[0]
    index.write_bytes(b"")
    with pytest.raises(CacheError, match=f"{index.name} is damaged"):
        merge_caches([copied_cache, halves[0]], target)
    assert not target.exists()
