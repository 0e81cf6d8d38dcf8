"""`mlalign-evaluate`: a cache and runs in, a table, results.json and queries.parquet out."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..data_manifests.command_line import as_program, command_errors, config_options


@click.command()
@click.argument("cache", type=click.Path(path_type=Path))
@click.option(
    "--run",
    "runs",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Folder of a run. Repeatable; runs that differ only in the seed make one row.",
)
@click.option(
    "-o",
    "--output",
    "report",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder for results.json, queries.parquet and config.yaml.",
)
@click.option("--baseline", metavar="NAME", help="Row to compare with [default: zero-shot].")
@config_options
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@command_errors
def main(
    cache: Path,
    runs: tuple[Path, ...],
    report: Path,
    baseline: str | None,
    config: Path | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Score the backbone as it is (zero-shot) and trained RUNs on a split of CACHE.

    Retrieval both ways, segment grounding and multiple choice, with the global, the segment and the
    fused score; every number with its bootstrap interval, every row compared with the baseline on
    the same queries.
    """
    import dataclasses

    from ..data_manifests.settings import load_settings
    from .config import EvaluationConfig

    settings = load_settings(EvaluationConfig, config, overrides)
    if baseline is not None:
        settings = dataclasses.replace(settings, baseline=baseline)

    from .evaluation import evaluate
    from .report import check_report_folder, results_json, write_report
    from .table import print_tables

    check_report_folder(report)
    evaluation = evaluate(cache, runs, settings, progress=lambda line: click.echo(line, err=True))
    write_report(evaluation, report)
    if as_json:
        click.echo(json.dumps(results_json(evaluation)))
    else:
        print_tables(evaluation)
        click.echo(f"Report: {report}")


program = as_program(main)
