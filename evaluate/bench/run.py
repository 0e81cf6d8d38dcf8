"""The benchmark from end to end: every step whose result is missing, then the leaderboard.

Other stages run as commands: what fails there fails alone, and its memory is free when it ends.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from ...data_manifests.cards.card import Card
from ...data_manifests.core.atomic_write import atomic_write
from ...data_manifests.core.errors import UserError
from ...data_manifests.core.folder_lock import folder_lock
from ...data_manifests.core.settings import save_settings
from .checks import check_plan
from .commands import CommandResult, failed_members, run_command
from .plan import BackbonePlan, BenchPlan, DatasetPlan
from .records import (
    STEPS,
    Product,
    begin,
    finish,
    identity,
    log_path,
    set_aside,
    state_of,
)
from .steps import (
    cache_product,
    card_of,
    cell_path,
    manifest_product,
    report_product,
    run_products,
    sweep_tree,
    sweep_words,
)

PLAN_FILE: Final = "plan.yaml"
LOCK_FILE: Final = ".bench.lock"
WRONG_USAGE: Final = 2

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A dataset with a backbone."""

    dataset: DatasetPlan
    card: Card | None
    """Of the dataset."""
    backbone: BackbonePlan
    report: Path | None
    """The folder of its report; None where there are no numbers."""
    failures: Mapping[str, str]
    """Row, or row and seed, to why it has no numbers; of all rows where it failed as a whole."""


class StepFailed(Exception):
    """A step of a cell that failed; its text is the reason. The other cells go on."""


def run_bench(plan: BenchPlan, out: Path, *, say: Say) -> list[Cell]:
    """Do what is missing of the plan in the folder OUT; the cells by dataset and backbone.

    Raises UserError before anything is done: SettingsError with all that is wrong in the plan, or
    when OUT is no folder of a benchmark or another benchmark is at work in it.
    """
    check_plan(plan)
    if out.exists() and not _holds_benchmark(out) and (out.is_file() or any(out.iterdir())):
        raise UserError(f"{out} is there and holds no benchmark: choose a new folder with -o")
    out.mkdir(parents=True, exist_ok=True)
    busy = UserError(f"another benchmark is at work in {out}: wait for it, or choose another -o")
    with folder_lock(out / LOCK_FILE, busy=busy):
        save_settings(plan, out / PLAN_FILE)
        say(f"commands run in {out.resolve()}; logs are in its folder steps")
        bench = _Bench(plan, out, say)
        return [cell for dataset in plan.datasets for cell in bench.cells(dataset)]


def _holds_benchmark(out: Path) -> bool:
    """Whether a benchmark was started in a folder."""
    # On Windows the lock file is removed when its holder ends.
    return (out / LOCK_FILE).exists() or all((out / name).exists() for name in (PLAN_FILE, STEPS))


class _Bench:
    """A plan at work in its folder."""

    def __init__(self, plan: BenchPlan, out: Path, say: Say) -> None:
        self._plan, self._out, self._say = plan, out, say

    def cells(self, dataset: DatasetPlan) -> list[Cell]:
        """The cells of a dataset; one that fails does not end the others."""
        card = card_of(dataset)
        manifest, failure = None, None
        product = manifest_product(dataset, card)
        if product is not None:
            try:
                self._make_manifest(product)
                manifest = identity(self._out, product)
            except StepFailed as error:
                failure = str(error)
        cells = []
        for backbone in self._plan.backbones:
            failures: dict[str, str] = {}
            report = None
            try:
                if failure is not None:
                    raise StepFailed(failure)
                report, failures = self._cell(dataset, backbone, card, manifest=manifest)
            except StepFailed as error:
                failures = {row: str(error) for row in self._plan.rows()} | failures
            cells.append(
                Cell(
                    dataset=dataset, card=card, backbone=backbone, report=report, failures=failures
                )
            )
        return cells

    def _cell(
        self,
        dataset: DatasetPlan,
        backbone: BackbonePlan,
        card: Card | None,
        *,
        manifest: str | None,
    ) -> tuple[Path, dict[str, str]]:
        """The report's folder, and why runs failed."""
        cache = cache_product(dataset, backbone, manifest=manifest)
        self._make_cache(cache)
        key = identity(self._out, cache)
        runs = run_products(self._plan, dataset, backbone, card, cache=key)
        failures = self._make_runs(runs, dataset, backbone, card)
        finished = {run.path: identity(self._out, run) for run in runs if run.path not in failures}
        report = report_product(self._plan, dataset, backbone, card, cache=key, runs=finished)
        self._make_report(report)
        return self._out / report.path, {Path(path).name: why for path, why in failures.items()}

    def _make_manifest(self, product: Product) -> None:
        state = state_of(self._out, product)
        if state == "begun":  # tables appear at the end: there is nothing in it to go on from
            shutil.rmtree(self._out / product.path, ignore_errors=True)
        elif state in ("changed", "other") and (self._out / product.path).exists():
            self._set_aside(product)
        if state != "done":
            self._run(product)

    def _make_cache(self, product: Product) -> None:
        """Extraction knows by itself what is new: a cache is set aside only when it is refused."""
        if self._is_done(product):
            return
        had_one = identity(self._out, product) is not None
        try:
            self._run(product)
        except _WrongUsage:
            if not had_one:
                raise
            kept = self._set_aside(product)
            try:
                self._run(product)
            except StepFailed:
                if identity(self._out, product) is None:  # it was not the cache: put it back
                    shutil.rmtree(self._out / product.path, ignore_errors=True)
                    kept.rename(self._out / product.path)
                raise

    def _make_runs(
        self, runs: list[Product], dataset: DatasetPlan, backbone: BackbonePlan, card: Card | None
    ) -> dict[str, str]:
        """Train the runs that are missing; path to reason of those that failed."""
        missing = []
        for run in runs:
            state = state_of(self._out, run)
            if state == "other":
                self._set_aside(run)
            if state == "done":
                self._say(f"{run.path}: done before")
            else:
                missing.append(run)
                begin(self._out, run)
        if not missing:
            return {}
        cell = cell_path(dataset, backbone)
        text = yaml.safe_dump(sweep_tree(self._plan, dataset, card), sort_keys=False)
        sweep = self._out / cell / "sweep.yaml"
        atomic_write(sweep, text)
        outcome = self._command(sweep_words(dataset, backbone), f"{cell}/runs")
        reasons = failed_members(outcome.said)
        failures = {}
        for run in missing:
            if identity(self._out, run) is None:
                failures[run.path] = reasons.get(Path(run.path).name, outcome.reason)
                self._say(f"  {Path(run.path).name} failed: {failures[run.path]}")
            else:
                finish(self._out, run)
        return failures

    def _make_report(self, product: Product) -> None:
        if not self._is_done(product):
            self._run(product)

    def _is_done(self, product: Product) -> bool:
        state = state_of(self._out, product)
        if state == "done":
            self._say(f"{product.path}: done before")
        elif state in ("other", "changed"):
            self._say(f"{product.path}: made otherwise, or of other data; done again")
        return state == "done"

    def _set_aside(self, product: Product) -> Path:
        kept = set_aside(self._out, product)
        self._say(f"{product.path}: made otherwise; it is kept as {kept.relative_to(self._out)}")
        return kept

    def _run(self, product: Product) -> None:
        """Make a product by its command; StepFailed when that fails."""
        begin(self._out, product)
        outcome = self._command(product.made_by, product.path)
        failure = _failure(outcome)
        if failure is not None:
            self._say(f"  failed: {failure}")
            raise (_WrongUsage if outcome.exit_code == WRONG_USAGE else StepFailed)(failure)
        finish(self._out, product)

    def _command(self, words: list[str], path: str) -> CommandResult:
        self._say(f"$ {shlex.join(words)}")
        outcome = run_command(words, folder=self._out, log=log_path(self._out, path))
        self._say(f"  {outcome.seconds:.1f} s")
        return outcome


class _WrongUsage(StepFailed):
    """A step that a command refused."""


def _failure(outcome: CommandResult) -> str | None:
    """Why the command failed; a cache that lacks some clips is one, and its report says so."""
    if outcome.exit_code == 0:
        return None
    clips: dict[str, int] = (outcome.summary or {}).get("clips", {})
    if outcome.exit_code == 1 and clips.get("ok", 0) + clips.get("partial", 0) > 0:
        return None
    reasons: Mapping[str, Any] = (outcome.summary or {}).get("failures", {})
    for clip, reason in reasons.items():
        return f"all {clips['failed']} clips failed, {clip}: {reason}"
    return outcome.reason
