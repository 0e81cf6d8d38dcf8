"""The ffmpeg program: which one runs, what it must be able to do, and no wait on it without an
end."""

import io
import os
import subprocess
import threading
import time
from fractions import Fraction

import pytest

from mlalign.data_manifests.core.errors import UserError
from mlalign.data_manifests.core.ffmpeg_program import ffmpeg_program
from mlalign.extract.config import DecoderLimits
from mlalign.extract.decode.ffmpeg import FfmpegDecoder
from mlalign.extract.decode.ffmpeg_check import check_program, program_version
from mlalign.extract.decode.ffmpeg_log import FfmpegLog, StallGuard, frame_durations
from mlalign.extract.decode.protocol import DecodeError, no_heartbeat

VERSION_5 = "ffmpeg version 5.1.9-0+deb12u1 Copyright (c) 2000-2026 the FFmpeg developers"
OUTPUT_5 = """\
[showinfo@frames @ 0x55] [info] config in time_base: 1/5, frame_rate: 5/1
[showinfo@frames @ 0x55] [info] n:   0 pts:      0 pts_time:0       pos:       -1 fmt:yuv420p
[showinfo@frames @ 0x55] [info] n:   1 pts:      1 pts_time:0.2     pos:       -1 fmt:yuv420p
"""
"""What FFmpeg 5.1 prints for two frames at 5 fps: no durations."""


def write_program(path, body):
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def old_program(tmp_path):
    (tmp_path / "output").write_text(OUTPUT_5)
    answer = f"[ \"$1\" = -version ] && echo '{VERSION_5}' || cat '{tmp_path}/output' >&2"
    return write_program(tmp_path / "bin" / "ffmpeg", answer)


@pytest.fixture
def two_frames(tmp_path, make_video):
    return make_video(tmp_path / "two.mp4", [0, 500])


def decoder(path, **limits):
    return FfmpegDecoder(path, fps=2.0, start=0.0, end=None, limits=DecoderLimits(**limits))


def test_a_program_on_the_path_is_not_used(old_program, two_frames, monkeypatch):
    monkeypatch.setenv("PATH", f"{old_program.parent}{os.pathsep}{os.environ['PATH']}")
    assert ffmpeg_program() != str(old_program)
    check_program(None)
    assert len(list(decoder(two_frames))) == 2


def test_an_old_program_is_refused_with_its_version_and_the_way_out(
    old_program, mlalign_extract, two_frames, monkeypatch, tmp_path
):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(old_program))
    assert program_version() == "ffmpeg version 5.1.9-0+deb12u1"
    options = ["--backbone", "tiny", "--set", "decoder=ffmpeg"]
    done = mlalign_extract(two_frames, "-o", tmp_path / "cache", *options)
    assert done.exit_code == 2
    assert f"{old_program} cannot be used for decoding (ffmpeg version 5.1.9" in done.stderr
    assert "unset IMAGEIO_FFMPEG_EXE" in done.stderr


def test_a_program_that_is_missing_or_hangs_is_one_error(tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "missing"))
    with pytest.raises(UserError, match="missing cannot be run: No such file or directory; unset"):
        check_program(None)
    hangs = write_program(tmp_path / "bin" / "hangs", "exec sleep 60")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(hangs))
    monkeypatch.setattr("mlalign.extract.decode.ffmpeg_check.PROBE_SECONDS", 0.2)
    with pytest.raises(UserError, match="did not end within 0.2 s"):
        check_program(None)


@pytest.mark.parametrize(
    "body", ["exec sleep 60", "exec yes", "exec yes >&2"], ids=["silent", "stdout", "stderr"]
)
def test_a_program_that_shows_no_frame_is_ended_after_the_stall_limit(
    two_frames, tmp_path, monkeypatch, body
):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(write_program(tmp_path / "bin" / "x", body)))
    began = time.monotonic()
    with pytest.raises(DecodeError, match="the ffmpeg program made no progress for 0.5 s"):
        list(decoder(two_frames, stall_seconds=0.5))
    assert time.monotonic() - began < 20


@pytest.mark.slow
def test_a_reader_that_pauses_is_no_stall_of_the_program(tmp_path, make_video):
    video = make_video(tmp_path / "v.mp4", list(range(0, 4000, 40)), size=(640, 480))
    samples = iter(
        FfmpegDecoder(video, fps=25.0, start=0.0, end=None, limits=DecoderLimits(stall_seconds=0.5))
    )
    next(samples)
    time.sleep(1.2)  # the program waits for its pictures to be read
    assert len(list(samples)) == 99


def test_an_error_of_the_reading_thread_reaches_the_one_who_waits():
    def heartbeat():
        raise OSError("the main process is gone")

    log = FfmpegLog(
        io.BytesIO(OUTPUT_5.encode()), gap=Fraction(1, 5), start=0.0, fps=1.0, heartbeat=heartbeat
    )
    with pytest.raises(OSError, match="the main process is gone"):
        log.shown_at(0)
    log.close()


def test_frame_durations_are_read_in_seconds():
    line = "[showinfo@frames @ 0x5] [info] n:   0 pts:      0 pts_time:0  duration:   3 x\n"
    assert frame_durations(OUTPUT_5.encode()) == [0, 0]
    header = "[showinfo@frames @ 0x5] [info] config in time_base: 1/10, frame_rate: 10/1\n"
    assert frame_durations((header + line).encode()) == [Fraction(3, 10)]


def test_a_guard_leaves_no_thread_behind():
    before = threading.active_count()
    with subprocess.Popen(["sleep", "60"]) as process:
        guard = StallGuard(process, stall_seconds=60)
        guard.close()
        process.kill()
    assert threading.active_count() == before and not guard.has_fired
    assert no_heartbeat() is None
