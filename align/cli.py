"""The command `mlalign-align`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from ..data_manifests.core.command_line import (
    as_program,
    command_errors,
    config_options,
    help_and_version,
)
from ..data_manifests.core.errors import SettingsError
from ..data_manifests.core.settings import load_settings
from .config import RunConfig
from .own_parts import check_names


@click.command()
@click.argument("cache", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of the run; made when it is not there.",
)
@click.option("--seed", type=int, help="Short for --set seed=N.")
@click.option(
    "--sweep",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="YAML of many runs, all trained into the folder; see docs/training.md.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="Parallel processes of a sweep; each trains runs in turn.  [default: one per core, or 1 "
    "on a GPU]",
)
@config_options
@click.option("--check", is_flag=True, help="Only check the settings, of all runs of a sweep.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@command_errors
def main(
    cache: Path,
    out: Path,
    seed: int | None,
    sweep: Path | None,
    jobs: int | None,
    config: Path | None,
    overrides: tuple[str, ...],
    check: bool,
    as_json: bool,
) -> None:
    """Train alignment heads on the features of CACHE into a run folder.

    The weights that are best on the validation split are kept. Which levels are trained is set by
    losses.global_weight and losses.segment_weight; all settings are in the run's config.yaml. The
    same command finishes a killed run or sweep.
    """
    if sweep is not None:
        if seed is not None or config is not None or overrides:
            raise SettingsError(
                "a sweep's settings stand in its file: use its base, grid and seeds"
            )
        _run_sweep(cache, out, sweep, jobs=jobs, check=check, as_json=as_json)
        return
    if jobs is not None:
        raise SettingsError("--jobs is for a --sweep")
    if seed is not None:
        overrides = (*overrides, f"seed={seed}")
    settings = load_settings(RunConfig, config, overrides)
    check_names(settings)
    if check:
        return

    from .distributed import is_first_process, process_group
    from .trainer import train_run, uses_gpu  # torch is imported only once there is work to do

    with process_group(on_gpu=uses_gpu(settings.device)):
        summary = train_run(cache, out, settings)
        if is_first_process():
            click.echo(json.dumps(summary.to_json()) if as_json else summary.line())


def _run_sweep(
    cache: Path,
    out: Path,
    sweep: Path,
    *,
    jobs: int | None,
    check: bool,
    as_json: bool,
) -> None:
    from .distributed import is_started_by_torchrun
    from .sweep.config import load_sweep

    if is_started_by_torchrun():
        raise SettingsError("a sweep starts its own processes: run it without torchrun")
    settings, members = load_sweep(sweep)
    for member in members:
        check_names(member.config)
    if check:
        return

    from .sweep.leaderboard import board_lines, leaderboard, were_validated, write_leaderboard
    from .sweep.sweep import run_sweep

    results = run_sweep(cache, members, out, jobs=jobs)
    if were_validated(results):
        board = leaderboard(results, metric=settings.metric, baseline=settings.baseline)
        write_leaderboard(board, out)
        click.echo(json.dumps(asdict(board)) if as_json else "\n".join(board_lines(board)))
    else:
        none = (
            "No leaderboard: without a validation split (data.validation_split) runs have no order."
        )
        click.echo(json.dumps({"rows": []}) if as_json else none)
    if any(result.failure is not None for result in results):
        raise SystemExit(1)


program = as_program(help_and_version(main))
