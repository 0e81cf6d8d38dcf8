"""Rows in memory and in a file: whatever was put in comes out, and memory stays bounded."""

import numpy as np
import pytest

from mlalign.extract.cache.contract import DiskError
from mlalign.extract.cache.spool import Spool, SpooledMatrix
from mlalign.extract.cache.writer import ArrayMatrix


@pytest.fixture
def spool(tmp_path):
    spool = Spool(tmp_path, memory_bytes=100)
    yield spool
    spool.close()


def fill(spool, count, *, width=8):
    rows = np.random.default_rng(0).normal(size=(count, width)).astype(np.float16)
    assert [spool.append(row) for row in rows] == list(range(count))
    return rows


@pytest.mark.parametrize("count", [1, 6, 7, 8, 50])
def test_any_rows_come_back_in_any_order(spool, count):
    rows = fill(spool, count)
    rng = np.random.default_rng(1)
    for _ in range(20):
        numbers = rng.integers(0, count, size=rng.integers(1, 30))
        taken = spool.take(numbers)
        assert taken.dtype == np.float16
        np.testing.assert_array_equal(taken, rows[numbers])


def test_rows_can_be_added_after_some_were_taken(spool):
    first = fill(spool, 20)
    np.testing.assert_array_equal(spool.take(np.arange(20)), first)
    more = np.ones(8, dtype=np.float16)
    assert spool.append(more) == 20
    np.testing.assert_array_equal(spool.take(np.array([20, 3])), [more, first[3]])


def test_memory_does_not_grow_with_the_rows(spool):
    for row in np.zeros((1000, 8), dtype=np.float16):
        spool.append(row)
        assert spool.num_waiting_bytes < 100


def test_the_file_has_no_name(spool, tmp_path):
    fill(spool, 50)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_is_named(tmp_path):
    spool = Spool(tmp_path / "gone", memory_bytes=10)
    with pytest.raises(DiskError, match="cannot write .*gone"):
        fill(spool, 1)


def test_blocks_of_spooled_rows_are_those_of_the_array(spool):
    rows = fill(spool, 30)
    numbers = np.array([4, 4, 9, 20, 29, 3])
    spooled = SpooledMatrix(spool, numbers, width=8, dtype="float16")
    whole = ArrayMatrix(rows[numbers])
    assert spooled.shape == whole.shape == (6, 8) and spooled.dtype == whole.dtype
    for start in range(6):
        np.testing.assert_array_equal(spooled.read(start, start + 2), whole.read(start, start + 2))


def test_a_part_of_an_array_is_read_from_its_first_row():
    values = np.arange(20).reshape(10, 2)
    part = ArrayMatrix(values, first=3, count=4)
    assert part.shape == (4, 2)
    np.testing.assert_array_equal(part.read(1, 3), values[4:6])
