"""Rules that cut clips."""

import itertools
import json
import math
import random
import re
from fractions import Fraction

import pytest

from mlalign.extract.segments.rules import (
    MAX_SEGMENTS,
    fixed,
    parse_rule,
    shot_spans,
    text_spans,
    uniform,
)

KNOWN = "rules are uniform:N, fixed:SECONDS[:STRIDE], shots and spans"
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


def windows_one_by_one(duration, seconds, stride):
    """The definition: one at every stride that begins before the end, until one reaches it."""
    spans = []
    while True:
        start = len(spans) * stride
        if spans and start >= duration:
            return spans
        spans.append((start, min(start + seconds, duration)))
        if start + seconds >= duration:
            return spans


@pytest.mark.parametrize("seed", range(5))
def test_windows_are_those_of_the_definition_in_exact_arithmetic(seed):
    rng = random.Random(seed)
    for _ in range(200):
        duration, seconds, stride = (
            Fraction(rng.randint(1, 400), rng.choice([1, 2, 10, 100])) for _ in range(3)
        )
        expected = windows_one_by_one(duration, seconds, stride)
        found = fixed(float(duration), seconds=float(seconds), stride=float(stride))
        assert found == [(float(start), float(end)) for start, end in expected]


def test_overlapping_windows_end_with_the_first_that_reaches_the_end():
    assert fixed(10.0, seconds=4.0, stride=3.0) == [(0, 4), (3, 7), (6, 10)]
    assert fixed(10.5, seconds=4.0, stride=3.0) == [(0, 4), (3, 7), (6, 10), (9, 10.5)]
    assert fixed(3.0, seconds=4.0, stride=1.0) == [(0, 3)]


def test_windows_with_gaps_leave_out_what_lies_between():
    assert fixed(10.0, seconds=2.0, stride=4.0) == [(0, 2), (4, 6), (8, 10)]
    assert fixed(11.0, seconds=2.0, stride=4.0) == [(0, 2), (4, 6), (8, 10)]
    assert fixed(8.0, seconds=2.0, stride=4.0) == [(0, 2), (4, 6)]


def test_a_clip_that_claims_to_last_for_years_is_not_cut_without_end():
    assert MAX_SEGMENTS == 100_000
    with pytest.raises(ValueError, match="more than 100000 segments in 1e[+]09 s"):
        parse_rule("fixed:10")(1e9, [])


def test_shots_go_from_cut_to_cut():
    assert shot_spans(9.0, []) == [(0.0, 9.0)]
    assert shot_spans(9.0, [2.0, 7.5]) == [(0.0, 2.0), (2.0, 7.5), (7.5, 9.0)]


def test_text_spans_are_the_different_ones_by_start():
    assert text_spans(9.0, [(4.0, 6.0), (0.0, 3.0), (4.0, 6.0), (4.0, 5.0)]) == [
        (0.0, 3.0),
        (4.0, 5.0),
        (4.0, 6.0),
    ]


def test_a_clip_without_spans_is_one_segment():
    assert text_spans(9.0, []) == [(0.0, 9.0)]


@pytest.mark.parametrize(
    "name",
    ["uniform:1", "uniform:4", "fixed:0.5", "fixed:3", "fixed:3:1", "fixed:1:3", "shots", "spans"],
)
def test_every_rule_gives_a_segment_of_any_clip(name):
    for duration in (0.0, 0.04, 5.0):
        assert len(parse_rule(name)(duration, [])) >= 1


def test_names_stand_for_their_rules():
    spans = [(1.0, 2.0)]
    assert parse_rule("uniform:2")(4.0, spans) == [(0.0, 2.0), (2.0, 4.0)]
    assert parse_rule("fixed:3")(4.0, spans) == [(0.0, 3.0), (3.0, 4.0)]
    assert parse_rule("fixed:3:0.5")(4.0, spans) == [(0.0, 3.0), (0.5, 3.5), (1.0, 4.0)]
    assert parse_rule("fixed:3")(7.0, spans) == parse_rule("fixed:3:3")(7.0, spans)
    assert parse_rule("spans")(4.0, spans) == spans
    assert parse_rule("shots")(4.0, spans, [0.5, 3.0]) == [(0.0, 0.5), (0.5, 3.0), (3.0, 4.0)]


@pytest.mark.parametrize(
    "name",
    ["", "uniform", "uniform:", "uniform:0", "uniform:-1", "uniform:1.5", "uniform:10001"]
    + ["uniform:" + "9" * 5000, "fixed", "fixed:", "fixed:0", "fixed:-3", "fixed:nan", "fixed:inf"]
    + ["fixed:three", "fixed:3:", "fixed:3:0", "fixed::3", "fixed:3:-1", "fixed:3:1:1"]
    + ["fixed:3:inf", "spans:4", "Spans", "scenes", "shots:3", "Shots", " spans"],
)
def test_a_name_that_stands_for_no_rule_is_refused_with_those_there_are(name):
    with pytest.raises(ValueError, match=re.escape(KNOWN)):
        parse_rule(name)


@pytest.mark.slow
def test_any_rule_of_a_cache_can_be_trained_on_and_scored(tmp_path):
    from click.testing import CliRunner

    from mlalign.align.cli import main as align
    from mlalign.data_manifests.scenes.make import write_scenes
    from mlalign.evaluate.cli import main as evaluate
    from mlalign.extract.cache.store import FeatureStore
    from mlalign.extract.cli import main as extract

    def run(command, *arguments):
        done = CliRunner().invoke(command, [str(argument) for argument in arguments])
        assert done.exit_code == 0, done.output
        return done.stdout

    scenes, cache, out = tmp_path / "scenes", tmp_path / "cache", tmp_path / "run"
    write_scenes(scenes, num_clips=10, seed=0, num_processes=1)
    rules = ["uniform:2", "fixed:2:1", "spans"]
    named = [word for rule in rules for word in ("--segments", rule)]
    run(extract, scenes, "-o", cache, "--backbone", "tiny", "--workers", 1, *named)
    store = FeatureStore.open(cache)
    assert store.segment_rules == tuple(rules)
    for rule in rules:
        features = store.split("train", segments=rule)
        assert features.segment_rule == rule
        for place, (first, last) in enumerate(itertools.pairwise(features.segment_offsets)):
            of_texts = features.text_spans[features.text_clips == place].tolist()
            expected = parse_rule(rule)(
                features.clip_durations[place],
                [tuple(span) for span in of_texts if not math.isnan(span[0])],
            )
            assert features.segment_spans[first:last].tolist() == [list(span) for span in expected]
    run(align, cache, "-o", out, "--set", "data.segments=fixed:2:1", "--set", "optimiser.epochs=1")
    scored = run(
        *(evaluate, cache, "--run", out, "-o", tmp_path / "report", "--json"),
        *("--set", "segment_rule=fixed:2:1", "--set", "bootstrap_samples=50"),
    )
    assert json.loads(scored)
