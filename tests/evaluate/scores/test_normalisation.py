"""QB-Norm and dual softmax: what they do to hubs, and their definitions on whole matrices."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mlalign.data_manifests.cards.scoring_rules import Direction
from mlalign.evaluate.config import (
    EvaluationConfig,
    NormalisationName,
    SegmentScoreConfig,
)
from mlalign.evaluate.scores.normalisation import SMALLEST_FACTOR, assumption, nearness, normalisers
from mlalign.evaluate.scores.ranks import Ranks
from mlalign.evaluate.scores.similarity import retrieval_ranks
from mlalign.evaluate.scores.vectors import TwoLevelVectors
from mlalign.extract.cache.ragged import Ragged

CONFIG = EvaluationConfig(qb_norm_beta=20, dual_softmax_temperature=0.05)
WEIGHTS = [1.0, 0.0, 0.3]
BOTH: list[NormalisationName] = ["qb_norm", "dual_softmax"]


def two_level(rng: np.random.Generator, num: int, *, width: int = 8) -> TwoLevelVectors:
    offsets = np.concatenate([[0], np.cumsum(rng.integers(1, 4, size=num))])
    shift = np.linspace(0.6, 0, width)  # cosines of both signs, and hubs
    wholes = rng.normal(size=(num, width)) + shift
    parts = rng.normal(size=(int(offsets[-1]), width)) + shift
    return TwoLevelVectors(wholes=unit(wholes), parts=unit(parts), offsets=offsets)


def unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / lengths, dtype=np.float32)


def from_wholes(wholes: np.ndarray) -> TwoLevelVectors:
    vectors = np.asarray(wholes, dtype=np.float32)
    return TwoLevelVectors(wholes=vectors, parts=vectors, offsets=np.arange(len(vectors) + 1))


def matrix(texts: TwoLevelVectors, clips: TwoLevelVectors, weight: float) -> np.ndarray:
    """(texts, clips) float64: weight * global + (1 - weight) * mean over sentences of the best."""
    whole = np.float64(texts.wholes) @ np.float64(clips.wholes).T
    parts = np.float64(texts.parts) @ np.float64(clips.parts).T
    best = np.maximum.reduceat(parts, clips.offsets[:-1], axis=1)
    counts = np.diff(texts.offsets)[:, None]
    return weight * whole + (1 - weight) * np.add.reduceat(best, texts.offsets[:-1]) / counts


def by_definition(name: NormalisationName, asked: np.ndarray, bank: np.ndarray) -> np.ndarray:
    """(queries, items) from the whole matrices of scores, queries first, as the papers write it."""
    if name == "qb_norm":
        hubs = set(bank.argmax(axis=1).tolist())
        inverted = np.exp(CONFIG.qb_norm_beta * asked) / np.exp(CONFIG.qb_norm_beta * bank).sum(0)
        finds_hub = [row.argmax() in hubs for row in asked]
        return np.where(np.array(finds_hub)[:, None], inverted, asked)
    shares = np.exp(bank / CONFIG.dual_softmax_temperature)
    return np.maximum(asked, SMALLEST_FACTOR) * shares / shares.sum(axis=0)


def by_blocks(
    name: NormalisationName,
    texts: TwoLevelVectors,
    clips: TwoLevelVectors,
    bank: TwoLevelVectors,
    correct: Ragged,
    *,
    direction: Direction,
    block_bytes: int,
) -> list[Ranks]:
    forward = direction == "text_to_clip"
    normalise = normalisers(
        name,
        bank if forward else texts,
        clips if forward else bank,
        direction=direction,
        weights=WEIGHTS,
        config=CONFIG,
        block_bytes=block_bytes,
    )
    return retrieval_ranks(
        texts,
        clips,
        correct,
        direction=direction,
        weights=WEIGHTS,
        segment_score=SegmentScoreConfig(),
        normalise=normalise,
        block_bytes=block_bytes,
    )


@pytest.mark.parametrize("block_bytes", [1, 2000, 10**8])
@pytest.mark.parametrize("direction", ["text_to_clip", "clip_to_text"])
@pytest.mark.parametrize("name", BOTH)
def test_blocks_agree_with_the_definition_on_whole_matrices(
    name: NormalisationName, direction: Direction, block_bytes: int
) -> None:
    rng = np.random.default_rng(0)
    texts, clips = two_level(rng, 40), two_level(rng, 25)
    owner = np.concatenate([np.arange(25), rng.integers(0, 25, 15)])
    forward = direction == "text_to_clip"
    queries = texts if forward else clips
    correct = Ragged.singles(owner)
    if not forward:
        correct = Ragged.of([np.flatnonzero(owner == clip) for clip in range(25)])
    bank = queries if name == "dual_softmax" else two_level(rng, 6)
    found = by_blocks(
        name, texts, clips, bank, correct, direction=direction, block_bytes=block_bytes
    )
    changed = 0
    for ranks, weight in zip(found, WEIGHTS, strict=True):
        asked = matrix(texts, clips, weight)
        of_bank = matrix(bank, clips, weight) if forward else matrix(texts, bank, weight).T
        asked = asked if forward else asked.T
        normalised = by_definition(name, asked, of_bank)
        right = np.split(correct.values, correct.offsets[1:-1])
        expected = [_rank(row, own) for row, own in zip(normalised, right, strict=True)]
        assert ranks.ranks.tolist() == expected
        changed += sum(
            rank != _rank(row, own) for rank, row, own in zip(expected, asked, right, strict=True)
        )
    assert changed, "a test of nothing where no rank changes"


def _rank(row: np.ndarray, right: np.ndarray) -> int:
    return int(sum(row[item] >= row[right].max() for item in set(range(len(row))) - set(right)))


def test_a_hub_is_found_less_often() -> None:
    """Item 0 is the nearest to every query."""
    rng = np.random.default_rng(1)
    items = unit(np.concatenate([np.ones((1, 12)), np.eye(12) + 0.05]))
    asked = from_wholes(unit(np.eye(12) * 0.4 + 0.3 + 0.02 * rng.normal(size=(12, 12))))
    bank = from_wholes(unit(np.eye(12) * 0.4 + 0.3 + 0.02 * rng.normal(size=(12, 12))))
    clips, correct = from_wholes(items), Ragged.singles(np.arange(1, 13))
    plain = retrieval_ranks(
        asked,
        clips,
        correct,
        direction="text_to_clip",
        weights=WEIGHTS,
        segment_score=SegmentScoreConfig(),
    )
    assert (plain[0].ranks == 1).all(), "the hub is before the right item of every query"
    for name, queries in zip(BOTH, (bank, asked), strict=True):
        found = by_blocks(
            name,
            asked,
            clips,
            queries,
            correct,
            direction="text_to_clip",
            block_bytes=10**8,
        )
        assert (found[0].ranks == 0).all()


def test_qb_norm_leaves_queries_alone_whose_best_item_is_no_hub() -> None:
    items, bank = from_wholes(np.eye(4)), from_wholes(np.eye(4)[[0, 0, 1]])
    asked = from_wholes(unit(np.array([[0.9, 0.8, 0.1, 0], [0, 0.1, 0.8, 0.9]])))
    (normalise,) = normalisers(
        "qb_norm", bank, items, direction="text_to_clip", weights=[1.0], config=CONFIG
    )
    scores = asked.wholes @ items.wholes.T
    normalised = normalise(scores)
    assert np.array_equal(normalised[1], scores[1])
    log_sums = np.log([2 * np.exp(20) + 1, np.exp(20) + 2, 3, 3])
    assert np.allclose(normalised[0], scores[0] - log_sums / 20, atol=1e-6)


def test_an_item_of_which_nothing_is_near_has_a_finite_sum() -> None:
    """exp(-200) is 0 in float32; its logarithm would be minus infinity."""
    texts, clips = from_wholes([[1.0, 0.0]]), from_wholes([[-1.0, 0.0], [1.0, 0.0]])
    config = EvaluationConfig()
    (found,) = nearness(
        texts, clips, direction="text_to_clip", weights=[1.0], config=config, scale=100.0
    )
    assert np.allclose(found.log_sums, [-100, 100])
    assert found.is_first.tolist() == [False, True]


def test_duplicates_still_tie() -> None:
    rng = np.random.default_rng(2)
    wholes = np.repeat(unit(rng.normal(size=(1, 512))), 600, axis=0)
    items = from_wholes(wholes)
    asked = from_wholes(unit(wholes[0] + 0.02 * rng.normal(size=(40, 512))))
    for name in BOTH:
        for found in by_blocks(
            name,
            asked,
            items,
            asked,
            Ragged.singles(np.arange(40) * 13),
            direction="text_to_clip",
            block_bytes=50_000,
        ):
            assert (found.ranks == 599).all() and found.tied.all()


def test_assumptions_name_the_numbers() -> None:
    config = dataclasses.replace(CONFIG, bank_split="training")
    assert "split training, beta 20" in assumption("qb_norm", config)
    assert "temperature 0.05" in assumption("dual_softmax", config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"normalisations": ("qb_norm",), "bank_split": "test"}, "queries of another split"),
        ({"normalisations": ("qb_norm",), "split": None}, "queries of another split"),
        ({"normalisations": ("qb_norm", "qb_norm")}, "each once"),
        ({"qb_norm_beta": 0.0}, "must be > 0"),
        ({"dual_softmax_temperature": -1.0}, "must be > 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EvaluationConfig(**settings)
