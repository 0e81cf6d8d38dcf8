"""One clip from file to preprocessed pictures."""

import hashlib
import os

import numpy as np
import pytest

from mlalign.extract.config import DecoderLimits
from mlalign.extract.decode.clip_reader import (
    CHUNK_PICTURES,
    Chunk,
    ClipEnd,
    ClipFailure,
    ClipTask,
    DecodeSettings,
    read_clip,
)
from mlalign.extract.decode.preprocessing import Preprocessing
from mlalign.extract.decode.sources import HASH_BYTES, file_sha256
from mlalign.extract.segments.sampling import Sampling

PREPROCESSING = Preprocessing(
    height=48,
    width=48,
    resize_mode="squash",
    interpolation="bicubic",
    fill=0,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)


def settings(*, fps=5.0, decoder="pyav", **limits):
    return DecodeSettings(
        decoder=decoder,
        sampling=Sampling(fps=fps),
        preprocessing=PREPROCESSING,
        limits=DecoderLimits(**limits),
    )


def read(path, *, start=0.0, end=None, **options):
    task = ClipTask(clip_id="clip", path=path, start_seconds=start, end_seconds=end)
    return list(read_clip(task, settings(**options)))


def failure(path, **options):
    *_, last = read(path, **options)
    assert isinstance(last, ClipFailure)
    return last.reason


@pytest.fixture(scope="module")
def video(tmp_path_factory, make_video):
    """60 frames in 6 s, and then one that stays for 4 s."""
    return make_video(tmp_path_factory.mktemp("frames") / "a.mp4", [*range(0, 6000, 100), 10_000])


@pytest.mark.parametrize("decoder", ["pyav", "ffmpeg"])
def test_chunks_join_to_the_whole_clip(video, decoder, number_of):
    *chunks, end = read(video, fps=10.0, decoder=decoder)
    assert isinstance(end, ClipEnd) and all(isinstance(chunk, Chunk) for chunk in chunks)
    pictures = np.concatenate([chunk.pictures for chunk in chunks if len(chunk.pictures)])
    index = np.concatenate([chunk.picture_index for chunk in chunks])
    sampled = np.concatenate([chunk.sample_seconds for chunk in chunks])
    shown = np.concatenate([chunk.seconds for chunk in chunks])
    numbers = np.array([number_of(picture) for picture in pictures])
    assert pictures.dtype == np.uint8 and pictures.shape[1:] == (48, 48, 3)
    # The last frame but one is on the screen from 5.9 s to 10 s, and comes as one picture.
    np.testing.assert_array_equal(numbers, np.arange(61))
    np.testing.assert_allclose(sampled, np.arange(len(sampled)) / 10)
    expected = np.where(sampled < 10, np.minimum(np.arange(len(sampled)), 59), 60)
    np.testing.assert_array_equal(numbers[index], expected)
    assert (shown <= sampled + 1e-9).all()


def test_a_chunk_holds_no_more_pictures_than_a_message_may(video):
    *chunks, _ = read(video, fps=10.0)
    assert max(len(chunk.pictures) for chunk in chunks) == CHUNK_PICTURES


def test_the_end_carries_the_digest_of_the_source(video):
    end = read(video, end=1.0)[-1]
    assert end.source_sha256 == hashlib.sha256(video.read_bytes()).hexdigest()
    assert end.result.duration_seconds == 1.0
    assert end.result.problem is None


def test_what_is_no_regular_file_fails_with_its_reason(tmp_path):
    os.mkfifo(tmp_path / "fifo.mp4")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    assert failure(tmp_path / "nothing.mp4") == "the file does not exist"
    assert failure(tmp_path / "dangling.mp4") == "the file does not exist"
    assert failure(tmp_path / "fifo.mp4") == "not a regular file"
    assert failure(tmp_path / "folder.mp4").startswith("a folder; of frame images")
    assert "cannot be reached" in failure(tmp_path / "loop.mp4")
    assert failure(type(tmp_path)("/dev/zero")) == "not a regular file"


def test_a_name_over_the_systems_limit_fails(tmp_path):
    assert "cannot be reached" in failure(tmp_path / ("a" * 300 + ".mp4"))


def test_a_link_to_a_video_is_read(video, tmp_path):
    (tmp_path / "link.mp4").symlink_to(video)
    assert isinstance(read(tmp_path / "link.mp4", end=1.0)[-1], ClipEnd)


def test_a_file_that_is_no_video_fails_with_its_reason(tmp_path):
    (tmp_path / "a.mp4").write_text("no video")
    assert "not a video" in failure(tmp_path / "a.mp4")


def test_more_samples_than_allowed_fail_the_clip(video):
    assert "more than 20 frames are sampled (limits.max_samples)" in failure(
        video, fps=10.0, max_samples=20
    )
    assert isinstance(read(video, fps=10.0, end=2.0, max_samples=20)[-1], ClipEnd)


def test_a_lack_of_memory_fails_the_clip_with_the_limit(video, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(Preprocessing, "apply", fail)
    assert failure(video, memory_gib=3) == "decoding takes over 3 GiB (limits.memory_gib)"


def test_the_last_message_is_the_only_one_that_ends_the_clip(video, tmp_path):
    for messages in (read(video), read(tmp_path / "nothing.mp4")):
        assert not any(isinstance(message, ClipEnd | ClipFailure) for message in messages[:-1])
        assert isinstance(messages[-1], ClipEnd | ClipFailure)


@pytest.mark.parametrize("decoder", ["pyav", "ffmpeg"])
@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_decoding_between_two_samples_shows_progress(make_video, tmp_path, decoder, codec):
    """One sample of 60 frames: whoever watches hears of each frame."""
    path = make_video(tmp_path / "a.mp4", list(range(0, 2400, 40)), codec=codec)
    heartbeats = []
    task = ClipTask(clip_id="a", path=path, start_seconds=0.0, end_seconds=None)
    *_, end = read_clip(
        task, settings(fps=0.1, decoder=decoder), heartbeat=lambda: heartbeats.append(1)
    )
    assert isinstance(end, ClipEnd)
    assert len(heartbeats) >= 60


def test_hashing_a_large_file_shows_progress(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(bytes(5 * HASH_BYTES + 1))
    heartbeats = []
    found = file_sha256(path, heartbeat=lambda: heartbeats.append(1))
    assert found == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(heartbeats) == 6
