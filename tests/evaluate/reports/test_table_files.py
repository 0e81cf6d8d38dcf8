"""table.csv read back by pandas and csv, and the shape and the escapes of table.tex."""

from __future__ import annotations

import csv
import io
import json
import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

from mlalign.align.config import DataConfig, OptimiserConfig, RunConfig
from mlalign.align.trainer import train_run
from mlalign.evaluate.cli import main
from mlalign.evaluate.reports.table_files import COLUMNS, csv_table, tex, tex_tables
from mlalign.evaluate.scores.queries import TaskQueries
from mlalign.evaluate.statistics.bootstrap import Interval
from mlalign.evaluate.statistics.summaries import Metric, NormalisedFrom, RowOutcome, ScoreSummary

ODD = 'a_b & "50 %", c#1\n[x] $y$ \\z'


@pytest.fixture(scope="module")
def report(small_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    data = DataConfig(train_split="train", validation_split="val")
    for seed in (0, 1):
        config = RunConfig(data=data, optimiser=OptimiserConfig(epochs=1), seed=seed)
        train_run(small_cache, folder / f"a_b & c-seed{seed}", config)
    settings = ["split=train", "validation_split=null", "bootstrap_samples=50"]
    runs = [part for seed in (0, 1) for part in ("--run", str(folder / f"a_b & c-seed{seed}"))]
    arguments = [str(small_cache), *runs, "-o", str(folder / "report")]
    options = [part for setting in settings for part in ("--set", setting)]
    options += ["--set", "normalisations=[dual_softmax]"]
    done = CliRunner().invoke(main, [*arguments, *options])
    assert done.exit_code == 0, done.output
    return folder / "report"


as_read = partial(pytest.approx, rel=1e-14, abs=0)
"""Before version 3, pandas may be off by the last bits of a number."""


def test_pandas_reads_every_number_of_the_results_back(report: Path) -> None:
    content = json.loads((report / "results.json").read_text())
    table = pd.read_csv(report / "table.csv")
    assert tuple(table.columns) == COLUMNS
    keys = ["row", "task", "subset", "score", "metric"]
    by_key = table.fillna({"subset": ""}).set_index(keys)
    assert by_key.index.is_unique
    count = 0
    for row in content["rows"]:
        for score in row["scores"]:
            for name, metric in score["metrics"].items():
                key = (row["name"], score["task"], score["subset"] or "", score["score"], name)
                line = by_key.loc[key]
                assert (line["value"], line["low"]) == as_read((metric["value"], metric["low"]))
                assert line["num_queries"] == score["num_queries"]
                count += 1
    assert count == len(table)
    for item in content["comparisons"]:
        key = (item["row"], item["task"], item["subset"] or "", item["score"], item["metric"])
        line = by_key.loc[key]
        assert line["baseline"] == item["baseline"]
        assert line["difference"] == as_read(item["difference"])
        assert line["p_permutation"] == as_read(item["p_permutation"])
        assert pd.isna(line["p_holm"]) == (item["p_holm"] is None)
    assert set(table["normalised_from"].dropna()) == {"zero-shot", "a_b & c"}


def test_every_table_has_as_many_cells_as_columns_and_rules_around_it(report: Path) -> None:
    text = (report / "table.tex").read_text(encoding="utf-8")
    content = json.loads((report / "results.json").read_text())
    tables = text.split(r"\begin{table}")[1:]
    labels = re.findall(r"\\label\{tab:(\w+)\}", text)
    assert labels == [task["name"] for task in content["tasks"]]
    assert len(tables) == len(content["tasks"])
    for table, task in zip(tables, content["tasks"], strict=True):
        body = table.split(r"\toprule")[1].split(r"\bottomrule")[0]
        lines = [line for line in body.splitlines() if line and line != r"\midrule"]
        spec = re.search(r"\\begin\{tabular\}\{(ll(r+))\}", table)
        assert spec is not None
        for line in lines:
            assert line.endswith(r" \\")
            assert len(re.split(r"(?<!\\)&", line)) == len(spec.group(1))
        is_retrieval = task["kind"] == "retrieval"
        assert table.count(r"\midrule") == (2 if is_retrieval else 1)
        assert ("one query" in table) == is_retrieval, "what the normalised rows take for granted"
        assert r"a\_b \& c" in body and "a_b" not in body
        assert table.count("{") == table.count("}")
        assert "Segments are the annotated spans of these clips (rule spans)" in table
        assert ("MdR, MnR: rank; MRR, nDCG@10: from 0 to 1;" in table) == is_retrieval
        assert r"means over seeds $\pm$" in table
    for name in ("table", "tabular"):
        assert text.count(f"\\begin{{{name}}}") == text.count(f"\\end{{{name}}}") == len(tables)


def test_special_characters_are_escaped() -> None:
    escaped = tex(ODD)
    assert escaped == (r'a\_b \& "50 \%", c\#1 {[}x] \$y\$ \textbackslash{}z')
    assert tex("a---b`~^<>|{}*") == (
        r"a-{}-{}-b\textasciigrave{}\textasciitilde{}\textasciicircum{}\textless{}\textgreater{}\textbar{}\{\}{*}"
    )
    bare = re.sub(r"\\[&%$#_{}]|\\text[a-z]+\{\}|\{[\[*]\}|-\{\}", "", escaped)
    assert not set(bare) & set("&%$#_{}~^\\")


def evaluation(rows: list[tuple[str, dict[str, float], bool]]) -> Any:
    """Rows by name with the values of their metrics, and whether they are normalised."""
    task = TaskQueries(
        name="text_to_clip", kind="retrieval", query_ids=["q"], clips=None, chance=1.0
    )  # type: ignore[arg-type]
    outcomes = [
        RowOutcome(
            name=name,
            runs=(),
            normalised=NormalisedFrom(row="x", name="qb_norm", assumption="a bank")
            if is_normalised
            else None,
        )
        for name, _, is_normalised in rows
    ]
    summaries = {
        name: [
            ScoreSummary(
                task="text_to_clip",
                subset=None,
                score="global",
                num_queries=1,
                num_tied=(0,),
                metrics={
                    metric: Metric(
                        interval=Interval(value=value, low=value - 1, high=value + 1),
                        per_seed=(value,),
                    )
                    for metric, value in metrics.items()
                },
            )
        ]
        for name, metrics, _ in rows
    }
    return SimpleNamespace(
        rows=outcomes,
        plain_rows=[row for row in outcomes if row.normalised is None],
        tasks=[task],
        summaries=summaries,
        comparisons=[],
        config=SimpleNamespace(confidence=0.9),
        features=SimpleNamespace(split="test_1", segment_rule="uniform:4"),
    )


def test_the_best_of_a_column_is_bold_the_lowest_rank_and_all_that_print_the_same() -> None:
    text = tex_tables(
        evaluation(
            [
                ("a", {"R@1": 40.01, "MdR": 3.0}, False),
                ("b", {"R@1": 40.04, "MdR": 2.0}, False),
                ("c", {"R@1": 39.0, "MdR": 9.0}, False),
                ("b + QB-Norm", {"R@1": 60.0, "MdR": 1.0}, True),
            ]
        )
    )
    lines = text.splitlines()
    assert r"a & global & \textbf{40.0} & 3.0 \\" in lines
    assert r"b & global & \textbf{40.0} & \textbf{2.0} \\" in lines
    assert r"c & global & 39.0 & 9.0 \\" in lines
    assert r"b + QB-Norm & global & 60.0 & 1.0 \\" in lines, "another game: never the best"
    assert r" &  & {\scriptsize 38.0--40.0} & {\scriptsize 8.0--10.0} \\" in lines
    assert lines[lines.index(r"b + QB-Norm & global & 60.0 & 1.0 \\") - 1] == r"\midrule"
    assert r"split test\_1, 1 queries. Percent; MdR: rank. Below: 90\,\% bootstrap" in text


def test_odd_names_survive_the_csv() -> None:
    text = csv_table(evaluation([(ODD, {"R@1": 1 / 3}, False)]))
    (line,) = csv.DictReader(io.StringIO(text))
    assert line["row"] == ODD and float(line["value"]) == 1 / 3
    assert line["p_holm"] == "" and line["subset"] == ""
