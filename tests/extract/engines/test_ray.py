"""Extraction on a Ray cluster of two machines gives what one machine gives, whoever is killed."""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from mlalign.extract.cache.contract import CacheError
from mlalign.extract.cli import main
from mlalign.extract.config import ExtractConfig

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None,
    reason="Ray is not installed: pip install 'mlalign[ray]'",
)
EXTRACT = "from mlalign.extract.cli import program; program()"
OPTIONS = ["--backbone", "tiny", "--fps", "8", "--set", "shard_clips=1", "--allow-failures"]
NUM_CLIPS = 24


def node(cpus, gpus=0, *, name="n", alive=True):
    return {"NodeID": name, "Alive": alive, "Resources": {"CPU": float(cpus), "GPU": float(gpus)}}


def test_without_ray_the_command_says_how_to_get_it(make_video, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "mlalign.extract.engines.ray", raising=False)
    video = make_video(tmp_path / "v.mp4", range(0, 1000, 100))
    out = tmp_path / "cache"
    options = [str(video), "-o", str(out), "--backbone", "tiny", "--engine", "ray"]
    done = CliRunner().invoke(main, options)
    assert done.exit_code == 2
    assert "pip install 'mlalign[ray]'" in done.stderr
    assert not out.exists()


@needs_ray
def test_every_gpu_has_a_worker_else_every_share_of_processors():
    from mlalign.extract.engines.ray import EngineError, plan_seats

    def seats(nodes, device="auto"):
        planned = plan_seats(nodes, worker_cpus=8, device=device)
        return [(seat.node_id, seat.num_cpus, seat.num_gpus) for seat in planned]

    small, large = node(4, name="s"), node(20, name="l")
    assert seats([small, large, node(8, alive=False)]) == [("s", 4, 0), ("l", 8, 0), ("l", 8, 0)]
    with_gpus = node(32, 4, name="g")
    assert seats([small, with_gpus]) == [("g", 8, 1)] * 4
    assert seats([small, with_gpus], device="cpu") == [("s", 4, 0)] + [("g", 8, 0)] * 4
    with pytest.raises(EngineError, match="has no GPU"):
        seats([small, large], device="cuda")
    with pytest.raises(EngineError, match="has no machine"):
        seats([node(0)])


@needs_ray
def test_a_worker_that_sees_other_files_or_weights_does_nothing(tmp_path):
    from mlalign.extract.cache.writer import open_for_writing
    from mlalign.extract.encode.encoders import load_encoders
    from mlalign.extract.engines.local import facts_of
    from mlalign.extract.engines.ray_worker import RayJob, RayWorker, _check_equal

    config = ExtractConfig(backbone="tiny", precision="float32")
    encoders = load_encoders(config, with_text=False)
    encoders.close()
    facts = facts_of(encoders)

    def job(**changes):
        usual = {"unit": "clips", "cache": tmp_path / "cache", "key": "k", "facts": facts}
        return RayJob(**{**usual, "videos_root": tmp_path, **changes})

    def run(job):
        RayWorker(0).run(job, None, config, with_text=False)

    with pytest.raises(CacheError, match="does not see the cache"):
        run(job())
    key = open_for_writing(tmp_path / "cache", settings={"a": 1}, layout={}, record={})
    with pytest.raises(CacheError, match="sees another cache"):
        run(job())
    with pytest.raises(CacheError, match="does not see the videos"):
        run(job(key=key, videos_root=tmp_path / "nowhere"))
    from dataclasses import replace

    with pytest.raises(CacheError, match="precision is float32 there and bfloat16 here"):
        _check_equal(facts, replace(facts, precision="bfloat16"))


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    from mlalign.data_manifests.scenes.make import write_scenes

    folder = tmp_path_factory.mktemp("ray") / "scenes"
    write_scenes(folder, num_clips=NUM_CLIPS, seed=3, num_processes=1)
    broken = sorted((folder / "videos").rglob("*.mp4"))[5]
    broken.write_text("these are only words")
    return folder


@pytest.fixture(scope="module")
def expected(videos, tmp_path_factory):
    """What the local engine makes of them."""
    cache = tmp_path_factory.mktemp("local") / "cache"
    done = CliRunner().invoke(main, [str(videos), "-o", str(cache), *OPTIONS])
    assert done.exit_code == 0, done.output
    return contents(cache)


@pytest.fixture(scope="module")
def cluster():
    """Two machines of one processor each, as far as Ray knows."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


def contents(cache):
    """What the features are: shards and index, byte by byte."""
    return {
        path.relative_to(cache): path.read_bytes()
        for folder in ("shards", "index")
        for path in (cache / folder).rglob("*")
        if path.is_file() and not path.name.endswith(".tmp")
    }


@pytest.fixture
def start(cluster):
    """Starts the command on the cluster; a run that a test leaves behind is ended."""
    started = []

    def start(videos, cache):
        options = [*OPTIONS, "--engine", "ray", "--set", f"ray.address={cluster.address}"]
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", EXTRACT, str(videos), "-o", str(cache), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_for(condition, process):
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def workers_and_decoders(cluster):
    """Process of each worker on the cluster -> the processes that decode for it."""
    parents = {
        int(path.parent.name): int(path.read_text().rpartition(")")[2].split()[1])
        for path in readable(Path("/proc").glob("[0-9]*/stat"))
    }
    machines = {node.all_processes["raylet"][0].process.pid for node in cluster.list_all_nodes()}

    def children(pids, words):
        found = {child for child, parent in parents.items() if parent in pids}
        commands = readable(Path(f"/proc/{pid}/cmdline") for pid in sorted(found))
        return [int(path.parent.name) for path in commands if words in path.read_text()]

    return {
        worker: children({worker}, "multiprocessing.spawn")
        for worker in children(machines, "ray::RayWorker")
    }


def readable(paths):
    for path in paths:
        try:
            path.read_text()
        except OSError:
            continue  # that process has ended
        yield path


def opened(process):
    """Links of a process's open files."""
    return Path(f"/proc/{process}/fd").iterdir()


@needs_ray
@pytest.mark.slow
def test_a_worker_killed_in_mid_run_loses_no_shard_and_changes_no_byte(
    videos, expected, cluster, start, tmp_path
):
    cache = tmp_path / "cache"
    process = start(videos, cache)

    def at_work():
        return {worker for worker, decoders in workers_and_decoders(cluster).items() if decoders}

    wait_for(lambda: len(list(cache.glob("index/clips/*.parquet"))) >= 2, process)
    worker = min(at_work())
    # Held still with shards in its hands, so that the run cannot end before the other is at work.
    os.kill(worker, signal.SIGSTOP)
    before = contents(cache)
    wait_for(lambda: at_work() - {worker}, process)
    os.kill(worker, signal.SIGKILL)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert len(before) < len(expected), "killed too late to show anything"
    assert "was lost; its unfinished shards (" in errors
    assert f"{NUM_CLIPS - 1} ok, 0 partial, 1 failed" in out
    assert contents(cache) == expected


@needs_ray
@pytest.mark.slow
def test_a_decoder_that_dies_on_a_worker_costs_its_clip_alone(make_video, cluster, start, tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    for number in range(6):
        make_video(folder / f"{number}.mp4", range(0, 6000, 20))
    process = start(folder, tmp_path / "cache")

    def stopped_in_mid_clip():
        """A decoder with a clip of the folder open; between two clips its end costs nothing."""
        for decoder in (pid for pids in workers_and_decoders(cluster).values() for pid in pids):
            with contextlib.suppress(OSError):
                os.kill(decoder, signal.SIGSTOP)
                if any(str(folder) in str(path.readlink()) for path in opened(decoder)):
                    return decoder
                os.kill(decoder, signal.SIGCONT)
        return None

    os.kill(wait_for(stopped_in_mid_clip, process), signal.SIGKILL)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "the decoder crashed (SIGKILL)" in errors
    assert "5 ok, 0 partial, 1 failed" in out


@needs_ray
@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--set", "ray.address=127.0.0.1:1"], 1, "no Ray cluster at 127.0.0.1:1: "),
        (["--device", "cuda:0"], 2, "with --engine ray, --device is auto, cpu or cuda, got cuda:0"),
        (["--set", "ray.worker_cpus=0"], 2, "worker_cpus must be >= 1"),
    ],
)
def test_what_cannot_be_had_is_one_error_and_leaves_nothing(
    make_video, tmp_path, options, code, words
):
    video = make_video(tmp_path / "v.mp4", range(0, 1000, 100))
    out = tmp_path / "cache"
    usual = [str(video), "-o", str(out), "--backbone", "tiny", "--engine", "ray"]
    done = CliRunner().invoke(main, [*usual, *options])
    assert done.exit_code == code, done.output
    assert words in done.stderr
    assert not out.exists()


@needs_ray
@pytest.mark.slow
def test_a_disk_that_fills_up_under_the_workers_is_named_and_more_room_finishes_the_cache(
    videos, expected, start, tmp_path
):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a disk takes root")
    try:
        process = start(videos, disk / "cache")
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 1, errors
        assert "Traceback" not in errors and "Error: cannot write" in errors
        assert f"No space left on device; the disk at {disk} has" in errors
        assert len(contents(disk / "cache")) < len(expected)
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        process = start(videos, disk / "cache")
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert contents(disk / "cache") == expected
    finally:
        subprocess.run(["umount", str(disk)], check=True)
