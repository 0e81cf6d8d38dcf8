"""A disk that takes no more: an error that names it, a cache that can be read, and the same command
finishes it once there is room."""

import contextlib
import json
import os
import resource
import subprocess
from pathlib import Path

import pytest

from mlalign.extract import pipeline
from mlalign.extract.cache.contract import DiskError
from mlalign.extract.cache.store import FeatureStore
from mlalign.extract.maintenance.verify import verify_cache


@contextlib.contextmanager
def largest_file(num_bytes):
    """The system refuses to write more than so many bytes into one file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def small_disk(tmp_path):
    """A tmpfs to be grown, for those who may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a disk takes root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_refused_shard_is_an_error_and_the_same_command_goes_on(
    mlalign_extract, small_scenes, small_options, small_cache, files_of, tmp_path
):
    cache = tmp_path / "cache"
    sizes = sorted(path.stat().st_size for path in small_cache.glob("shards/clips-*.h5"))
    with largest_file(sizes[-1] - 1):
        done = mlalign_extract(small_scenes, "-o", cache, *small_options)
    assert done.exit_code == 1, done.output
    assert "Traceback" not in done.output and "Error: cannot write" in done.stderr
    assert "File too large" in done.stderr and "the disk at /" in done.stderr
    assert FeatureStore.open(cache).clips.num_rows < 6
    assert verify_cache(cache).problems == []
    assert not list(cache.rglob("*.tmp"))
    done = mlalign_extract(small_scenes, "-o", cache, *small_options)
    assert done.exit_code == 0, done.output
    assert files_of(cache) == files_of(small_cache)


def test_a_full_disk_is_named_and_more_room_finishes_the_cache(
    mlalign_extract, small_scenes, small_options, small_cache, files_of, small_disk
):
    cache = small_disk / "cache"
    done = mlalign_extract(small_scenes, "-o", cache, *small_options)
    assert done.exit_code == 1, done.output
    assert "No space left on device" in done.stderr
    assert f"the disk at {small_disk} has" in done.stderr
    assert "of 0.1 MiB free" in done.stderr
    assert FeatureStore.open(cache).clips.num_rows < 6
    assert verify_cache(cache).problems == []
    grow = ["mount", "-o", "remount,size=4m", str(small_disk)]
    subprocess.run(grow, check=True)
    done = mlalign_extract(small_scenes, "-o", cache, *small_options)
    assert done.exit_code == 0, done.output
    assert files_of(cache) == files_of(small_cache)


def test_a_disk_without_room_for_the_first_file_is_named(mlalign_extract, small_scenes, tmp_path):
    with largest_file(100):
        done = mlalign_extract(small_scenes, "-o", tmp_path / "cache", "--backbone", "tiny")
    assert done.exit_code == 1, done.output
    assert "cache.json: File too large" in done.stderr and "the disk at /" in done.stderr
    assert mlalign_extract("status", tmp_path / "cache").exit_code == 2


def test_a_merge_onto_a_full_disk_goes_on_once_there_is_room(
    mlalign_extract, small_cache, files_of, tmp_path
):
    target = tmp_path / "merged"
    with largest_file(20_000):
        done = mlalign_extract("merge", small_cache, "-o", target, "--copy")
    assert done.exit_code == 1 and "File too large" in done.stderr
    assert not target.exists()
    assert mlalign_extract("merge", small_cache, "-o", target, "--copy").exit_code == 0
    assert verify_cache(target).problems == []


def test_statistics_that_cannot_be_written_fail_no_run(
    mlalign_extract, make_video, monkeypatch, tmp_path
):
    def full(*arguments):
        raise DiskError("the disk is full")

    monkeypatch.setattr(pipeline, "write_run_stats", full)
    make_video(tmp_path / "a.mp4", [0, 500])
    cache = tmp_path / "cache"
    done = mlalign_extract(tmp_path / "a.mp4", "-o", cache, "--backbone", "tiny", "--workers", 1)
    assert done.exit_code == 0
    assert "statistics are not kept: the disk is full" in done.stderr


def test_a_run_tells_of_itself_in_the_cache(small_cache):
    (path,) = Path(small_cache / "runs").glob("*.json")
    run = json.loads(path.read_text())
    assert run["summary"]["new_clips"] == 6
    assert run["frames_per_second"] > 0
    assert run["phase_seconds"].keys() >= {"plan", "load", "texts", "clips"}
    assert sum(run["phase_seconds"].values()) <= run["seconds"]
    sizes = [
        p.stat().st_size
        for kind in ("shards", "index")
        for p in small_cache.rglob(f"{kind}/**/*.*")
    ]
    assert run["bytes_written"] == sum(sizes)
    assert run["config"]["fps"] == 2 and run["shard"] is None
    assert run.keys() >= {"device", "precision", "decoder", "command", "versions", "host"}
