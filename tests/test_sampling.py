"""Which frame is shown when: against the definition, on random timelines in exact fractions."""

import random
from fractions import Fraction

import pytest

from mlalign.extract.sampling import Timed, exact, samples


def shown_by_definition(frames, *, fps, start, end):
    """(k / fps, when the frame came up, its picture) of every instant, one instant at a time."""
    found = []
    over = frames[-1].seconds + frames[-1].duration_seconds
    k = 0
    while True:
        instant = exact(start) + k / exact(fps)
        if end is not None and instant >= exact(end) and k > 0:
            return found
        if instant >= over and not (k == 0 and instant <= frames[-1].seconds):
            return found
        # The last frame that has come up; the first one, when none has.
        shown = frames[0]
        for frame in frames:
            if frame.seconds <= instant:
                shown = frame
        found.append((float(k / exact(fps)), float(shown.seconds - exact(start)), shown.picture))
        k += 1


def random_timeline(rng):
    tick = Fraction(1, rng.choice([24, 1000, 30_000, 90_000]))
    seconds, frames = Fraction(0), []
    count = rng.randint(1, 12)
    for index in range(count):
        longest = int(rng.choice([Fraction(1, 10), 1, 5]) / tick)
        duration = rng.randint(1, max(longest, 1)) * tick
        frames.append(Timed(seconds, duration, index))
        seconds += duration
    return frames


def flat(found):
    return [(sample.sample_seconds, sample.seconds, sample.picture) for sample in found]


def constant(count, rate):
    gap = 1 / Fraction(rate)
    return [Timed(index * gap, gap, index) for index in range(count)]


@pytest.mark.parametrize("seed", range(60))
def test_samples_are_those_of_the_definition(seed):
    rng = random.Random(seed)
    frames = random_timeline(rng)
    total = float(frames[-1].seconds + frames[-1].duration_seconds)
    for fps in (0.3, 1.0, 5.0, 29.97, 60.0):
        start = rng.choice([0.0, round(rng.uniform(0, total * 0.99), 3)])
        end = rng.choice([None, round(start + rng.uniform(0.001, total), 3)])
        expected = shown_by_definition(frames, fps=fps, start=start, end=end)
        assert flat(samples(frames, fps=fps, start=start, end=end)) == expected


@pytest.mark.parametrize("rate", [1, 24, 50, 240])
def test_sampling_at_the_videos_own_rate_gives_every_frame_once(rate):
    found = list(samples(constant(40, rate), fps=float(rate)))
    assert [sample.picture for sample in found] == list(range(40))


def test_a_frame_that_comes_up_at_the_instant_is_the_one_shown():
    # 1.3 + 0.4 is 1.7000000000000002 in floats.
    frames = [Timed(Fraction(0), Fraction(17, 10), "a"), Timed(Fraction(17, 10), Fraction(1), "b")]
    found = list(samples(frames, fps=2.5, start=1.3))
    assert [sample.picture for sample in found[:2]] == ["a", "b"]
    assert found[1].seconds == 0.4


def test_times_are_relative_to_the_clip():
    found = list(samples(constant(10, 2), fps=1, start=1.25, end=3.0))
    assert flat(found) == [(0.0, -0.25, 2), (1.0, 0.75, 4)]


def test_a_clip_shorter_than_a_step_gives_one_sample():
    assert len(list(samples(constant(100, 25), fps=1, start=2.0, end=2.1))) == 1
    assert len(list(samples(constant(1, 25), fps=1))) == 1


def test_a_video_of_one_frame_without_a_duration_gives_it():
    assert flat(samples([Timed(Fraction(0), Fraction(0), "a")], fps=1)) == [(0.0, 0.0, "a")]


def test_a_clip_after_the_last_frame_gives_nothing():
    assert list(samples(constant(10, 10), fps=1, start=1.0)) == []
    assert list(samples(constant(10, 10), fps=1, start=5.0, end=9.0)) == []
    assert list(samples([], fps=1)) == []


def test_a_frame_is_shown_through_a_gap():
    frames = [Timed(Fraction(0), Fraction(1, 25), "a"), Timed(Fraction(4), Fraction(1, 25), "b")]
    assert [sample.picture for sample in samples(frames, fps=1)] == ["a", "a", "a", "a", "b"]


def test_nothing_beyond_the_end_of_the_clip_is_read():
    read = []

    def frames():
        for frame in constant(1000, 10):
            read.append(frame.picture)
            yield frame

    assert len(list(samples(frames(), fps=1, end=3.0))) == 3
    assert len(read) <= 32


def test_the_picture_of_the_docstring():
    times = [("a", 0), ("b", "2/3"), ("c", "7/6"), ("d", "19/6")]
    frames = [Timed(Fraction(at), Fraction(1, 2), name) for name, at in times]
    assert [sample.picture for sample in samples(frames, fps=1)] == ["a", "b", "c", "c"]
