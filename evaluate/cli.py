"""`mlalign-evaluate`: a cache and runs in, a table and files out; comparisons; scores of files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import click

from ..data_manifests.cards.scoring_rules import CaptionRule, TiePolicy
from ..data_manifests.core.command_line import (
    DefaultGroup,
    as_program,
    command_errors,
    config_options,
    help_and_version,
)
from .bench.cli import bench_command


class _Group(DefaultGroup):
    usage = "CACHE -o REPORT [OPTIONS]"


@click.group(cls=_Group)
def main() -> None:
    """Score the backbone as it is (zero-shot) and trained RUNs on a split of CACHE.

    Retrieval both ways, segment grounding and multiple choice, with the global, the segment and the
    fused score; every number with its bootstrap interval, every row compared with the baseline on
    the same queries. A cache that is called like one of the commands below is written ./score.
    """


@main.command()
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
    help="Folder for report.html, results.json, table.csv, table.tex and queries.parquet.",
)
@click.option("--baseline", metavar="NAME", help="Row to compare with [default: zero-shot].")
@click.option("--card", metavar="NAME|FILE", help="Whose rules hold [default: the cache's own].")
@click.option(
    "--annotations",
    metavar="PATH",
    help="Official files, for annotators (DiDeMo) and saliency (QVHighlights).",
)
@config_options
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@command_errors
def run(
    cache: Path,
    runs: tuple[Path, ...],
    report: Path,
    baseline: str | None,
    card: str | None,
    annotations: str | None,
    config: Path | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Score zero-shot and RUNs on CACHE; the word "run" may be left out."""
    import dataclasses

    from .api import report as write_all
    from .evaluation import cache_record, evaluate
    from .inputs.protocols import load_protocol
    from .reports.results_json import check_report_folder, results_json
    from .reports.terminal import print_tables

    check_report_folder(report)
    settings = load_protocol(lambda: cache_record(cache), config, overrides, card=card)
    given = {"baseline": baseline, "annotations": annotations}
    flags: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    settings = dataclasses.replace(settings, **flags)
    evaluation = evaluate(cache, runs, settings, progress=lambda line: click.echo(line, err=True))
    page = write_all(evaluation, report)
    if as_json:
        click.echo(json.dumps(results_json(evaluation)))
    else:
        print_tables(evaluation)
        click.echo(f"Report: {page}")


@main.command()
@click.argument("cache", type=click.Path(path_type=Path))
@click.option(
    "--run", "run_path", type=click.Path(path_type=Path), help="Folder of a run [default: none]."
)
@click.option("--card", metavar="NAME|FILE", help="Whose format it is [default: the cache's own].")
@click.option("--split", help="Whose answers may be unknown [default: the card's test split].")
@click.option(
    "-o", "--output", "folder", type=click.Path(path_type=Path), required=True, help="A folder."
)
@config_options
@command_errors
def predict(
    cache: Path,
    run_path: Path | None,
    card: str | None,
    split: str | None,
    folder: Path,
    config: Path | None,
    overrides: tuple[str, ...],
) -> None:
    """Write predictions for a split of CACHE in the official format of its benchmark.

    Without --run the backbone as it is predicts. Prints the files' paths.
    """
    from .evaluation import cache_record
    from .inputs.protocols import load_protocol
    from .predictions.write import write_predictions
    from .reports.results_json import check_report_folder

    check_report_folder(folder)
    if split is not None:
        overrides = (*overrides, f"split={json.dumps(split)}")
    settings = load_protocol(lambda: cache_record(cache), config, overrides, card=card)
    for path in write_predictions(cache, run_path, settings, folder):
        click.echo(path)


@main.command()
@click.argument("first", metavar="REPORT", type=click.Path(path_type=Path))
@click.argument("second", metavar="OTHER", type=click.Path(path_type=Path))
@click.option(
    "--rows",
    type=(str, str),
    multiple=True,
    metavar="ROW OTHER_ROW",
    help="A row of each. Repeatable [default: the rows that have the same name].",
)
@click.option("--json", "as_json", is_flag=True, help="Print the comparisons as JSON.")
@command_errors
def compare(first: Path, second: Path, rows: tuple[tuple[str, str], ...], as_json: bool) -> None:
    """Rows of REPORT less rows of OTHER, such as of two backbones, on the same queries.

    Exit code: 0 done, 2 reports that cannot be paired, with every reason.
    """
    from .reports.compare_reports import compare_reports, read_report
    from .reports.results_json import comparison_json
    from .reports.terminal import print_comparisons

    report = read_report(first)
    comparisons = compare_reports(report, read_report(second), pairs=rows)
    if as_json:
        click.echo(json.dumps([comparison_json(comparison) for comparison in comparisons]))
    else:
        print_comparisons(comparisons, report.bootstrap.confidence)


@main.command()
@click.argument("dataset")
@click.option("--predictions", required=True, type=click.Path(path_type=Path), help="A file.")
@click.option(
    "--annotations",
    required=True,
    type=click.Path(path_type=Path),
    help="The official file of the split, or the folder that has it.",
)
@click.option("--split", help="Which file of a folder [default: val; a matrix: the card's].")
@click.option(
    "--ties",
    type=click.Choice(get_args(TiePolicy)),
    help="Retrieval: where equal scores rank [default: the card's, or against].",
)
@click.option(
    "--captions",
    type=click.Choice(get_args(CaptionRule)),
    help="Retrieval: a video's captions as one, ranked among videos, or the best among captions "
    "[default: the card's, or captions].",
)
@click.option(
    "--lower-median/--mean-median",
    default=None,
    help="Retrieval: of text to video the lower of the middle two ranks, or their mean [default: "
    "the card's].",
)
@click.option(
    "--vocabulary",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Open-ended: a file of answers, one a line; says how many it covers.",
)
@click.option(
    "--nms",
    type=float,
    metavar="IOU",
    help="Moments: suppress overlaps above this [default: none, the file as it is].",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder for scores.json.")
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON.")
@command_errors
def score(
    dataset: str,
    predictions: Path,
    annotations: Path,
    split: str | None,
    ties: TiePolicy | None,
    captions: CaptionRule | None,
    lower_median: bool | None,
    nms: float | None,
    vocabulary: Path | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """The official numbers of anyone's predictions for DATASET, to the digit they print.

    Exit code: 0 done, 2 a file that cannot be scored, with all its faults.
    """
    from .official.registry import (
        check_options,
        dataset_scorers,
        retrieval_rules,
        score_lines,
        score_predictions,
        write_scores,
    )

    rules = retrieval_rules(dataset, ties=ties, captions=captions, lower_median=lower_median)
    scorers = dataset_scorers(dataset, rules, nms=nms, vocabulary=vocabulary, split=split)
    if dataset not in scorers:
        names = f"{', '.join(scorers)}, and the cards of retrieval (mlalign-manifest list)"
        raise click.UsageError(f"no scorer for {dataset!r}; there are {names}")
    if nms is not None and not 0 <= nms <= 1:  # so that NaN is not
        raise click.UsageError(f"--nms must be between 0 and 1, got {nms}")
    given: dict[str, Any] = {"ties": ties, "captions": captions, "lower-median": lower_median}
    given |= {"nms": nms, "vocabulary": vocabulary}
    check_options(scorers[dataset], [name for name, value in given.items() if value is not None])
    scores = score_predictions(scorers[dataset], predictions, annotations, split=split)
    if output is not None:
        write_scores(scores, output)
    click.echo(json.dumps(scores) if as_json else "\n".join(score_lines(scores)))


main.add_command(bench_command)
program = as_program(help_and_version(main))
