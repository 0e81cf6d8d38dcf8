"""Ranks from a matrix: one per query under any ties, and both rules for several captions."""

from __future__ import annotations

import numpy as np
import pytest

from mlalign.data_manifests.cards.scoring_rules import TiePolicy
from mlalign.evaluate.official.retrieval import video_to_text_ranks
from mlalign.evaluate.scores.metrics import discounted_gain, geometric_mean, median_rank
from mlalign.evaluate.scores.ranks import ranks_of_correct
from mlalign.extract.cache.ragged import Ragged


def test_tie_policies_on_a_hand_worked_row() -> None:
    scores, truth = np.array([[0.5, 0.9, 0.5, 0.5, 0.1]]), np.array([2])
    expected: dict[TiePolicy, float] = {"against": 3, "mean": 2, "first": 2}
    for ties, rank in expected.items():
        found = ranks_of_correct(scores, Ragged.singles(truth), ties=ties, resolution=0.0)
        assert found.ranks.tolist() == [rank] and found.tied.tolist() == [True]


@pytest.mark.parametrize("ties", ["against", "mean", "first"])
def test_there_is_one_rank_per_query_whatever_ties(ties: TiePolicy) -> None:
    """CLIP4Clip's compute_metrics returns more ranks than queries on such a matrix."""
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, size=(60, 60)).astype(float)
    found = ranks_of_correct(scores, Ragged.singles(np.arange(60)), ties=ties, resolution=0.0)
    assert found.ranks.shape == (60,)
    for query, row in enumerate(scores):
        places = [r for r, item in enumerate(np.argsort(-row, kind="stable")) if item == query]
        level = np.flatnonzero(np.sort(-row) == -row[query])
        oracle = {"against": level[-1], "mean": level.mean(), "first": places[0]}
        assert found.ranks[query] == oracle[ties]


def test_several_captions_rank_among_videos_or_among_captions() -> None:
    owner = np.array([0, 0, 1, 1, 1])
    scores = np.array([[0.2, 0.9], [0.5, 0.1], [0.6, 0.4], [0.7, 0.3], [0.8, 0.2]])
    clips = video_to_text_ranks(scores, owner, "clips", ties="against")
    captions = video_to_text_ranks(scores, owner, "captions", ties="against")
    assert clips.ranks.tolist() == [1, 1]
    assert captions.ranks.tolist() == [3, 1]


def test_both_caption_rules_agree_on_recall_at_1_and_with_loops() -> None:
    rng = np.random.default_rng(1)
    owner = np.concatenate([np.arange(15), rng.integers(0, 15, 45)])
    scores = rng.normal(size=(60, 15))
    clips = video_to_text_ranks(scores, owner, "clips", ties="against").ranks
    captions = video_to_text_ranks(scores, owner, "captions", ties="against").ranks
    assert np.array_equal(clips == 0, captions == 0) and (clips <= captions).all()
    for video in range(15):
        order = np.argsort(-scores[:, video])
        assert captions[video] == min(r for r, t in enumerate(order) if owner[t] == video)
        best = [scores[owner == other, video].max() for other in range(15)]
        assert clips[video] == sum(b > best[video] for b in best)


def test_both_medians_and_the_other_kernels() -> None:
    ranks = np.array([0, 1, 4, 9])
    assert median_rank(ranks, lower=True) == 2 and median_rank(ranks, lower=False) == 3.5
    gains = [1, 1 / np.log2(3), 1 / np.log2(6), 1 / np.log2(11)]
    assert np.allclose(discounted_gain(ranks), gains)
    assert discounted_gain(np.array([10])) == 0
    assert np.isclose(geometric_mean(np.array([1.0, 8.0, 27.0])), 6)
