"""The command `mlalign-align`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..data_manifests.command_line import as_program, command_errors, config_options
from ..data_manifests.settings import load_settings
from .config import RunConfig


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
@config_options
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@command_errors
def main(
    cache: Path,
    out: Path,
    seed: int | None,
    config: Path | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Train alignment heads on the features of CACHE into a run folder.

    The weights that are best on the validation split are kept. Which levels are trained is set by
    losses.global_weight and losses.segment_weight; all settings are in the run's config.yaml.
    """
    if seed is not None:
        overrides = (*overrides, f"seed={seed}")
    settings = load_settings(RunConfig, config, overrides)

    from .trainer import align  # torch is imported only once there is work to do

    summary = align(cache, out, settings)
    click.echo(json.dumps(summary.to_json()) if as_json else summary.line())


program = as_program(main)
