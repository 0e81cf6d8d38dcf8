"""Rules that cut clips."""

import math
import random

import pytest

from mlalign.extract.segments import fixed, parse_rule, text_spans, uniform

DURATIONS = [0.04, 0.6, 1.0, 1.1, 2.3, 9.9, 10.0, 29.97, 3599.5]


def tiles(spans, duration):
    assert spans[0][0] == 0.0
    assert spans[-1][1] == duration
    for before, after in zip(spans[:-1], spans[1:], strict=True):
        assert before[1] == after[0]


@pytest.mark.parametrize("duration", DURATIONS)
@pytest.mark.parametrize("count", [1, 3, 4, 7, 100])
def test_uniform_spans_tile_the_clip_in_equal_parts(duration, count):
    spans = uniform(duration, count=count)
    tiles(spans, duration)
    assert len(spans) == count
    for start, end in spans:
        assert end - start == pytest.approx(duration / count, rel=1e-9)


@pytest.mark.parametrize("duration", DURATIONS)
@pytest.mark.parametrize("seconds", [0.1, 0.3, 1.0, 2.2, 3.3, 10.0, 10_000.0])
def test_fixed_spans_tile_the_clip_and_only_the_last_is_shorter(duration, seconds):
    spans = fixed(duration, seconds=seconds)
    tiles(spans, duration)
    for start, end in spans[:-1]:
        assert end - start == pytest.approx(seconds, rel=1e-9)
    assert 0 < spans[-1][1] - spans[-1][0] <= seconds + 1e-9


def test_fixed_spans_are_as_many_as_arithmetic_has_them():
    rng = random.Random(0)
    for _ in range(500):
        tenths, parts = rng.randint(1, 100), rng.randint(1, 60)
        # The duration in floats may be just above or below the product.
        spans = fixed(tenths * parts / 10, seconds=tenths / 10)
        assert len(spans) == parts, (tenths, parts)
        spans = fixed(tenths * parts / 10 + 0.01, seconds=tenths / 10)
        assert len(spans) == parts + math.ceil(0.01 / tenths), (tenths, parts)


def test_text_spans_are_the_different_ones_by_start():
    assert text_spans(9.0, [(4.0, 6.0), (0.0, 3.0), (4.0, 6.0), (4.0, 5.0)]) == [
        (0.0, 3.0),
        (4.0, 5.0),
        (4.0, 6.0),
    ]


def test_a_clip_without_spans_is_one_segment():
    assert text_spans(9.0, []) == [(0.0, 9.0)]


@pytest.mark.parametrize("name", ["uniform:1", "uniform:4", "fixed:0.5", "fixed:3", "spans"])
def test_every_rule_gives_a_segment_of_any_clip(name):
    for duration in (0.0, 0.04, 5.0):
        assert len(parse_rule(name)(duration, [])) >= 1


def test_names_stand_for_their_rules():
    spans = [(1.0, 2.0)]
    assert parse_rule("uniform:2")(4.0, spans) == [(0.0, 2.0), (2.0, 4.0)]
    assert parse_rule("fixed:3")(4.0, spans) == [(0.0, 3.0), (3.0, 4.0)]
    assert parse_rule("spans")(4.0, spans) == spans


@pytest.mark.parametrize(
    "name",
    ["", "uniform", "uniform:", "uniform:0", "uniform:-1", "uniform:1.5", "uniform:10001"]
    + ["uniform:" + "9" * 5000, "fixed", "fixed:", "fixed:0", "fixed:-3", "fixed:nan", "fixed:inf"]
    + ["fixed:three", "spans:4", "Spans", "shots", " spans"],
)
def test_a_name_that_stands_for_no_rule_is_refused_with_those_there_are(name):
    with pytest.raises(ValueError, match="rules are uniform:N, fixed:SECONDS and spans"):
        parse_rule(name)
