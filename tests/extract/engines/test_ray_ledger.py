"""Every shard is done by some worker, whichever is lost."""

import pytest

from mlalign.extract.cache.contract import index_path
from mlalign.extract.engines.ray_ledger import MAX_ATTEMPTS, Ledger
from mlalign.extract.planning.plan import Work
from mlalign.extract.planning.progress import ProgressCounts


@pytest.fixture
def ledger(tmp_path):
    works = [Work(name=f"clips-{number}", items=[]) for number in range(3)]
    return Ledger("clips", works, tmp_path)


def name_of(work):
    return work and work.name


def test_a_lost_workers_shards_are_done_by_another_and_committed_ones_are_not(ledger):
    assert [name_of(ledger.take(0)) for _ in range(2)] == ["clips-0", "clips-1"]
    ledger.tell(ProgressCounts(committed=["clips-0"], clips=5))
    assert ledger.lose(0) == 1
    assert [name_of(ledger.take(1)) for _ in range(3)] == ["clips-2", "clips-1", None]
    news = ledger.news()
    assert (news.num_free, news.num_left, news.counts.clips) == (0, 2, 5)
    ledger.tell(ProgressCounts(committed=["clips-1", "clips-2"]))
    news = ledger.news()
    assert (news.num_left, news.given_up, news.counts.clips) == (0, [], 0)


def test_a_shard_that_is_on_disk_is_not_done_again(ledger, tmp_path):
    ledger.take(0)
    path = index_path(tmp_path, "clips", "clips-0.h5")
    path.parent.mkdir(parents=True)
    path.touch()
    ledger.lose(0)
    assert ledger.news().num_left == 2


def test_a_shard_that_loses_every_worker_is_given_up_and_the_others_are_done(ledger):
    for attempt in range(MAX_ATTEMPTS):
        while (work := ledger.take(attempt)) is not None and work.name != "clips-0":
            ledger.tell(ProgressCounts(committed=[work.name]))
        assert ledger.lose(attempt) == 1
    news = ledger.news()
    assert (news.num_free, news.num_left, news.given_up) == (0, 0, ["clips-0"])
