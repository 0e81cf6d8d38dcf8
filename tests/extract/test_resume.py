"""Extraction killed at any instant and run again gives, to the byte, what it gives in one go."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from mlalign.extract.cache.store import FeatureStore

NUM_CLIPS = 24
EXTRACT = "from mlalign.extract.cli import program; program()"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    from mlalign.data_manifests.scenes.make import write_scenes

    folder = tmp_path_factory.mktemp("resume") / "scenes"
    write_scenes(folder, num_clips=NUM_CLIPS, seed=3, num_processes=1)
    return folder


def start(scenes, cache):
    """The command in a process group of its own, its decoding processes with it."""
    options = ["--backbone", "tiny", "--fps", "8", "--set", "shard_clips=3"]
    return subprocess.Popen(
        [sys.executable, "-P", "-c", EXTRACT, str(scenes), "-o", str(cache), *options],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(scenes, cache):
    process = start(scenes, cache)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()


def kill(process):
    with contextlib.suppress(ProcessLookupError):  # it was over already
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def wait_for_shards(process, cache, count):
    """Until so many clip shards are committed, or the run is over."""
    while process.poll() is None and len(list(cache.glob("index/clips/*.parquet"))) < count:
        time.sleep(0.002)


def contents(cache):
    """Every file but cache.json and runs/ (which tell of runs) and what a killed writer left."""
    return {
        path.relative_to(cache): path.read_bytes()
        for path in cache.rglob("*")
        if path.is_file() and path.suffix not in (".json", ".tmp")
    }


@pytest.fixture(scope="module")
def uninterrupted(scenes, tmp_path_factory):
    cache = tmp_path_factory.mktemp("whole") / "cache"
    finish(scenes, cache)
    return cache


@pytest.mark.slow
def test_a_run_killed_between_shards_is_finished_by_the_same_command(
    scenes, uninterrupted, tmp_path
):
    cache = tmp_path / "cache"
    process = start(scenes, cache)
    wait_for_shards(process, cache, 2)
    kill(process)
    committed = len(list(cache.glob("index/clips/*.parquet")))
    assert committed < NUM_CLIPS / 3, "killed too late to show anything"
    # What is committed can be read at any time.
    assert len(FeatureStore.open(cache).clips) == 3 * committed
    finish(scenes, cache)
    assert contents(cache) == contents(uninterrupted)
    assert not list(cache.rglob("*.tmp")), "what killed writers left aside is cleared away"


@pytest.mark.slow
def test_a_run_killed_at_random_instants_is_finished_by_the_same_command(
    scenes, uninterrupted, tmp_path
):
    """30 kills; a cache that comes to its end on the way is compared, and a new one begun."""
    began = time.monotonic()
    finish(scenes, tmp_path / "timed")
    usual_seconds = time.monotonic() - began
    rng = random.Random(0)
    cache = tmp_path / "cache"
    for _ in range(30):
        process = start(scenes, cache)
        time.sleep(usual_seconds * rng.uniform(0.5, 1.0))
        is_over = process.poll() is not None
        kill(process)
        if is_over or len(list(cache.glob("index/clips/*.parquet"))) == NUM_CLIPS / 3:
            finish(scenes, cache)
            assert contents(cache) == contents(uninterrupted)
            shutil.rmtree(cache)
    finish(scenes, cache)
    assert contents(cache) == contents(uninterrupted)


@pytest.mark.slow
def test_two_runs_on_one_cache_at_once_leave_what_one_leaves(scenes, uninterrupted, tmp_path):
    cache = tmp_path / "cache"
    processes = [start(scenes, cache), start(scenes, cache)]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    assert contents(cache) == contents(uninterrupted)
