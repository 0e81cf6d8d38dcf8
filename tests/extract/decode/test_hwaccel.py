"""Decoding on hardware: asked for in the program's own words, and refused where there is none."""

from pathlib import Path

import pytest

from mlalign.extract.config import DecoderLimits, ExtractConfig
from mlalign.extract.decode.ffmpeg import FfmpegDecoder
from mlalign.extract.decode.protocol import DecodeError


def test_hardware_needs_the_ffmpeg_decoder():
    with pytest.raises(ValueError, match="hwaccel cuda needs decoder=ffmpeg, got pyav"):
        ExtractConfig(backbone="tiny", hwaccel="cuda")
    ExtractConfig(backbone="tiny", hwaccel="cuda", decoder="ffmpeg")


@pytest.mark.parametrize(("hwaccel", "words"), [(None, []), ("cuda", ["-hwaccel", "cuda"])])
def test_the_program_is_told_before_its_input(make_video, tmp_path, monkeypatch, hwaccel, words):
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    said = tmp_path / "said"
    program.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" > '{said}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    video = make_video(tmp_path / "v.mp4", [0, 500])
    limits = DecoderLimits()
    decoder = FfmpegDecoder(video, fps=1.0, start=0.0, end=None, limits=limits, hwaccel=hwaccel)
    with pytest.raises(DecodeError, match="no frame could be decoded"):
        list(decoder)
    command = said.read_text().splitlines()
    before = command[: command.index("-i")]
    assert [word for word in before if word in ("-hwaccel", "cuda")] == words


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="this machine has the hardware")
def test_hardware_that_is_not_there_is_one_error(mlalign_extract, make_video, tmp_path):
    video = make_video(tmp_path / "v.mp4", [0, 500])
    options = ["--backbone", "tiny", "--set", "decoder=ffmpeg", "--set", "hwaccel=cuda"]
    done = mlalign_extract(video, "-o", tmp_path / "cache", *options)
    assert done.exit_code == 2, done.output
    assert "hwaccel cuda was asked for, and " in done.stderr
    assert "leave hwaccel out" in done.stderr and "Traceback" not in done.output
