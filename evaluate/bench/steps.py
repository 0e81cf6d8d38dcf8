"""The steps of a benchmark: what each of them makes, and the command that makes it.

    OUT/DATASET/manifest                    mlalign-manifest build, or scenes
    OUT/DATASET/BACKBONE/cache              mlalign-extract
    OUT/DATASET/BACKBONE/runs/ROW-seedN     mlalign-align --sweep OUT/DATASET/BACKBONE/sweep.yaml
    OUT/DATASET/BACKBONE/report             mlalign-evaluate

Commands run in OUT and name what is in it by short paths: OUT may be moved, and started from
anywhere, and nothing is made again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ...data_manifests.cards.card import Card, load_card
from ...data_manifests.core.settings import settings_dict
from ..inputs.rows import ZERO_SHOT
from .plan import BackbonePlan, BenchPlan, DatasetPlan, RunPlan, Settings, SplitNames
from .records import Product, listing_identity, value_identity


def manifest_product(dataset: DatasetPlan, card: Card | None) -> Product | None:
    """The manifest that is built of a card or of scenes; None where the plan names one."""
    path = f"{dataset.name}/manifest"
    if dataset.scenes is not None:
        words = ["mlalign-manifest", "scenes", "-o", path]
        words += ["--clips", str(dataset.scenes.clips), "--seed", str(dataset.scenes.seed)]
        return Product(path=path, kind="manifest", made_by=words, made_from={})
    if card is None:
        return None
    words = ["mlalign-manifest", "build", str(dataset.card), "-o", path]
    words += ["--annotations", str(dataset.annotations), "--videos", str(dataset.videos)]
    words += ["--partial"] * dataset.partial
    sources = {
        "card": _card_identity(card),
        "annotations": listing_identity(dataset.annotations),
        "videos": listing_identity(dataset.videos),
    }
    return Product(path=path, kind="manifest", made_by=[*words, "--json"], made_from=sources)


def cache_product(dataset: DatasetPlan, backbone: BackbonePlan, *, manifest: str | None) -> Product:
    """The features. manifest: identity of the manifest that is built; None where the plan names
    one."""
    path = f"{cell_path(dataset, backbone)}/cache"
    named = f"{dataset.name}/manifest" if dataset.manifest is None else str(dataset.manifest)
    words = ["mlalign-extract", "-o", path]
    if dataset.videos is not None:
        words += ["--manifest", named, str(dataset.videos)]
    else:
        words += [named]
    words += extraction_words(dataset, backbone)
    sources = {
        "manifest": listing_identity(dataset.manifest) if manifest is None else manifest,
        "videos": listing_identity(dataset.videos),
    }
    return Product(path=path, kind="cache", made_by=[*words, "--json"], made_from=sources)


def extraction_words(dataset: DatasetPlan, backbone: BackbonePlan) -> list[str]:
    """The backbone and its settings."""
    words = ["--backbone", backbone.backbone or backbone.name]
    words += ["--pretrained", backbone.pretrained] if backbone.pretrained is not None else []
    return [*words, *_flags(set_words(extraction_settings(dataset, backbone)))]


def run_products(
    plan: BenchPlan,
    dataset: DatasetPlan,
    backbone: BackbonePlan,
    card: Card | None,
    *,
    cache: str | None,
) -> list[Product]:
    """The runs by row and seed. cache: identity of the cache."""
    return [
        Product(
            path=f"{cell_path(dataset, backbone)}/runs/{run.name}-seed{seed}",
            kind="run",
            made_by={"set": training_settings(dataset, card, run), "seed": seed},
            made_from={"cache": cache},
        )
        for run in plan.runs
        for seed in plan.seeds
    ]


def sweep_tree(plan: BenchPlan, dataset: DatasetPlan, card: Card | None) -> dict[str, Any]:
    """The sweep that trains the runs of a dataset, as its file has it."""
    rows = [{"name": run.name, "set": training_settings(dataset, card, run)} for run in plan.runs]
    return {"rows": rows, "seeds": list(plan.seeds)}


def sweep_words(dataset: DatasetPlan, backbone: BackbonePlan) -> list[str]:
    """The command that trains the runs that are missing."""
    cell = cell_path(dataset, backbone)
    words = ["mlalign-align", f"{cell}/cache", "--sweep", f"{cell}/sweep.yaml"]
    return [*words, "-o", f"{cell}/runs"]


def report_product(
    plan: BenchPlan,
    dataset: DatasetPlan,
    backbone: BackbonePlan,
    card: Card | None,
    *,
    cache: str | None,
    runs: Mapping[str, str | None],
) -> Product:
    """The numbers. cache: its identity.   runs: path to identity of those that are finished."""
    cell = cell_path(dataset, backbone)
    settings = evaluation_settings(plan, dataset)
    finished = {ZERO_SHOT, *(Path(path).name.rpartition("-seed")[0] for path in runs)}
    if settings.get("baseline") not in finished:
        settings.pop("baseline", None)  # its run failed: the others have numbers all the same
    words = ["mlalign-evaluate", "run", f"{cell}/cache", "-o", f"{cell}/report"]
    words += [word for path in runs for word in ("--run", path)]
    return Product(
        path=f"{cell}/report",
        kind="report",
        made_by=[*words, *_flags(set_words(settings))],
        made_from={"cache": cache, "card": _card_identity(card), **runs},
    )


def _card_identity(card: Card | None) -> str | None:
    return None if card is None else value_identity(settings_dict(card))


def cell_path(dataset: DatasetPlan, backbone: BackbonePlan) -> str:
    """The folder of a dataset with a backbone, below the benchmark's."""
    return f"{dataset.name}/{backbone.name}"


def _flags(settings: Sequence[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


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
