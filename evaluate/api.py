"""`report` for Python programs: an evaluation as files."""

from __future__ import annotations

from pathlib import Path

from .evaluation import Evaluation
from .reports.page import write_page
from .reports.results_json import check_report_folder, write_report


def report(evaluation: Evaluation, out: str | Path) -> Path:
    """Write an evaluation to a folder and return the path of its page, report.html.

    Beside it: results.json, queries.parquet, table.csv, table.tex and config.yaml. Each file is
    replaced at once or not at all. Raises UserError or OSError where `out` cannot be written.
    """
    folder = Path(out)
    check_report_folder(folder)
    write_report(evaluation, folder)
    return write_page(evaluation, folder)
