"""From frame features to segment and clip features."""

import numpy as np
import pytest

from mlalign.extract.cache.writer import ArrayMatrix
from mlalign.extract.segments.cutting import frame_rows, normalise, pool


def pool_one(frames, place):
    (mean,) = pool(ArrayMatrix(frames), [place])
    return mean


def frames_of_span(sample_seconds, start, end):
    """The definition, frame by frame."""
    inside = [i for i, seconds in enumerate(sample_seconds) if start <= seconds < end]
    if inside:
        return inside
    shown = [i for i, seconds in enumerate(sample_seconds) if seconds <= (start + end) / 2]
    return [max(shown, default=0)]


def test_rows_have_length_one_and_keep_their_direction():
    values = np.random.default_rng(0).normal(size=(50, 8)) * 37
    unit = normalise(values)
    assert unit.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose((unit * values).sum(1), np.linalg.norm(values, axis=1), rtol=1e-5)


def test_a_row_of_zeros_stays_zero():
    unit = normalise(np.array([[0, 0], [3, 4]], dtype=np.float16))
    np.testing.assert_array_equal(unit[0], 0)
    np.testing.assert_allclose(unit[1], [0.6, 0.8], rtol=1e-6)


def test_pooling_does_not_hang_on_the_lengths_of_the_frames():
    frames = np.random.default_rng(1).normal(size=(9, 5)).astype(np.float32)
    lengths = np.random.default_rng(2).uniform(0.1, 50, size=(9, 1)).astype(np.float32)
    whole = pool_one(frames, slice(2, 7))
    np.testing.assert_allclose(pool_one(frames * lengths, slice(2, 7)), whole, rtol=1e-5, atol=1e-7)


def test_pooling_is_the_mean_of_unit_rows_and_is_not_normalised_again():
    frames = np.array([[2, 0], [0, 0.5], [9, 9]], dtype=np.float16)
    np.testing.assert_allclose(pool_one(frames, slice(0, 2)), [0.5, 0.5])
    assert pool_one(frames, slice(0, 2)).dtype == np.float16


@pytest.mark.parametrize("seed", range(5))
def test_blocks_do_not_change_the_means(seed, monkeypatch):
    """Places that overlap, in any order, over many blocks: as if each were taken alone."""
    rng = np.random.default_rng(seed)
    frames = rng.normal(size=(57, 6)).astype(np.float32)
    ends = np.sort(rng.integers(0, 58, size=(40, 2)), axis=1)
    places = [slice(int(a), int(b)) for a, b in ends if a < b]
    monkeypatch.setattr("mlalign.extract.segments.cutting.BLOCK_FRAMES", 5)
    means = pool(ArrayMatrix(frames), places)
    for mean, place in zip(means, places, strict=True):
        expected = normalise(frames)[place].astype(np.float64).mean(axis=0)
        np.testing.assert_allclose(mean, expected, rtol=1e-6, atol=1e-7)


def test_many_frames_of_float16_are_summed_without_loss():
    frames = np.tile(np.array([[3, 4]], dtype=np.float16), (100_000, 1))
    np.testing.assert_allclose(pool_one(frames, slice(0, 100_000)), [0.6, 0.8], rtol=1e-3)


@pytest.mark.parametrize("seed", range(20))
def test_the_frames_of_a_span_are_those_of_the_definition(seed):
    rng = np.random.default_rng(seed)
    sample_seconds = np.arange(rng.integers(1, 20)) / rng.choice([0.5, 1, 2, 5])
    last = sample_seconds[-1] + 3
    spans = [tuple(sorted(rng.uniform(0, last, 2).round(1).tolist())) for _ in range(30)]
    for span, rows in zip(spans, frame_rows(sample_seconds, spans), strict=True):
        expected = frames_of_span(sample_seconds.tolist(), *span)
        assert list(range(rows.start, rows.stop)) == expected


def test_a_span_without_a_sample_takes_the_frame_shown_at_its_middle():
    seconds = np.array([0.0, 1.0, 2.0])
    assert frame_rows(seconds, [(1.1, 1.9)]) == [slice(1, 2)]
    assert frame_rows(seconds, [(7.0, 9.0)]) == [slice(2, 3)]
    assert frame_rows(seconds, [(0.5, 0.5)]) == [slice(0, 1)]


def test_a_sample_at_the_end_of_a_span_belongs_to_the_next():
    assert frame_rows(np.array([0.0, 1.0, 2.0]), [(0.0, 1.0), (1.0, 3.0)]) == [
        slice(0, 1),
        slice(1, 3),
    ]
