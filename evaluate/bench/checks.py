"""Everything that is wrong in a plan, found before anything is done."""

from __future__ import annotations

import itertools
import shlex
import tempfile
from pathlib import Path

import yaml

from ...data_manifests.core.errors import SettingsError
from ..inputs.protocols import load_protocol
from .commands import run_command
from .plan import BenchPlan, DatasetPlan
from .steps import card_of, evaluation_settings, extraction_words, set_words, sweep_tree


def check_plan(plan: BenchPlan) -> None:
    """Raise one SettingsError with all that is wrong in cards, runs and the stages' settings.

    Only a stage knows its settings, so the commands of the others are asked.
    """
    faults = []
    readable = []
    for dataset in plan.datasets:
        try:
            card_of(dataset)
        except SettingsError as error:
            faults.append(f"dataset {dataset.name}: {error}")
        else:
            readable.append(dataset)
            faults += _evaluation_faults(plan, dataset)
            faults += _alike_runs(plan, dataset)
    with tempfile.TemporaryDirectory(prefix="mlalign-bench-") as folder:
        faults += _extraction_faults(plan, Path(folder))
        faults += _training_faults(plan, readable, Path(folder))
    if faults:
        raise SettingsError("\n".join(faults))


def _evaluation_faults(plan: BenchPlan, dataset: DatasetPlan) -> list[str]:
    settings = set_words(evaluation_settings(plan, dataset))
    try:
        config = load_protocol(dict, None, settings)
    except SettingsError as error:
        return [f"evaluate, dataset {dataset.name}: {error}"]
    if config.baseline in plan.rows():
        return []
    rows = ", ".join(plan.rows())
    return [
        f"evaluate, dataset {dataset.name}: baseline: no row is called {config.baseline!r}; the "
        f"rows are {rows}"
    ]


def _alike_runs(plan: BenchPlan, dataset: DatasetPlan) -> list[str]:
    return [
        f"runs, dataset {dataset.name}: {first.name!r} and {second.name!r} have the same settings: "
        f"leave one out"
        for first, second in itertools.combinations(plan.runs, 2)
        if {**dataset.align, **first.set} == {**dataset.align, **second.set}
    ]


def _extraction_faults(plan: BenchPlan, folder: Path) -> list[str]:
    """What mlalign-extract says of each way that it is used."""
    faults: dict[str, str] = {}
    for dataset, backbone in itertools.product(plan.datasets, plan.backbones):
        words = ["mlalign-extract", "-o", "cache", *extraction_words(dataset, backbone), "--check"]
        if shlex.join(words) not in faults:
            done = run_command(words, folder=folder, log=folder / "log")
            message = f"extract, backbone {backbone.name}, dataset {dataset.name}: {done.reason}"
            faults[shlex.join(words)] = message if done.exit_code else ""
    return [fault for fault in faults.values() if fault]


def _training_faults(plan: BenchPlan, datasets: list[DatasetPlan], folder: Path) -> list[str]:
    """What mlalign-align says of the runs of each dataset."""
    faults: dict[str, str] = {}
    for dataset in datasets if plan.runs else []:
        text = yaml.safe_dump(sweep_tree(plan, dataset, card_of(dataset)))
        if text not in faults:
            (folder / "runs").write_text(text, encoding="utf-8")
            words = ["mlalign-align", "cache", "-o", "out", "--sweep", "runs", "--check"]
            done = run_command(words, folder=folder, log=folder / "log")
            faults[text] = f"align, dataset {dataset.name}: {done.reason}" if done.exit_code else ""
    return [fault for fault in faults.values() if fault]
