"""Decoding processes: what happens to one costs its clip and nothing else."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from mlalign.extract.config import DecoderLimits
from mlalign.extract.decode import worker_pool as local_decoders
from mlalign.extract.decode.clip_reader import (
    CHUNK_PICTURES,
    Chunk,
    ClipEnd,
    ClipFailure,
    ClipTask,
    DecodeSettings,
)
from mlalign.extract.decode.preprocessing import Preprocessing
from mlalign.extract.decode.worker_pool import MAX_WAITING_BYTES, LocalDecoders
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


ONE_CHUNK = CHUNK_PICTURES * 48 * 48 * 3


@pytest.fixture(scope="module")
def videos(tmp_path_factory, make_video):
    """Six videos; the frames of video i begin at number 100 * i."""
    folder = tmp_path_factory.mktemp("engines")
    return [
        make_video(folder / f"{i}.mp4", list(range(0, 3000, 40)), first_number=100 * i)
        for i in range(6)
    ]


@pytest.fixture(autouse=True)
def _no_process_is_left():
    yield
    assert multiprocessing.active_children() == []


def decoders(
    *, num_workers=2, max_waiting_bytes=MAX_WAITING_BYTES, fps=25.0, decoder="pyav", **limits
):
    settings = DecodeSettings(
        decoder=decoder,
        sampling=Sampling(fps=fps),
        preprocessing=PREPROCESSING,
        limits=DecoderLimits(**limits),
    )
    return LocalDecoders(settings, num_workers=num_workers, max_waiting_bytes=max_waiting_bytes)


def tasks_of(paths):
    return [
        ClipTask(clip_id=path.stem, path=path, start_seconds=0.0, end_seconds=None)
        for path in paths
    ]


def gather(events):
    messages = {}
    for task, message in events:
        messages.setdefault(task.clip_id, []).append(message)
    return messages


def check_whole(messages, first_number, number_of):
    *chunks, end = messages
    assert isinstance(end, ClipEnd), end
    assert all(isinstance(chunk, Chunk) for chunk in chunks)
    sampled = np.concatenate([chunk.sample_seconds for chunk in chunks])
    np.testing.assert_allclose(sampled, np.arange(75) / 25)
    numbers = [number_of(picture) for chunk in chunks for picture in chunk.pictures]
    assert numbers == list(range(first_number, first_number + 75))


def test_each_clips_messages_come_in_order_and_end_once(videos, number_of):
    # A queue of one: the processes wait for room.
    messages = gather(decoders(max_waiting_bytes=ONE_CHUNK).decode(tasks_of(videos)))
    assert set(messages) == {str(i) for i in range(6)}
    for i in range(6):
        check_whole(messages[str(i)], 100 * i, number_of)


def test_a_killed_process_fails_only_its_clip(videos, number_of):
    messages, victim = {}, None
    for task, message in decoders(num_workers=1, max_waiting_bytes=ONE_CHUNK).decode(
        tasks_of(videos[:3])
    ):
        messages.setdefault(task.clip_id, []).append(message)
        if victim is None:
            victim = task.clip_id
            [process] = multiprocessing.active_children()
            os.kill(process.pid, signal.SIGKILL)
    failed = [name for name, found in messages.items() if isinstance(found[-1], ClipFailure)]
    # It may have handed in the clip before it was killed; then the next one is the victim.
    assert len(failed) == 1
    assert messages[failed[0]][-1].reason == "the decoder crashed (SIGKILL)"
    for i in range(3):
        if str(i) not in failed:
            check_whole(messages[str(i)], 100 * i, number_of)


@pytest.mark.slow
def test_a_process_stuck_halfway_through_a_message_is_ended_too(tmp_path, make_video):
    """The first part of a message has come, the rest never will."""
    long = make_video(tmp_path / "long.mp4", list(range(0, 6000, 40)), size=(192, 128))
    messages = []
    one = decoders(num_workers=1, max_waiting_bytes=1, stall_seconds=2.5)
    for _, message in one.decode(tasks_of([long])):
        messages.append(message)
        if len(messages) == 1:
            time.sleep(1)  # meanwhile it fills the pipe, and waits with the rest of a message
            [process] = multiprocessing.active_children()
            os.kill(process.pid, signal.SIGSTOP)
    assert messages[-1].reason == "the decoder made no progress for 2.5 s and was ended"


def test_a_stuck_process_is_ended_after_the_stall_limit(videos):
    messages, is_stopped = {}, False
    began = time.monotonic()
    events = decoders(num_workers=1, max_waiting_bytes=ONE_CHUNK, stall_seconds=2.5).decode(
        tasks_of(videos[:3])
    )
    for task, message in events:
        messages.setdefault(task.clip_id, []).append(message)
        if not is_stopped:
            is_stopped = True
            [process] = multiprocessing.active_children()
            os.kill(process.pid, signal.SIGSTOP)
    assert time.monotonic() - began < 15
    failed = [name for name, found in messages.items() if isinstance(found[-1], ClipFailure)]
    assert len(failed) == 1
    reason = messages[failed[0]][-1].reason
    assert reason == "the decoder made no progress for 2.5 s and was ended"
    assert {name for name in messages if name not in failed} | set(failed) == {"0", "1", "2"}


@pytest.mark.slow
def test_a_slow_encoder_is_no_stall_of_the_decoders(videos, tmp_path, make_video, number_of):
    large = make_video(tmp_path / "large.mp4", list(range(0, 720, 40)), size=(1920, 1080))
    one = decoders(max_waiting_bytes=ONE_CHUNK, stall_seconds=2.5)
    messages = {}
    for task, message in one.decode(tasks_of([videos[0], large])):
        if not messages:
            time.sleep(3)  # meanwhile one process waits for room, and the other one is at work
        messages.setdefault(task.clip_id, []).append(message)
    check_whole(messages["0"], 0, number_of)
    assert isinstance(messages["large"][-1], ClipEnd), messages["large"][-1]


def test_a_clip_over_the_memory_limit_fails_and_the_next_is_read(
    videos, tmp_path, make_video, number_of
):
    large = make_video(
        tmp_path / "large.mkv", [0], size=(6000, 6000), codec="mjpeg", pixel_format="yuvj420p"
    )
    one = decoders(num_workers=1, memory_gib=0.4)
    messages = gather(one.decode(tasks_of([large, videos[1]])))
    assert messages["large"][-1].reason == "decoding takes over 0.4 GiB (limits.memory_gib)"
    check_whole(messages["1"], 100, number_of)


@pytest.mark.parametrize("decoder", ["pyav", "ffmpeg"])
def test_closing_the_iteration_early_leaves_no_processes(videos, decoder):
    events = decoders(max_waiting_bytes=ONE_CHUNK, decoder=decoder).decode(tasks_of(videos))
    next(events)
    before = multiprocessing.active_children()
    events.close()
    assert before and multiprocessing.active_children() == []


def test_an_error_of_the_tasks_shows_where_they_are_decoded(videos):
    def tasks():
        yield from tasks_of(videos[:1])
        raise ValueError("no such table")

    with pytest.raises(ValueError, match="no such table"):
        gather(decoders(num_workers=1).decode(tasks()))


def test_no_clips_need_no_processes():
    assert list(decoders().decode([])) == []


def test_a_bad_file_among_good_ones_fails_alone(videos, tmp_path, number_of):
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    messages = gather(decoders(num_workers=1).decode(tasks_of([bad, videos[2]])))
    [only] = messages["bad"]
    assert isinstance(only, ClipFailure) and "not a video" in only.reason
    check_whole(messages["2"], 200, number_of)


def test_decoding_processes_load_no_tables_arrays_on_disk_or_towers():
    """Each of them would pay for it, in start-up and in memory."""
    heavy = ("pyarrow", "h5py", "torch", "open_clip", "cv2", "scenedetect")
    listing = f"[m for m in {heavy} if m in sys.modules]"
    code = f"import sys, mlalign.extract.decode.worker_pool; print({listing})"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_signs_of_life_are_sent_now_and_then(monkeypatch):
    ours, theirs = multiprocessing.Pipe()
    monkeypatch.setattr(local_decoders, "HEARTBEAT_SECONDS", 0.1)
    sender = local_decoders._MessageSender(theirs)
    over = time.monotonic() + 0.45
    while time.monotonic() < over:
        sender.heartbeat()
    theirs.close()
    signs = []
    with contextlib.suppress(EOFError):
        while True:
            signs.append(ours.recv())
    assert set(signs) == {None} and 1 <= len(signs) <= 4


@pytest.mark.slow
def test_a_clip_that_takes_too_long_is_ended_before_it_stalls(videos):
    is_stopped, messages = False, {}
    limits = {"decode_seconds": 2.5, "stall_seconds": 60}
    for task, message in decoders(num_workers=1, max_waiting_bytes=ONE_CHUNK, **limits).decode(
        tasks_of(videos[:2])
    ):
        messages.setdefault(task.clip_id, []).append(message)
        if not is_stopped:
            is_stopped = True
            [process] = multiprocessing.active_children()
            os.kill(process.pid, signal.SIGSTOP)
    [failure] = [found[-1] for found in messages.values() if isinstance(found[-1], ClipFailure)]
    assert failure.reason == "decoding takes over 2.5 s (limits.decode_seconds) and was ended"


UNGUARDED = """
from pathlib import Path

from mlalign.extract.config import DecoderLimits
from mlalign.extract.decode.clip_reader import ClipTask, DecodeSettings
from mlalign.extract.decode.worker_pool import LocalDecoders
from mlalign.extract.decode.preprocessing import Preprocessing
from mlalign.extract.segments.sampling import Sampling

settings = DecodeSettings(
    decoder="pyav", sampling=Sampling(fps=1), limits=DecoderLimits(), preprocessing={preprocessing}
)
task = ClipTask(clip_id="a", path=Path({video!r}), start_seconds=0.0, end_seconds=None)
print(list(LocalDecoders(settings, num_workers=1).decode([task])))
"""


def test_a_script_without_a_main_guard_is_named_as_the_cause(videos, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED.format(preprocessing=PREPROCESSING, video=str(videos[0])))
    command = [sys.executable, "-P", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "a decoding process ended before it could start (exit code 1)" in done.stderr
    assert 'if __name__ == "__main__":' in done.stderr
