"""Every shard is done by some worker, whichever is lost."""

import pytest

from mlalign.extract.cache.contract import index_path
from mlalign.extract.engines.ray_queue import MAX_ATTEMPTS, ShardQueue
from mlalign.extract.planning.plan import Work
from mlalign.extract.planning.progress import ProgressCounts


@pytest.fixture
def queue(tmp_path):
    works = [Work(name=f"clips-{number}", items=[]) for number in range(3)]
    return ShardQueue("clips", works, tmp_path)


def name_of(work):
    return work and work.name


def test_a_lost_workers_shards_are_done_by_another_and_committed_ones_are_not(queue):
    assert [name_of(queue.take(0)) for _ in range(2)] == ["clips-0", "clips-1"]
    queue.report(ProgressCounts(committed=["clips-0"], clips=5))
    assert queue.release(0) == 1
    assert [name_of(queue.take(1)) for _ in range(3)] == ["clips-2", "clips-1", None]
    status = queue.status()
    assert (status.num_free, status.num_left, status.counts.clips) == (0, 2, 5)
    queue.report(ProgressCounts(committed=["clips-1", "clips-2"]))
    status = queue.status()
    assert (status.num_left, status.given_up, status.counts.clips) == (0, [], 0)


def test_a_shard_that_is_on_disk_is_not_done_again(queue, tmp_path):
    queue.take(0)
    path = index_path(tmp_path, "clips", "clips-0.h5")
    path.parent.mkdir(parents=True)
    path.touch()
    queue.release(0)
    assert queue.status().num_left == 2


def test_a_shard_that_loses_every_worker_is_given_up_and_the_others_are_done(queue):
    for attempt in range(MAX_ATTEMPTS):
        while (work := queue.take(attempt)) is not None and work.name != "clips-0":
            queue.report(ProgressCounts(committed=[work.name]))
        assert queue.release(attempt) == 1
    status = queue.status()
    assert (status.num_free, status.num_left, status.given_up) == (0, 0, ["clips-0"])
