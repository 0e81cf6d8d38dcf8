"""Every card's rules are those that its evaluation and its official scorer use."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from mlalign.data_manifests.cards.card import card_names, load_card
from mlalign.data_manifests.cards.scoring_rules import (
    Chunks,
    IouComparison,
    MomentProtocol,
    MomentRules,
    RetrievalRules,
)
from mlalign.evaluate.config import EvaluationConfig, MomentConfig
from mlalign.evaluate.inputs.protocols import load_protocol
from mlalign.evaluate.official import registry as official_scorers

MOMENT_CARDS = [name for name in card_names() if load_card(name).moments is not None]
RETRIEVAL_CARDS = [name for name in card_names() if load_card(name).retrieval is not None]


def rules_of(settings: Any, kind: type) -> dict[str, Any]:
    return {field.name: getattr(settings, field.name) for field in dataclasses.fields(kind)}


@pytest.mark.parametrize("name", MOMENT_CARDS)
def test_the_evaluation_of_moments_uses_the_rules_of_the_card(name: str) -> None:
    card, config = load_card(name), load_protocol(dict, None, (), card=name)
    assert rules_of(config.moments, MomentRules) == rules_of(card.moments, MomentRules)


@pytest.mark.parametrize("name", RETRIEVAL_CARDS)
def test_evaluation_and_scorer_of_retrieval_use_the_rules_of_the_card(name: str) -> None:
    card, config = load_card(name), load_protocol(dict, None, (), card=name)
    expected = rules_of(card.retrieval, RetrievalRules)
    assert rules_of(config, RetrievalRules) == expected
    scored_by = official_scorers.retrieval_rules(name, ties=None, captions=None, lower_median=None)
    assert rules_of(scored_by, RetrievalRules) == expected


def test_a_card_and_an_evaluation_without_one_have_the_same_defaults() -> None:
    assert rules_of(MomentProtocol(), MomentRules) == rules_of(MomentConfig(), MomentRules)
    assert rules_of(EvaluationConfig(), RetrievalRules) == rules_of(
        RetrievalRules(), RetrievalRules
    )
    assert MomentRules(recall_ks=(1, 7)).num_predictions == 7


# --- the scorers of moments: a prediction [0, 5] of the moment [0, 10] has an IoU of exactly 0.5

WINDOW = {"qid": 0, "pred_relevant_windows": [[0, 5]]}
VIDEO = {"duration": 20.0, "timestamps": [[0, 10]], "sentences": ["x"]}
FRAMES = {"fps": 1.0, "num_frames": 20, "timestamps": [[0, 10]], "sentences": ["x"]}
CORPUS = {"video2idx": {"v": 0}, "VCMR": [{"desc_id": 1, "predictions": [[0, 0, 5, 1]]}]}
HIGHLIGHT = {"qid": 0, "duration": 20, "relevant_windows": [[0, 10]]}
Files = tuple[Any, str, Any]
"""Predictions, name of the annotations, annotations."""
FILES: dict[str, Files] = {
    "activitynet-moments": ([WINDOW | {"qid": "v_0"}], "a.json", {"v": VIDEO}),
    "charades-sta": ([WINDOW], "charades_sta_test.txt", "v 0.0 10.0##x"),
    "qvhighlights": ([WINDOW | {"pred_relevant_windows": [[0, 5, 1]]}], "a.jsonl", HIGHLIGHT),
    "tacos": ([WINDOW | {"qid": "v_0"}], "a.json", {"v": FRAMES}),
    "tvr": (CORPUS, "a.jsonl", {"desc_id": 1, "vid_name": "v", "type": "v", "ts": [0, 10]}),
}


def scores(name: str, folder: Path, files: Files | None = None) -> dict[str, Any]:
    """The scorer's numbers; those of groups by GROUP/NAME."""
    predictions, file, annotations = files or FILES[name]
    text = annotations if isinstance(annotations, str) else json.dumps(annotations)
    (folder / file).write_text(text)
    (folder / "predictions.json").write_text(json.dumps(predictions))
    rules = official_scorers.retrieval_rules(name, ties=None, captions=None, lower_median=None)
    scorer = official_scorers.dataset_scorers(name, rules, nms=None, vocabulary=None)[name]
    found = official_scorers.score_predictions(
        scorer, folder / "predictions.json", folder / file, split=None
    )
    groups = {k: v for k, v in found.items() if isinstance(v, dict)}
    return found | {f"{g}/{k}": v for g, group in groups.items() for k, v in group.items()}


def recall(name: str, k: int, threshold: float) -> str:
    if name == "qvhighlights":
        return f"brief/MR-full-R{k}@{threshold}"
    return f"VCMR/{threshold}-r{k}" if name == "tvr" else f"R@{k},IoU={threshold}"


def with_rules(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    def load(name: str) -> Any:
        card = load_card(name)
        assert card.moments is not None
        return dataclasses.replace(card, moments=dataclasses.replace(card.moments, **changes))

    monkeypatch.setattr(official_scorers, "load_card", load)


def test_every_card_of_moments_with_a_scorer_is_tried_here() -> None:
    rules = RetrievalRules()
    known = official_scorers.dataset_scorers("", rules, nms=None, vocabulary=None)
    assert set(MOMENT_CARDS) & set(known) == {*FILES, "didemo-moments"}


@pytest.mark.parametrize("name", FILES)
def test_a_scorer_of_moments_prints_the_numbers_of_its_card(name: str, tmp_path: Path) -> None:
    rules, found = load_card(name).moments, scores(name, tmp_path)
    assert rules is not None
    for value in (0.1, 0.3, 0.5, 0.7):
        assert (recall(name, 1, value) in found) == (value in rules.iou_thresholds)
    if name != "qvhighlights":
        assert all(recall(name, k, 0.5) in found for k in rules.recall_ks)
    is_hit = rules.iou_comparison == ">="
    assert found[recall(name, 1, 0.5)] == (100 if is_hit else 0)


@pytest.mark.parametrize("comparison", [">", ">="])
@pytest.mark.parametrize("name", FILES)
def test_a_scorer_of_moments_follows_another_rule_of_its_card(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, comparison: IouComparison
) -> None:
    with_rules(monkeypatch, iou_comparison=comparison, iou_thresholds=(0.5, 0.9))
    found = scores(name, tmp_path)
    assert found[recall(name, 1, 0.5)] == (100 if comparison == ">=" else 0)
    assert found[recall(name, 1, 0.9)] == 0


def test_didemo_follows_the_chunks_of_its_card(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chunks = Chunks(number=2, best_annotators=1)
    with_rules(monkeypatch, chunks=chunks, recall_ks=(1, 2))
    ranked = {"annotation_id": 0, "predictions": [[0, 0], [1, 1], [0, 1]]}
    truth = [{"annotation_id": 0, "times": [[0, 1], [1, 1]]}]
    found = scores("didemo-moments", tmp_path, ([ranked], "a.json", truth))
    assert found == {"rank@1": 0, "rank@2": 1, "mIoU": 0.5}
