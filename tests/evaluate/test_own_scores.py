"""Similarities from other programs: exact numbers, intervals, paired rows, and the page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mlalign.data_manifests import UserError
from mlalign.evaluate import EvaluationConfig, evaluate_scores, rank_metrics, report

CONFIG = EvaluationConfig(bootstrap_samples=50)
RNG = np.random.default_rng(0)
TRUTH = np.repeat(np.arange(12), 3)
"""36 texts of 12 clips, of 15."""
VIDEOS = RNG.normal(size=(15, 8)).astype(np.float32)
TEXTS = (VIDEOS[TRUTH] + 0.8 * RNG.normal(size=(36, 8))).astype(np.float32)
NOISE = RNG.normal(size=(36, 15))


def looped_ranks(scores: np.ndarray, right: list[set[int]]) -> np.ndarray:
    """1-based: wrong items that score at least as high as the best right one, and one."""
    ranks = []
    for row, items in zip(scores, right, strict=True):
        best = max(row[item] for item in items)
        ranks.append(1 + sum(row[i] >= best for i in range(len(row)) if i not in items))
    return np.array(ranks)


@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e6])
def test_rank_metrics_equal_loops_at_any_scale_of_the_scores(scale: float) -> None:
    scores = NOISE.round(1) * scale  # with ties
    right = [{int(a), int(b)} for a, b in RNG.integers(0, 15, size=(36, 2))]
    ranks = looped_ranks(scores, right)
    found = rank_metrics(scores, [sorted(items) for items in right])
    for k in (1, 5, 10):
        assert found[f"R@{k}"] == pytest.approx(100 * np.mean(ranks <= k))
    assert found["MdR"] == np.median(ranks) and found["MnR"] == pytest.approx(ranks.mean())
    assert found["MRR"] == pytest.approx((1 / ranks).mean())


def test_one_right_item_has_the_textbook_ndcg_and_plain_numbers() -> None:
    scores = [[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]]
    assert rank_metrics(scores, [0, 2]) == {
        "R@1": 50.0,
        "R@5": 100.0,
        "R@10": 100.0,
        "MnR": 2.0,
        "MRR": pytest.approx((1 + 1 / 3) / 2),
        "nDCG@10": pytest.approx((1 + 0.5) / 2),
        "MdR": 2.0,
    }


def test_ties_count_against_us_unless_asked() -> None:
    level = np.ones((2, 4))
    assert rank_metrics(level, [0, 1])["MnR"] == 4
    assert rank_metrics(level, [0, 1], ties="mean")["MnR"] == 2.5
    assert rank_metrics(level, [0, 1], ties="first")["MnR"] == 1.5


def test_both_directions_equal_rank_metrics_with_intervals_around_them() -> None:
    evaluation = evaluate_scores(NOISE, TRUTH, config=CONFIG)
    texts_of_clip = [np.flatnonzero(clip == TRUTH).tolist() for clip in range(12)]
    wanted = {
        "text_to_clip": rank_metrics(NOISE, TRUTH),
        "clip_to_text": rank_metrics(NOISE.T[:12], texts_of_clip),
    }
    summaries = {summary.task: summary for summary in evaluation.summaries["scores"]}
    for task, numbers in wanted.items():
        for name, value in numbers.items():
            interval = summaries[task].metrics[name].interval
            assert interval.value == pytest.approx(value)
            assert interval.low <= interval.value <= interval.high


def test_vectors_are_compared_by_their_cosine() -> None:
    units = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (VIDEOS, TEXTS)]
    evaluation = evaluate_scores(
        {"matrix": units[1] @ units[0].T, "vectors": (3 * VIDEOS, 7 * TEXTS)}, TRUTH, config=CONFIG
    )
    assert all(item.difference.value == 0 for item in evaluation.comparisons)


def test_texts_of_a_group_are_resampled_together() -> None:
    one_group = evaluate_scores(NOISE, TRUTH, groups=["all"] * 36, config=CONFIG)
    for summary in one_group.summaries["scores"]:
        interval = summary.metrics["R@5"].interval
        assert interval.low == interval.value == interval.high


def test_named_matrices_are_compared_and_reported_on_the_same_page(tmp_path: Path) -> None:
    rows = {"noise": NOISE, "<vectors>": (VIDEOS, TEXTS)}
    evaluation = evaluate_scores(
        rows,
        TRUTH,
        texts=[f"a caption {i} & more" for i in range(36)],
        clip_ids=[f"clip{i}" for i in range(15)],
        config=CONFIG,
    )
    page = report(evaluation, str(tmp_path / "report"))
    assert page == tmp_path / "report" / "report.html"
    text = page.read_text(encoding="utf-8")
    assert "&lt;vectors&gt;" in text and "a caption" in text and "Rows compared" in text
    assert "What was found" in text and "fused" not in text
    results = json.loads((page.parent / "results.json").read_text())
    assert results["cache"] is None
    comparison = results["comparisons"][0]
    assert (comparison["row"], comparison["baseline"]) == ("<vectors>", "noise")
    assert comparison["difference"] > 0 and comparison["p_holm"] < 0.05
    assert {file.name for file in page.parent.iterdir()} >= {"table.csv", "table.tex"}


@pytest.mark.parametrize(
    ("scores", "truth", "message"),
    [
        (np.zeros(3), [0], "expected a matrix"),
        (np.zeros((2, 3)), [0], "right item of 2 queries .* got 1"),
        (np.zeros((2, 3)), [0, 3], "query 1: .* from 0 to 2, got .3"),
        (np.zeros((2, 3)), [[0], []], "query 1: "),
        (np.zeros((2, 3)), [0.5, 1], "query 0: "),
        ([[0, np.nan]], [0], "query 0 with item 1 is NaN"),
    ],
)
def test_what_cannot_be_scored_is_one_clear_error(scores, truth, message: str) -> None:
    with pytest.raises(UserError, match=message):
        rank_metrics(scores, truth)
    with pytest.raises(UserError, match=message):
        evaluate_scores(scores, truth, config=CONFIG)


def test_rows_must_fit_each_other() -> None:
    with pytest.raises(UserError, match="no row is called 'x'; the rows are a"):
        evaluate_scores({"a": NOISE}, TRUTH, baseline="x")
    with pytest.raises(UserError, match="matrices of one shape"):
        evaluate_scores({"a": NOISE, "b": NOISE[:, :14]}, TRUTH)
    with pytest.raises(UserError, match="vectors of one width"):
        evaluate_scores((VIDEOS, TEXTS[:, :5]), TRUTH)
    with pytest.raises(UserError, match="groups of 36 texts"):
        evaluate_scores(NOISE, TRUTH, groups=[1, 2])
