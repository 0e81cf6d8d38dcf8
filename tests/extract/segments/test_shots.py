"""Shots, found on the pictures that are sampled anyway."""

import importlib.util
import json

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from mlalign.extract.cache.store import FeatureStore
from mlalign.extract.cli import main
from mlalign.extract.segments.shots import ShotDetector

scenedetect = pytest.importorskip("scenedetect", reason="pip install 'mlalign[shots]'")

COLOURS = np.array([(200, 30, 30), (20, 180, 40), (30, 60, 220), (230, 220, 40), (90, 20, 120)])
FPS = 10


def picture(colour, *, step=0, size=(96, 64)):
    """One colour with a darker bar that moves a little at each step."""
    image = np.broadcast_to(COLOURS[colour % len(COLOURS)], (size[1], size[0], 3)).copy()
    image[:, 4 + step % 20 : 10 + step % 20] //= 2
    return image.astype(np.uint8)


def write_shots(path, lengths):
    """A video of as many shots as lengths, in frames, at FPS."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=FPS, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for shot, length in enumerate(lengths):
            for step in range(length):
                frame = av.VideoFrame.from_ndarray(picture(shot, step=step), format="rgb24")
                output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def shots_of(pictures, *, fps=1.0):
    detector = ShotDetector()
    for k, image in enumerate(pictures):
        detector.add(image, sample_seconds=k / fps)
    return detector.shot_seconds


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shots")
    write_shots(folder / "one.mp4", [50])
    write_shots(folder / "three.mp4", [24, 31, 20])
    write_shots(folder / "four.mp4", [15, 15, 40, 10])
    return folder


@pytest.fixture(scope="module")
def cache(videos, tmp_path_factory):
    out = tmp_path_factory.mktemp("cache") / "cache"
    options = ["--backbone", "tiny", "--fps", 2, "--segments", "shots", "--segments", "uniform:2"]
    done = run(videos, "-o", out, "--workers", 2, *options)
    assert done.exit_code == 0, done.output
    return out


def test_a_new_shot_begins_with_its_first_sample():
    assert shots_of([picture(0, step=k) for k in range(9)]) == ()
    assert shots_of([picture(k // 3, step=k) for k in range(9)]) == (3.0, 6.0)
    assert shots_of([picture(k // 3, step=k) for k in range(9)], fps=0.5) == (6.0, 12.0)
    assert shots_of([picture(0)]) == ()


def test_slow_changes_of_light_are_no_cuts():
    dimmed = [(picture(0) * (1 - k / 40)).astype(np.uint8) for k in range(30)]
    assert shots_of(dimmed, fps=25) == ()


def test_a_flash_does_not_make_shots_shorter_than_the_least():
    flashes = [picture(1 if k in (20, 22, 24) else 0, step=k) for k in range(60)]
    begins = [0.0, *shots_of(flashes, fps=25)]
    assert len(begins) == 2
    assert np.diff(begins).min() >= 0.6
    # Of shots as long as the least, none is lost to rounding.
    assert shots_of([picture(k // 3) for k in range(30)], fps=5) == pytest.approx(
        [0.6 * shot for shot in range(1, 10)]
    )


def test_a_video_may_change_its_size_midway():
    images = [picture(0, size=(96, 64)), picture(0, size=(640, 360)), picture(1, size=(33, 77))]
    assert shots_of(images) == (2.0,)


def test_shots_are_segments_from_cut_to_cut(cache):
    store = FeatureStore.open(cache)
    assert store.segment_rules == ("shots", "uniform:2")
    features = store.split("all", segments="shots")
    assert features.clip_ids == ["four.mp4", "one.mp4", "three.mp4"]
    # Cuts at 1.5, 3 and 7 s; none; 2.4 and 5.5 s: the sample after 2.4 s is that of 2.5 s.
    assert features.segment_spans.tolist() == [
        *([0, 1.5], [1.5, 3], [3, 7], [7, 8]),
        [0, 5],
        *([0, 2.5], [2.5, 5.5], [5.5, 7.5]),
    ]
    assert np.diff(store.split("all").segment_offsets).tolist() == [4, 1, 3]
    assert np.diff(store.split("all", segments="uniform:2").segment_offsets).tolist() == [2, 2, 2]
    rows = {row["clip_id"]: row for row in pq.read_table(cache / "index" / "clips").to_pylist()}
    assert rows["three.mp4"]["shot_seconds"] == [2.5, 5.5]
    assert rows["one.mp4"]["shot_seconds"] == []
    assert store.record["versions"]["scenedetect"] == scenedetect.__version__


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--workers", 1], ["--set", "decoder=ffmpeg"]])
def test_shots_do_not_hang_on_workers_chunks_or_decoder(videos, cache, tmp_path, options):
    rules = ["--backbone", "tiny", "--fps", 2, "--segments", "shots", "--segments", "uniform:2"]
    more = ["--set", "batch_frames=3", "--set", "shard_clips=1"]
    done = run(videos, "-o", tmp_path / "cache", *rules, *options, *more)
    assert done.exit_code == 0, done.output
    ours, theirs = (FeatureStore.open(path).split("all") for path in (tmp_path / "cache", cache))
    np.testing.assert_array_equal(ours.segment_spans, theirs.segment_spans)


def test_shots_do_not_hang_on_how_pictures_are_sent(videos, monkeypatch):
    from mlalign.extract.config import ExtractConfig
    from mlalign.extract.decode import clip_reader as frames
    from mlalign.extract.decode.clip_reader import ClipTask, DecodeSettings, read_clip
    from mlalign.extract.decode.preprocessing import Preprocessing
    from mlalign.extract.segments.sampling import Sampling

    small = {"height": 32, "width": 32, "resize_mode": "shortest", "interpolation": "bicubic"}
    settings = DecodeSettings(
        decoder="pyav",
        sampling=Sampling(fps=4.0),
        preprocessing=Preprocessing(**small, fill=0, mean=(0.5,) * 3, std=(0.5,) * 3),
        limits=ExtractConfig().limits,
        find_shots=True,
    )
    task = ClipTask(
        clip_id="four.mp4", path=videos / "four.mp4", start_seconds=0.0, end_seconds=None
    )
    found = []
    for size in (1, 7, 1000):
        monkeypatch.setattr(frames, "CHUNK_PICTURES", size)
        *chunks, end = read_clip(task, settings)
        found.append(end.shot_seconds)
    assert found == [(1.5, 3.0, 7.0)] * 3


def test_shots_are_looked_for_only_when_asked(videos, tmp_path):
    out = tmp_path / "cache"
    assert run(videos, "-o", out, "--backbone", "tiny").exit_code == 0
    shots = pq.read_table(out / "index" / "clips")["shot_seconds"].to_pylist()
    assert shots == [None, None, None]
    refused = run(videos, "-o", out, "--backbone", "tiny", "--segments", "shots")
    assert refused.exit_code == 2
    assert "shots: the cache has False, this run asks for True" in refused.stderr
    contrary = run(
        videos, "-o", out, "--backbone", "tiny", "--segments", "shots", "--set", "shots=false"
    )
    assert contrary.exit_code == 2
    assert "segments names shots, and shots is false" in contrary.stderr


def test_a_missing_detector_is_one_message_with_the_command_that_installs_it(
    videos, tmp_path, monkeypatch
):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "scenedetect" else found(name)
    )
    out = tmp_path / "cache"
    done = run(videos, "-o", out, "--backbone", "tiny", "--segments", "shots")
    assert done.exit_code == 2
    assert "pip install 'mlalign[shots]'" in done.stderr
    assert not out.exists()


def test_new_clips_get_their_shots_whatever_the_rules_have_become(videos, tmp_path):
    out = tmp_path / "cache"
    options = ["-o", out, "--backbone", "tiny", "--fps", 2]
    assert run(videos / "one.mp4", *options, "--segments", "shots").exit_code == 0
    assert run("resegment", out, "--segments", "uniform:3").exit_code == 0
    added = run(videos / "one.mp4", videos / "four.mp4", *options, "--json")
    assert json.loads(added.stdout)["new_clips"] == 1
    assert run("resegment", out, "--segments", "shots").exit_code == 0
    features = FeatureStore.open(out).split("all")
    assert np.diff(features.segment_offsets).tolist() == [4, 1]
