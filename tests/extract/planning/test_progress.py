"""Counts, waits and stalls are reported and shown; queues are bounded in bytes."""

import threading
import time

import pytest

from mlalign.extract.decode.byte_queue import ByteQueue
from mlalign.extract.planning.progress import (
    ExtractionProgress,
    ProgressCounter,
    ProgressCounts,
    reported_progress,
)


def test_each_count_is_reported_once():
    counter = ProgressCounter()
    counter.count(ProgressCounts(clips=2, failed=1, frames=30, lines=["a"], committed=["x"]))
    counter.count(ProgressCounts(frames=2, lines=["b"]))
    reported = counter.take()
    assert (reported.clips, reported.failed, reported.frames) == (2, 1, 32)
    assert (reported.lines, reported.committed) == (["a", "b"], ["x"])
    assert counter.take() == ProgressCounts()


def test_a_wait_that_is_not_over_counts_so_far():
    counter = ProgressCounter()
    with counter.waiting("decoder"):
        time.sleep(0.05)
        first = counter.take().waited["decoder"]
        time.sleep(0.05)
    second = counter.take().waited["decoder"]
    assert first >= 0.05 and second >= 0.05
    assert counter.take().waited == {"decoder": 0.0, "encoder": 0.0}


def test_telling_goes_on_during_a_stall_and_ends_with_the_rest():
    counter, reported, stalled = ProgressCounter(), [], threading.Event()

    def tell(counts):
        reported.append(counts)
        if counts.waited["encoder"] > 0:
            stalled.set()

    with reported_progress(counter, tell, every_seconds=0.01):
        with counter.waiting("encoder"):
            assert stalled.wait(timeout=10)
        counter.count(ProgressCounts(frames=7))
    assert sum(counts.frames for counts in reported) == 7


def test_the_log_says_who_waits_for_whom(monkeypatch, capsys):
    monkeypatch.setattr("mlalign.data_manifests.core.progress_bar.LOG_SECONDS", 0.0)
    with ExtractionProgress(num_clips=4, title="extracting (float32 on cpu)") as progress:
        progress.add(ProgressCounts(clips=1, frames=20, waited={"decoder": 0.1, "encoder": 3.9}))
        progress.add(ProgressCounts(waited={"decoder": 2.0, "encoder": 0.0}))
        progress.add(ProgressCounts(clips=3, failed=1, lines=["failed: x: no"]))
    assert (progress.total.clips, progress.total.frames) == (4, 20)
    first, second, line, third = capsys.readouterr().err.splitlines()
    assert first.startswith("extracting (float32 on cpu): 1/4 clips, 20 frames, ")
    assert first.endswith("waiting for the encoder (98% of the time)")
    assert second.endswith("waiting for the decoder (100% of the time)")
    assert line == "failed: x: no"
    assert "4/4 clips" in third and "1 failed" in third
    assert third.endswith("decoder and encoder keep pace")


def test_a_byte_queue_keeps_order_and_is_full_by_bytes():
    queue = ByteQueue(100)
    assert queue.put("large", num_bytes=1000), "any one item fits"
    assert not queue.put("next", num_bytes=1, timeout_seconds=0.01)
    assert queue.get() == "large"
    for name in "abc":
        assert queue.put(name, num_bytes=40)
    assert queue.num_bytes == 120
    assert not queue.put("d", num_bytes=0, timeout_seconds=0.01)
    assert [queue.get() for _ in "abc"] == ["a", "b", "c"]
    with pytest.raises(TimeoutError):
        queue.get(timeout_seconds=0.01)


def test_a_full_byte_queue_takes_more_once_something_is_taken_out():
    queue = ByteQueue(10)
    queue.put(0, num_bytes=10)
    thread = threading.Thread(target=lambda: [queue.put(n, num_bytes=10) for n in range(1, 4)])
    thread.start()
    assert [queue.get(timeout_seconds=10) for _ in range(4)] == [0, 1, 2, 3]
    thread.join()
