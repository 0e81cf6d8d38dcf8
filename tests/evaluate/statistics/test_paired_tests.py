"""Sign flips, McNemar's test and Holm's correction: facts, and every flip counted by loops."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from mlalign.evaluate.statistics.bootstrap import Sample
from mlalign.evaluate.statistics.paired_tests import (
    ENUMERATED_CLIPS,
    FLIPS,
    binomial_p_value,
    holm,
    mcnemar,
    sign_flip_p_values,
)


def differences(values: np.ndarray, clips: np.ndarray | None = None) -> Sample:
    columns = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
    clips = np.arange(len(columns)) if clips is None else clips
    return Sample(query_ids=[f"q{i}" for i in range(len(columns))], clusters=clips, values=columns)


def every_flip(values: np.ndarray, clips: np.ndarray) -> float:
    """The definition: of all ways to flip the clips' signs, those as far from zero."""
    names = np.unique(clips)
    observed = abs(sum(values))
    found = []
    for signs in itertools.product((1, -1), repeat=len(names)):
        by_clip = dict(zip(names, signs, strict=True))
        total = sum(by_clip[clip] * value for clip, value in zip(clips, values, strict=True))
        found.append(abs(total) >= observed - 1e-9)
    return float(np.mean(found))


@pytest.mark.parametrize("seed", range(4))
def test_few_clips_are_flipped_in_every_way(seed: int) -> None:
    rng = np.random.default_rng(seed)
    clips = np.sort(rng.integers(0, 8, 20))
    values = np.stack([rng.normal(0.4, 1, 20), rng.choice([-100.0, 0.0, 100.0], 20)], axis=1)
    found = sign_flip_p_values(differences(values, clips), seed=0)
    assert np.allclose(found, [every_flip(column, clips) for column in values.T])


def test_many_clips_are_flipped_at_random_and_come_near_every_flip() -> None:
    rng = np.random.default_rng(5)
    num = ENUMERATED_CLIPS + 3
    values, clips = rng.normal(0.3, 1, num), np.arange(num)
    (found,) = sign_flip_p_values(differences(values), seed=0)
    exact = every_flip(values, clips)
    assert abs(found - exact) < 4 * math.sqrt(exact * (1 - exact) / FLIPS)
    assert sign_flip_p_values(differences(values), seed=0) == found


def test_no_difference_is_no_evidence_and_the_order_of_rows_is_none_either() -> None:
    assert sign_flip_p_values(differences(np.zeros((6, 2))), seed=0).tolist() == [1, 1]
    values = np.random.default_rng(1).normal(0.2, 1, size=(80, 3))
    forward, backward = (sign_flip_p_values(differences(sign * values), seed=0) for sign in (1, -1))
    assert np.array_equal(forward, backward)
    assert sign_flip_p_values(differences(np.full(80, 0.1)), seed=0) == 1 / (FLIPS + 1)


def test_copies_of_a_query_in_its_clip_tell_nothing_new() -> None:
    gains = np.random.default_rng(2).normal(0.2, 1, 60)
    copies, clips = np.repeat(gains, 10), np.repeat(np.arange(60), 10)
    (once,) = sign_flip_p_values(differences(gains), seed=0)
    (clustered,) = sign_flip_p_values(differences(copies, clips), seed=0)
    (naive,) = sign_flip_p_values(differences(copies), seed=0)
    assert once == clustered and naive < once / 5


def test_without_a_difference_p_values_are_spread_evenly() -> None:
    values = np.random.default_rng(3).choice([-1.0, 0.0, 1.0], p=[0.3, 0.4, 0.3], size=(150, 400))
    found = sign_flip_p_values(differences(values), seed=0)
    for level in (0.05, 0.2, 0.5):
        assert abs((found <= level).mean() - level) < 0.07


def test_mcnemar_on_a_hand_worked_table() -> None:
    """9 gained, 2 lost: twice the chance of at most 2 heads in 11, (1 + 11 + 55) / 2048."""
    first = np.repeat([100.0, 0.0, 100.0, 0.0], [9, 2, 5, 4])
    second = np.repeat([0.0, 100.0, 100.0, 0.0], [9, 2, 5, 4])
    found = mcnemar(first, second)
    assert found is not None
    assert (found.gained, found.lost, found.p_value) == (9, 2, 2 * 67 / 2048)
    swapped = mcnemar(second, first)
    assert swapped is not None and swapped.p_value == found.p_value
    assert mcnemar(first / 2, second) is None, "means over seeds are neither right nor wrong"


def test_mcnemar_is_the_sign_flip_test_where_each_clip_has_one_query() -> None:
    for gained, lost in ((9, 2), (3, 3), (5, 0), (0, 0), (6, 7)):
        first = np.repeat([100.0, 0.0, 0.0], [gained, lost, 4])
        second = np.repeat([0.0, 100.0, 0.0], [gained, lost, 4])
        found = mcnemar(first, second)
        (flipped,) = sign_flip_p_values(differences(first - second), seed=0)
        assert found is not None and math.isclose(found.p_value, flipped)


def test_the_binomial_tail_agrees_with_its_sum_and_holds_for_many_queries() -> None:
    for gained, lost in ((0, 0), (1, 0), (4, 11), (40, 37)):
        num, fewer = gained + lost, min(gained, lost)
        tail = sum(math.comb(num, k) for k in range(fewer + 1)) / 2**num
        assert math.isclose(binomial_p_value(gained, lost), min(1.0, 2 * tail))
    normal = math.erfc(100 / math.sqrt(20_000) / math.sqrt(2))  # 10,050 against 9,950
    assert math.isclose(binomial_p_value(10_050, 9_950), normal, rel_tol=0.02)


def test_holm_on_hand_worked_p_values() -> None:
    assert np.allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([])).tolist() == []
    assert holm(np.array([0.7, 0.8])).tolist() == [1, 1]


def test_holm_rejects_as_the_steps_of_its_definition_do() -> None:
    rng = np.random.default_rng(4)
    for _ in range(50):
        p_values = rng.random(12) ** 3
        rejected = np.zeros(12, dtype=bool)
        for step, index in enumerate(np.argsort(p_values)):
            if p_values[index] > 0.05 / (12 - step):
                break
            rejected[index] = True
        corrected = holm(p_values)
        assert np.array_equal(corrected <= 0.05, rejected)
        assert (corrected >= p_values).all() and (corrected <= 1).all()
