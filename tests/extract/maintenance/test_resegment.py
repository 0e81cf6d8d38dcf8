"""Segments cut anew from kept frame features are those of an extraction with the new rules."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from mlalign.extract.cache import writer
from mlalign.extract.cache.contract import CacheError
from mlalign.extract.cache.store import FeatureStore
from mlalign.extract.cli import main
from mlalign.extract.maintenance.resegment import resegment

OLD = ("uniform:4",)
BEFORE = ("uniform:7",)  # which have segments shards, too
NEW = ("fixed:2:1.5", "spans", "uniform:3")
NUM_CLIPS = 6
# As it is installed: it ends without unloading, in which Arrow's threads sometimes abort.
EXTRACT = "from mlalign.extract.cli import program; program()"
OF_PLACE = {"shard", "shard_sha256", "row", "clip_shard", "first_frame_row"}


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def extract(scenes, out, rules, *options):
    segments = [word for rule in rules for word in ("--segments", rule)]
    fixed = ["--backbone", "tiny", "--workers", 1, "--set", "shard_clips=3", "--json"]
    return run(scenes, "-o", out, *segments, *fixed, *options)


def cut(cache, *rules):
    return run("resegment", cache, *(word for rule in rules for word in ("--segments", rule)))


def rows(cache, table):
    """All index rows but for where they are stored."""
    store = FeatureStore.open(cache)
    found = [
        {name: value for name, value in row.items() if name not in OF_PLACE}
        for row in getattr(store, table).to_pylist()
    ]
    if table == "segments":
        found = [row for row in found if row["rule"] in store.segment_rules]
        return sorted(found, key=lambda row: (row["clip_id"], row["rule"], row["segment_index"]))
    return found


def contents(cache):
    """File to bytes, but for what killed writers left aside."""
    return {
        path.relative_to(cache): path.read_bytes()
        for path in cache.rglob("*")
        if path.is_file() and not path.name.endswith(".tmp")
    }


def assert_equal(cache, other):
    """Every array and every index row of the rules in force."""
    assert rows(cache, "segments") == rows(other, "segments")
    assert rows(cache, "clips") == rows(other, "clips")
    ours, theirs = FeatureStore.open(cache), FeatureStore.open(other)
    assert ours.segment_rules == theirs.segment_rules
    for rule in ours.segment_rules:
        one, two = ours.split(None, segments=rule), theirs.split(None, segments=rule)
        for name in ("clip_features", "segment_features", "segment_offsets", "segment_spans"):
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    from mlalign.data_manifests.scenes.make import write_scenes

    folder = tmp_path_factory.mktemp("scenes") / "scenes"
    write_scenes(folder, num_clips=NUM_CLIPS, seed=5, num_processes=1)
    return folder


@pytest.fixture(scope="module")
def old(scenes, tmp_path_factory):
    """By the old rules. Not to be changed."""
    cache = tmp_path_factory.mktemp("old") / "cache"
    done = extract(scenes, cache, OLD)
    assert done.exit_code == 0, done.output
    return cache


@pytest.fixture(scope="module")
def new(scenes, tmp_path_factory):
    """By the new rules. Not to be changed."""
    cache = tmp_path_factory.mktemp("new") / "cache"
    assert extract(scenes, cache, NEW).exit_code == 0
    return cache


@pytest.fixture
def cache(old, tmp_path):
    """By the old rules, the test's own."""
    return shutil.copytree(old, tmp_path / "cache")


def test_segments_cut_anew_equal_those_of_an_extraction_with_the_rules(cache, new):
    done = cut(cache, *NEW)
    assert done.exit_code == 0, done.output
    assert_equal(cache, new)
    number = len(rows(new, "segments"))
    assert done.stdout.startswith(f"{NUM_CLIPS} clips have {number} segments by ")
    assert f"{number} cut now" in done.stdout


def test_a_segments_feature_is_the_mean_of_its_normalised_frames(cache):
    assert cut(cache, "fixed:2:1.5").exit_code == 0
    store = FeatureStore.open(cache)
    features = store.split(None)
    for place, clip in enumerate(store.clips.sort_by("clip_id").to_pylist()):
        with h5py.File(cache / "shards" / clip["shard"]) as file:
            frames = slice(clip["first_frame_row"], clip["first_frame_row"] + clip["num_frames"])
            seconds = file["frames/sample_seconds"][frames]
            values = file["frames/features"][frames].astype(np.float64)
        units = [value / np.sqrt((value**2).sum()) for value in values]
        for index in range(*features.segment_offsets[place : place + 2]):
            start, end = features.segment_spans[index]
            inside = [
                unit for unit, time in zip(units, seconds, strict=True) if start <= time < end
            ]
            expected = np.mean(inside or [units[-1]], axis=0)
            np.testing.assert_allclose(features.segment_features[index], expected, atol=5e-4)


def test_the_videos_are_not_needed(cache, new):
    content = json.loads((cache / "cache.json").read_text())
    content["videos_root"] = "/nowhere"
    (cache / "cache.json").write_text(json.dumps(content))
    assert cut(cache, *NEW).exit_code == 0
    assert_equal(cache, new)


def test_extraction_then_has_nothing_to_do_by_the_new_rules_and_is_refused_by_the_old(
    scenes, cache
):
    assert cut(cache, *NEW).exit_code == 0
    before = contents(cache)
    for rules in (NEW, ()):
        done = extract(scenes, cache, rules)
        assert done.exit_code == 0, done.output
        assert (json.loads(done.stdout)["new_clips"], json.loads(done.stdout)["new_texts"]) == (
            0,
            0,
        )
    refused = extract(scenes, cache, OLD)
    assert refused.exit_code == 2
    assert "segments: the cache has fixed:2:1.5, spans, uniform:3" in refused.stderr
    assert "this run asks for uniform:4" in refused.stderr
    assert contents(cache) == before


def test_clips_added_later_are_cut_by_the_new_rules(scenes, tmp_path, new):
    cache = tmp_path / "cache"
    assert extract(scenes, cache, OLD, "--shard", "1/2").exit_code == 0
    assert cut(cache, *NEW).exit_code == 0
    assert 0 < len(FeatureStore.open(cache).clips) < NUM_CLIPS
    assert extract(scenes, cache, ()).exit_code == 0
    assert_equal(cache, new)


def test_merged_caches_keep_the_segments_that_were_cut_in_them(scenes, tmp_path, new):
    parts = []
    for part in ("1/2", "2/2"):
        parts.append(tmp_path / part.replace("/", "-of-"))
        assert extract(scenes, parts[-1], OLD, "--shard", part).exit_code == 0
        assert cut(parts[-1], *NEW).exit_code == 0
    merged = tmp_path / "merged"
    assert run("merge", *parts, "-o", merged).exit_code == 0
    assert_equal(merged, new)
    done = cut(merged, *NEW)
    assert " 0 cut now" in done.stdout
    assert_equal(merged, new)


def test_rules_can_be_changed_back_and_forth_and_leave_nothing_behind(cache, old, new):
    for rules, same in ((NEW, new), (OLD, old), (NEW, new)):
        assert cut(cache, *rules).exit_code == 0
        assert_equal(cache, same)
    assert cut(cache, *OLD).exit_code == 0
    assert contents(cache) == contents(old)


def test_a_second_time_there_is_nothing_to_cut(cache):
    assert cut(cache, *NEW).exit_code == 0
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    done = cut(cache, *NEW)
    assert done.exit_code == 0 and " 0 cut now" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == before


def test_the_order_of_rules_says_which_is_the_default(cache):
    for rules in (("uniform:2", "uniform:4"), ("uniform:4", "uniform:2")):
        assert cut(cache, *rules).exit_code == 0
        assert FeatureStore.open(cache).split(None).segment_rule == rules[0]


@pytest.mark.slow
def test_killed_before_any_of_its_writes_it_leaves_the_old_rules_or_the_new(
    old, new, tmp_path, monkeypatch
):
    """Every write, one after the other, is the one that never happens."""

    class Killed(BaseException):
        pass

    replace, unlink = os.replace, type(tmp_path).unlink
    done = shutil.copytree(old, tmp_path / "done")
    of_rule = {}
    for rules in (BEFORE, NEW):
        resegment(done, rules, report=print)
        store = FeatureStore.open(done)
        for rule in rules:
            of_rule[rule] = store.split(None, segments=rule).segment_features
    assert_equal(done, new)
    whole = contents(done)
    before = shutil.copytree(old, tmp_path / "before")
    resegment(before, BEFORE, report=print)
    states = set()
    num_writes = 0
    while True:
        cache = shutil.copytree(before, tmp_path / f"killed-{num_writes}")
        left = num_writes

        def count():
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed

        def counted_replace(*paths):
            count()
            replace(*paths)

        def counted_unlink(path, **options):
            if path.suffix != ".tmp":
                count()
            unlink(path, **options)

        with monkeypatch.context() as patched:
            patched.setattr(writer.os, "replace", counted_replace)
            patched.setattr(type(tmp_path), "unlink", counted_unlink)
            try:
                resegment(cache, NEW, report=print)
                break
            except Killed:
                pass
        state = FeatureStore.open(cache)
        states.add(state.segment_rules)
        for rule in state.segment_rules:  # raises for a shard that is missing or damaged
            found = state.split(None, segments=rule).segment_features
            expected = of_rule[rule]
            np.testing.assert_array_equal(found, expected)
        resegment(cache, NEW, report=print)
        assert contents(cache) == whole
        shutil.rmtree(cache)
        num_writes += 1
    assert states == {BEFORE, NEW}
    assert num_writes > 2 * 2 * len(NEW), "shards, rules, and two files of each"


@pytest.mark.slow
def test_killed_at_random_instants_it_is_finished_by_the_same_command(old, new, tmp_path):
    """SIGKILL of the process group; what is on disk is all that the next one has."""
    whole = shutil.copytree(old, tmp_path / "whole")
    began = time.monotonic()
    start_cutting(whole).communicate()
    usual_seconds = time.monotonic() - began
    rng = random.Random(0)
    states = []
    for trial in range(24):
        cache = shutil.copytree(old, tmp_path / "cache")
        process = start_cutting(cache)
        if trial % 2:  # in the middle of its writing, however slow the machine is today
            shards = cache / "shards"
            while process.poll() is None and len(list(shards.glob("segments-*"))) < trial % 7:
                time.sleep(0.0005)
        else:
            time.sleep(usual_seconds * rng.uniform(0.6, 1.0))
        with contextlib.suppress(ProcessLookupError):  # it was over already
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        states.append(FeatureStore.open(cache).segment_rules)
        assert rows(cache, "segments") == rows(old if states[-1] == OLD else new, "segments")
        assert start_cutting(cache).wait() == 0
        assert_equal(cache, new)
        assert contents(cache) == contents(whole)
        assert not list(cache.rglob("*.tmp")), "what killed writers left aside is cleared away"
        shutil.rmtree(cache)
    assert OLD in states and set(states) <= {OLD, NEW}


@pytest.mark.slow
def test_beside_an_extraction_by_the_old_rules_all_clips_get_the_new_ones(scenes, new, tmp_path):
    for num_shards in range(1, NUM_CLIPS):
        cache = tmp_path / f"cache-{num_shards}"
        options = ["--backbone", "tiny", "--workers", "1", "--set", "shard_clips=1"]
        extraction = start(scenes, "-o", cache, *options, "--segments", *OLD)
        while len(list(cache.glob("index/clips/*.parquet"))) < num_shards:
            assert extraction.poll() is None
            time.sleep(0.0005)
        resegment(cache, NEW, report=print)
        assert extraction.wait() == 0
        assert_equal(cache, new)


def start_cutting(cache):
    return start("resegment", cache, *(word for rule in NEW for word in ("--segments", rule)))


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-P", "-c", EXTRACT, *map(str, arguments)],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def test_a_damaged_segments_shard_is_named_and_repaired_by_either_command(scenes, cache, new):
    assert cut(cache, *NEW).exit_code == 0
    whole = contents(cache)
    for repair in (lambda: cut(cache, *NEW), lambda: extract(scenes, cache, NEW)):
        shard = sorted((cache / "shards").glob("segments-*.h5"))[2]
        content = bytearray(shard.read_bytes())
        content[len(content) // 2] ^= 4
        shard.write_bytes(content)
        with pytest.raises(CacheError, match="segments-.* is damaged"):
            store = FeatureStore.open(cache)
            [store.split(None, segments=rule) for rule in NEW]
        index = sorted((cache / "index" / "segments").glob("segments-*.parquet"))[5]
        index.write_bytes(index.read_bytes()[:-10])
        done = repair()
        assert done.exit_code == 0, done.output
        assert shard.name in done.stderr and index.name in done.stderr
        assert contents(cache) == whole


def test_a_damaged_clip_shard_stops_it_with_the_old_rules_in_force(scenes, cache, old, new):
    shard = sorted((cache / "shards").glob("clips-*.h5"))[1]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 4
    shard.write_bytes(content)
    done = cut(cache, *NEW)
    assert done.exit_code == 2
    assert shard.name in done.stderr and "run the same mlalign-extract again" in done.stderr
    assert FeatureStore.open(cache).segment_rules == OLD
    assert extract(scenes, cache, OLD).exit_code == 0
    assert_equal(cache, old)
    assert cut(cache, *NEW).exit_code == 0
    assert_equal(cache, new)


def test_a_clip_shard_extracted_again_brings_its_segments_by_the_new_rules(scenes, cache, new):
    assert cut(cache, *NEW).exit_code == 0
    for shard in (cache / "shards").glob("clips-*.h5"):
        shard.unlink()
    done = extract(scenes, cache, NEW)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["new_clips"] == NUM_CLIPS
    assert_equal(cache, new)


def test_failed_clips_have_no_segments_and_do_not_disturb(scenes, tmp_path):
    videos = tmp_path / "videos"
    shutil.copytree(scenes / "videos", videos)
    (videos / "broken.mp4").write_text("no video")
    cache, other = tmp_path / "cache", tmp_path / "other"
    assert extract(videos, cache, OLD, "--allow-failures").exit_code == 0
    assert extract(videos, other, NEW, "--allow-failures").exit_code == 0
    assert cut(cache, *NEW).exit_code == 0
    assert_equal(cache, other)


def test_what_cannot_be_cut_is_said_and_nothing_is_changed(scenes, cache, old, tmp_path):
    for rules, words in (
        (("shots",), "does not know the shots of its clips"),
        (("uniform:3", "thirds"), "unknown segments 'thirds'"),
        (("spans", "spans"), "names a rule twice"),
    ):
        done = cut(cache, *rules)
        assert done.exit_code == 2
        assert words in done.stderr and "Traceback" not in done.stderr
    assert contents(cache) == contents(old)
    assert cut(tmp_path / "nowhere", "spans").exit_code == 2
    assert run("resegment", cache).exit_code == 2, "without a rule"
    without = tmp_path / "without"
    video = next((scenes / "videos").iterdir())
    assert extract(video, without, OLD, "--set", "keep_frames=false").exit_code == 0
    done = cut(without, "uniform:3")
    assert done.exit_code == 2
    assert "keeps no frame features (keep_frames is false)" in done.stderr


def test_a_rule_that_makes_too_many_segments_is_refused(scenes, cache, old, tmp_path, monkeypatch):
    from mlalign.extract.segments import rules as segments

    monkeypatch.setattr(segments, "MAX_SEGMENTS", 10)
    done = cut(cache, "uniform:4", "fixed:0.05")
    assert done.exit_code == 2
    assert "segments 'fixed:0.05': more than 10 segments" in done.stderr
    assert contents(cache) == contents(old)
    video = next((scenes / "videos").iterdir())
    done = extract(video, tmp_path / "other", ["uniform:4", "fixed:0.05"])
    assert done.exit_code == 1, "while extracting, that clip fails"
    (reason,) = json.loads(done.stdout)["failures"].values()
    assert reason.startswith("segments 'fixed:0.05': more than 10 segments")


def test_the_number_of_segments_is_counted_in_the_clips_index(cache):
    assert cut(cache, "uniform:3", "uniform:5").exit_code == 0
    assert set(pq.read_table(cache / "index" / "clips")["num_segments"].to_pylist()) == {8}
