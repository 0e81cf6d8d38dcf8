"""What is wrong with the machine is not kept as a fault of its videos."""

import os
import subprocess
import sys

import pytest

BREAK_DECODING = """
import sys

if "--multiprocessing-fork" in sys.argv:  # in decoding processes alone
    import av

    def fail(*arguments, **options):
        raise TypeError("another version of the library")

    av.open = fail
"""


@pytest.fixture
def videos(tmp_path, make_video):
    folder = tmp_path / "videos"
    folder.mkdir()
    for i in range(7):
        make_video(folder / f"{i}.mp4", [0, 500, 1000])
    return folder


def run(videos, cache, **environment):
    code = "from mlalign.extract.cli import program; program()"
    command = [sys.executable, "-P", "-c", code, str(videos), "-o", str(cache)]
    command += ["--backbone", "tiny", "--workers", "2", "--set", "shard_clips=2"]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=100
    )


def test_a_run_whose_first_clips_all_crash_alike_stops(videos, tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(BREAK_DECODING)
    done = run(videos, tmp_path / "cache", PYTHONPATH=str(site))
    assert done.returncode == 2, done.stderr
    assert "the first 5 clips all failed in the same way" in done.stderr
    assert "TypeError at sitecustomize.py:8: another version of the library" in done.stderr
    assert "Traceback" not in done.stderr
    # None of them is kept as failed: the same command works once the machine does.
    done = run(videos, tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("7 clips: 7 ok, 0 partial, 0 failed; new: 7 clips")


@pytest.mark.slow
def test_fewer_crashes_are_the_clips_own(videos, tmp_path):
    for i in range(3, 7):
        (videos / f"{i}.mp4").unlink()
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(BREAK_DECODING)
    done = run(videos, tmp_path / "cache", PYTHONPATH=str(site))
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("3 clips: 0 ok, 0 partial, 3 failed")
