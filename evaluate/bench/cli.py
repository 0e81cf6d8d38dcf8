"""mlalign-evaluate bench: a plan of datasets, backbones and runs in, one leaderboard out."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ...data_manifests.core.command_line import command_errors


@click.command("bench")
@click.argument("plan_path", metavar="PLAN", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of the benchmark, new or of an earlier start.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
@command_errors
def bench_command(plan_path: Path, out: Path, as_json: bool) -> None:
    """Build, extract, align and evaluate every dataset with every backbone of the YAML file PLAN.

    Steps whose result is there are not done again, and a killed benchmark is finished by the same
    command; a changed plan redoes what changed. Exit code: 0 done, 1 a cell failed (the others
    are done), 2 a wrong plan.
    """
    from .board import leaderboard
    from .page import BOARD_TABLE, board_lines, write_board
    from .plan import load_plan
    from .run import run_bench

    plan = load_plan(plan_path)
    cells = run_bench(plan, out, say=lambda line: click.echo(line, err=True))
    boards = leaderboard(cells)
    page = write_board(plan, boards, out)
    failures = [
        {"dataset": board.name, "backbone": backbone, "row": row, "reason": reason}
        for board in boards
        for (backbone, row), reason in board.failures.items()
    ]
    if as_json:
        done = {"page": str(page), "table": str(out / BOARD_TABLE), "failures": failures}
        click.echo(json.dumps(done))
    else:
        click.echo("\n".join([*board_lines(boards), f"Leaderboard: {page}"]))
    if failures:
        raise SystemExit(1)
