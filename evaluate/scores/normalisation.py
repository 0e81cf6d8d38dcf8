"""Scores made relative to other queries after the fact, against hubs: items near to everything.

Both divide by how near an item is to many queries, so that an item that everything is near to
counts for less. What they take for granted is said in `ASSUMPTIONS` and belongs beside the numbers.

- QB-Norm (querybank normalisation, arXiv 2112.12777): exp(beta * score) divided by its sum over a
  bank of training queries, for the queries whose best item is the best of some query of the bank;
  the others keep their scores.
- dual softmax (as CAMoE, arXiv 2109.04290, is used at inference): score * softmax of score / t over
  all queries of the evaluation. A score below `SMALLEST_FACTOR` counts as that in the first factor,
  where a negative one would turn the order round.

Both orders are kept as logarithms on the scale of the cosines: what lies within SCORE_RESOLUTION is
a tie here, too. Legend of the suffixes: Q queries, I items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, assert_never

import numpy as np

from ...data_manifests.cards.scoring_rules import Direction
from ..config import EvaluationConfig, NormalisationName
from .ranks import SCORE_RESOLUTION
from .similarity import BLOCK_BYTES, Normalise, score_blocks
from .vectors import TwoLevelVectors

SMALLEST_FACTOR: Final = 0.01

LABELS: Final[dict[NormalisationName, str]] = {
    "qb_norm": "QB-Norm",
    "dual_softmax": "dual softmax",
}
"""As rows are called."""

ASSUMPTIONS: Final[dict[NormalisationName, str]] = {
    "qb_norm": (
        "scores relative to a bank of training queries: needs that bank (split {bank_split}, beta "
        "{qb_norm_beta:g}) at test time; no other test query is seen"
    ),
    "dual_softmax": (
        "scores relative to all test queries at once (temperature {dual_softmax_temperature:g}), "
        "and a prior that each item belongs to one query: a single query cannot be answered so"
    ),
}
"""What must be so for the numbers to mean something."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Nearness:
    """How near I items are to a set of queries."""

    log_sums: np.ndarray
    """(I,) float64, logarithm of the sum over the queries of exp(scale * score)."""
    is_first: np.ndarray
    """(I,) bool, whether the item is the best of some query, or within the resolution of it."""


def assumption(name: NormalisationName, config: EvaluationConfig) -> str:
    """The assumption with the numbers of the settings."""
    return ASSUMPTIONS[name].format(
        bank_split=config.bank_split,
        qb_norm_beta=config.qb_norm_beta,
        dual_softmax_temperature=config.dual_softmax_temperature,
    )


def normalisers(
    name: NormalisationName,
    texts: TwoLevelVectors,
    clips: TwoLevelVectors,
    *,
    direction: Direction,
    weights: Sequence[float],
    config: EvaluationConfig,
    block_bytes: int = BLOCK_BYTES,
) -> list[Normalise]:
    """For each weight of the global score what turns a block of scores into normalised ones.

    One side of texts and clips are the items; the other the queries of the bank, which for
    dual_softmax are those of the evaluation.
    """
    scale = _scale(name, config)
    near = nearness(
        texts,
        clips,
        direction=direction,
        weights=weights,
        config=config,
        scale=scale,
        block_bytes=block_bytes,
    )
    match name:
        case "qb_norm":
            return [_qb_norm(items, beta=scale) for items in near]
        case "dual_softmax":
            return [_dual_softmax(items, temperature=1 / scale) for items in near]
        case _:
            assert_never(name)


def nearness(
    texts: TwoLevelVectors,
    clips: TwoLevelVectors,
    *,
    direction: Direction,
    weights: Sequence[float],
    config: EvaluationConfig,
    scale: float,
    block_bytes: int = BLOCK_BYTES,
) -> list[Nearness]:
    """Of the items, for each weight, in one pass over blocks of the queries."""
    num_items = len(clips) if direction == "text_to_clip" else len(texts)
    largest_I = [np.full(num_items, -np.inf, dtype=np.float32) for _ in weights]
    sums_I = [np.zeros(num_items) for _ in weights]
    is_first_I = [np.zeros(num_items, dtype=bool) for _ in weights]
    for _, _, by_weight in score_blocks(
        texts,
        clips,
        direction=direction,
        weights=weights,
        segment_score=config.segment_score,
        block_bytes=block_bytes,
    ):
        for k, scores_QI in enumerate(by_weight):
            is_first_I[k] |= _is_best(scores_QI).any(axis=0)
            largest = np.maximum(largest_I[k], scores_QI.max(axis=0))
            # exp underflows in float32 where everything is far: relative to the nearest so far.
            earlier = sums_I[k] * np.exp(scale * (largest_I[k] - largest))
            exponents = np.float32(scale) * (scores_QI - largest)
            sums_I[k] = earlier + np.exp(exponents, out=exponents).sum(axis=0, dtype=np.float64)
            largest_I[k] = largest
    return [
        Nearness(log_sums=scale * largest + np.log(sums), is_first=is_first)
        for largest, sums, is_first in zip(largest_I, sums_I, is_first_I, strict=True)
    ]


def _scale(name: NormalisationName, config: EvaluationConfig) -> float:
    return config.qb_norm_beta if name == "qb_norm" else 1 / config.dual_softmax_temperature


def _is_best(scores_QI: np.ndarray) -> np.ndarray:
    best_Q1 = scores_QI.max(axis=1, keepdims=True)
    return np.asarray(scores_QI >= best_Q1 - scores_QI.dtype.type(SCORE_RESOLUTION))


def _qb_norm(items: Nearness, *, beta: float) -> Normalise:
    offsets_I = (items.log_sums / beta).astype(np.float32)

    def normalise(scores_QI: np.ndarray) -> np.ndarray:
        finds_hub_Q = (_is_best(scores_QI) & items.is_first).any(axis=1)
        return np.where(finds_hub_Q[:, None], scores_QI - offsets_I, scores_QI)

    return normalise


def _dual_softmax(items: Nearness, *, temperature: float) -> Normalise:
    offsets_I = (items.log_sums * temperature).astype(np.float32)

    def normalise(scores_QI: np.ndarray) -> np.ndarray:
        factors = np.log(np.maximum(scores_QI, np.float32(SMALLEST_FACTOR)))
        normalised: np.ndarray = scores_QI + np.float32(temperature) * factors - offsets_I
        return normalised

    return normalise
