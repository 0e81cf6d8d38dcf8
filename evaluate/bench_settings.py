"""What each stage is told in a benchmark: the splits, the card's rules, then the plan's own."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from ..data_manifests.cards import Card, load_card
from .bench_plan import BackbonePlan, BenchPlan, DatasetPlan, RunPlan, Settings, SplitNames


def card_of(dataset: DatasetPlan) -> Card | None:
    """Its card, where it has one."""
    return None if dataset.card is None else load_card(dataset.card)


def split_names(dataset: DatasetPlan, card: Card | None) -> SplitNames:
    """The plan's own, else the card's, else the usual ones."""
    if dataset.splits is not None or card is None:
        return dataset.splits or SplitNames()
    return SplitNames(
        train=card.train_split or SplitNames().train,
        validation=card.validation_split,
        test=card.test_split,
    )


def evaluation_settings(plan: BenchPlan, dataset: DatasetPlan, card: Card | None) -> dict[str, Any]:
    """Of `mlalign-evaluate`: the splits and the card's protocol, then what the plan says."""
    splits = split_names(dataset, card)
    settings: dict[str, Any] = {"split": splits.test, "validation_split": splits.validation}
    if card is not None and card.moments is not None:
        settings["moments.recall_ks"] = list(card.moments.recall_ks)
        settings["moments.iou_thresholds"] = list(card.moments.iou_thresholds)
        settings["moments.iou_comparison"] = card.moments.iou_comparison
    if card is not None and card.retrieval is not None:
        settings["recall_ks"] = list(card.retrieval.recall_ks)
    return {**settings, **plan.evaluate, **dataset.evaluate}


def training_settings(dataset: DatasetPlan, card: Card | None, run: RunPlan) -> dict[str, Any]:
    """Of `mlalign-align`."""
    splits = split_names(dataset, card)
    data = {"data.train_split": splits.train, "data.validation_split": splits.validation}
    return {**data, **dataset.align, **run.set}


def extraction_settings(dataset: DatasetPlan, backbone: BackbonePlan) -> dict[str, Any]:
    """Of `mlalign-extract`, but for the backbone itself."""
    return {**dataset.extract, **backbone.set}


def set_words(settings: Settings) -> list[str]:
    """name=value of each, as `--set` takes it, by name."""
    return [f"{name}={_word(settings[name])}" for name in sorted(settings)]


def _word(value: Any) -> str:
    """The value in YAML, bare where that reads the same."""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z][\w./:-]*", value):
        return value if yaml.safe_load(value) == value else json.dumps(value)
    return json.dumps(value)
