"""The plan of a benchmark: which datasets, backbones and runs, and their settings."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ...data_manifests.core.settings import load_settings
from ..inputs.rows import ZERO_SHOT

RESERVED_NAMES: Final = ("manifest", "replaced", "steps")
"""Folders of a benchmark that no dataset and no backbone may be called like."""

Settings = Mapping[str, Any]
"""Dotted setting of a stage to its value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScenesPlan:
    """Procedural scenes, made for the benchmark."""

    clips: int = 1000
    """Their number."""
    seed: int = 0
    """Of what happens in them."""

    def __post_init__(self) -> None:
        if self.clips < 3:
            raise ValueError(f"clips must be at least 3, one for each split, got {self.clips}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitNames:
    """Which splits are used for what."""

    train: str = "train"
    """Trained on."""
    validation: str | None = "val"
    """Chooses weights; null: there is none."""
    test: str = "test"
    """Whose numbers are reported."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetPlan:
    """A dataset: a card with its official files, a manifest, or scenes."""

    name: str
    """What tables and folders call it."""
    card: str | None = None
    """A benchmark by its name, or a card of one's own as NAME.yaml; with annotations and videos."""
    annotations: Path | None = None
    """Of a card: the folder of its official files."""
    partial: bool = False
    """Of a card: accept sizes other than the card's."""
    manifest: Path | None = None
    """Or: a dataset that is ready, a manifest folder or a table of videos and texts."""
    scenes: ScenesPlan | None = None
    """Or: procedural scenes."""
    videos: Path | None = None
    """The folder of the videos; of a manifest null: where the manifest says."""
    splits: SplitNames | None = None
    """null: those of the card, or train, val and test."""
    extract: Settings = field(default_factory=dict)
    """Settings of extraction for this dataset, such as its segments; a backbone's own win."""
    align: Settings = field(default_factory=dict)
    """Settings of training for this dataset; a run's own win."""
    evaluate: Settings = field(default_factory=dict)
    """Settings of evaluation for this dataset; they win over those of all datasets."""

    def __post_init__(self) -> None:
        faults = _name_faults(self.name)
        sources = [name for name in ("card", "manifest", "scenes") if getattr(self, name)]
        if len(sources) != 1:
            got = " and ".join(sources) or "none"
            faults.append(f"expected one of card, manifest and scenes, got {got}")
        if self.card and (self.annotations is None or self.videos is None):
            faults.append("a card needs annotations and videos, the folders of both")
        if not self.card and (self.annotations is not None or self.partial):
            faults.append("annotations and partial go with a card")
        if self.scenes and self.videos is not None:
            faults.append("scenes make their own videos: leave videos out")
        if faults:
            raise ValueError("; ".join(faults))


@dataclass(frozen=True, kw_only=True, slots=True)
class BackbonePlan:
    """A frozen backbone, and how it looks at videos."""

    name: str
    """What tables and folders call it."""
    backbone: str | None = None
    """An open_clip model, or tiny; null: the name."""
    pretrained: str | None = None
    """A pretrained tag of the model, or a checkpoint file."""
    set: Settings = field(default_factory=dict)
    """Settings of extraction."""

    def __post_init__(self) -> None:
        faults = _name_faults(self.name)
        faults += [
            f"set.{name}: say it with {name}:, beside set"
            for name in ("backbone", "pretrained")
            if name in self.set
        ]
        if faults:
            raise ValueError("; ".join(faults))


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPlan:
    """A row of trained heads."""

    name: str
    """Of the row."""
    set: Settings = field(default_factory=dict)
    """Settings of training."""

    def __post_init__(self) -> None:
        faults = _name_faults(self.name)
        if self.name == ZERO_SHOT:
            faults.append(f"{ZERO_SHOT} is the name of the row that is always there")
        if "seed" in self.set:
            faults.append("set.seed: the plan's seeds say it for all runs")
        if faults:
            raise ValueError("; ".join(faults))


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchPlan:
    """Every dataset with every backbone, as it is and with every run, trained with every seed."""

    datasets: tuple[DatasetPlan, ...]
    """At least one."""
    backbones: tuple[BackbonePlan, ...]
    """At least one."""
    runs: tuple[RunPlan, ...] = ()
    """Beside zero-shot."""
    seeds: tuple[int, ...] = (0,)
    """Each run is trained with each."""
    evaluate: Settings = field(default_factory=dict)
    """Settings of evaluation for all datasets."""

    def __post_init__(self) -> None:
        faults = [
            f"{name} has none" for name in ("datasets", "backbones") if not getattr(self, name)
        ]
        for what in ("datasets", "backbones", "runs"):
            names = [item.name for item in getattr(self, what)]
            twice = sorted({name for name in names if names.count(name) > 1})
            faults += [f"{what}: {name!r} is there twice" for name in twice]
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            faults.append(
                f"seeds must be different numbers from 0 on, at least one, got {list(self.seeds)}"
            )
        if faults:
            raise ValueError("; ".join(faults))

    def rows(self) -> list[str]:
        """Names of the rows of every table."""
        return [ZERO_SHOT, *(run.name for run in self.runs)]


def load_plan(path: Path) -> BenchPlan:
    """The plan of a YAML file, its paths made absolute; SettingsError with all that is wrong.

    The settings of the stages in it are not looked at: `checks` does that.
    """
    plan = load_settings(BenchPlan, path)
    return dataclasses.replace(
        plan,
        datasets=tuple(_absolute_dataset(dataset) for dataset in plan.datasets),
        backbones=tuple(_absolute_backbone(backbone) for backbone in plan.backbones),
    )


def _absolute_dataset(dataset: DatasetPlan) -> DatasetPlan:
    """The commands of a benchmark run in its folder, so that moving it changes none of them."""
    is_file = dataset.card is not None and Path(dataset.card).suffix in (".yaml", ".yml")
    return dataclasses.replace(
        dataset,
        card=os.path.abspath(str(dataset.card)) if is_file else dataset.card,
        annotations=_absolute(dataset.annotations),
        manifest=_absolute(dataset.manifest),
        videos=_absolute(dataset.videos),
    )


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else Path(os.path.abspath(path.expanduser()))


def _absolute_backbone(backbone: BackbonePlan) -> BackbonePlan:
    if backbone.pretrained is None:
        return backbone
    path = Path(backbone.pretrained).expanduser()
    if os.sep not in backbone.pretrained and not path.is_file():
        return backbone
    return dataclasses.replace(backbone, pretrained=os.path.abspath(path))


def _name_faults(name: str) -> list[str]:
    faults: Sequence[str] = []
    if not re.fullmatch(r"\w[\w.=+-]{0,99}", name):
        faults = [
            f"a name is part of a folder's: letters, digits and . = + - _ only, with a letter or "
            f"digit first, got {name!r}"
        ]
    elif name in RESERVED_NAMES:
        faults = [f"{name!r} is a folder of the benchmark itself: choose another name"]
    return list(faults)
