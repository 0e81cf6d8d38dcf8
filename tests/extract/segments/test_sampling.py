"""Which frame is shown when: against the definition, on random timelines in exact fractions."""

import random
from fractions import Fraction

import pytest

from mlalign.extract.segments.sampling import Sampling, Timed, choose, exact, samples


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


def choose_all(frames, rule, *, start=0.0, end=None):
    frames = list(frames)
    over = frames[-1].seconds + frames[-1].duration_seconds
    return flat(choose(frames, Sampling(rule=rule), over=lambda: over, start=start, end=end))


def keyed(num_frames, rate, *, every):
    """Frames of a constant rate, every so many a key frame."""
    return [
        Timed(Fraction(i, rate), Fraction(1, rate), i, is_key=i % every == 0)
        for i in range(num_frames)
    ]


def test_frames_are_spread_over_the_middles_of_equal_parts():
    found = choose_all(constant(80, 10), "frames:4")
    assert [sample for sample, *_ in found] == [1, 3, 5, 7]
    assert [picture for *_, picture in found] == [10, 30, 50, 70]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 40])
@pytest.mark.parametrize(("start", "end"), [(0.0, None), (1.3, None), (0.25, 2.5)])
def test_a_spread_of_n_gives_n_frames_of_the_clip(count, start, end):
    found = choose_all(constant(40, 10), f"frames:{count}", start=start, end=end)
    assert len(found) == count
    over = 4.0 if end is None else end
    for k, (sample, seconds, picture) in enumerate(found):
        assert sample == pytest.approx((k + 0.5) * (over - start) / count)
        assert seconds <= sample < seconds + 0.1 + 1e-9
        assert seconds == pytest.approx(picture / 10 - start)


def test_every_frame_is_a_sample_at_its_own_time():
    found = choose_all(constant(10, 10), "every-frame")
    assert found == [(i / 10, i / 10, i) for i in range(10)]


def test_every_frame_of_a_part_begins_with_the_one_on_the_screen():
    found = choose_all(constant(10, 10), "every-frame", start=0.25, end=0.5)
    assert [picture for *_, picture in found] == [2, 3, 4]
    assert [sample for sample, *_ in found] == pytest.approx([0, 0.05, 0.15])
    assert found[0][1] == pytest.approx(-0.05)


def test_keyframes_are_those_that_come_up_in_the_clip():
    frames = keyed(40, 10, every=8)
    assert [p for *_, p in choose_all(frames, "keyframes")] == [0, 8, 16, 24, 32]
    assert [p for *_, p in choose_all(frames, "keyframes", start=0.8, end=2.4)] == [8, 16]
    assert [p for *_, p in choose_all(frames, "keyframes", start=0.85)] == [16, 24, 32]


def test_a_part_without_a_key_frame_gives_what_is_on_the_screen_at_its_start():
    found = choose_all(keyed(40, 10, every=20), "keyframes", start=0.55, end=1.0)
    assert [picture for *_, picture in found] == [5]


def test_no_rule_samples_a_part_behind_the_end():
    for rule in ("every-frame", "keyframes"):
        assert choose_all(keyed(10, 10, every=2), rule, start=2.0) == []


@pytest.mark.parametrize("rule", ["frames", "frames:0", "frames:x", "frames:-1", "all", ""])
def test_unknown_rules_are_refused(rule):
    with pytest.raises(ValueError, match="unknown sampling"):
        Sampling(rule=rule)
