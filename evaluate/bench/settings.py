"""What each stage is told in a benchmark: the splits, the card's rules, then the plan's own."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from ...data_manifests.cards.card import Card, load_card
from .plan import BackbonePlan, BenchPlan, DatasetPlan, RunPlan, Settings, SplitNames


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


def evaluation_settings(plan: BenchPlan, dataset: DatasetPlan) -> dict[str, Any]:
    """Of `mlalign-evaluate`: the card, whose rules and splits hold, then what the plan says."""
    settings: dict[str, Any] = {}
    if dataset.card is not None:
        settings["card"] = dataset.card
    if dataset.card is None or dataset.splits is not None:
        splits = dataset.splits or SplitNames()
        settings |= {"split": splits.test, "validation_split": splits.validation}
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
