"""The report's page: it holds what it shows, names are escaped, and it fits a phone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet as pq
import pytest
from browser import BROWSER, look_at
from click.testing import CliRunner

from mlalign.align.config import DataConfig, OptimiserConfig, RunConfig
from mlalign.align.trainer import train_run
from mlalign.evaluate.cli import main
from mlalign.evaluate.reports import figures as page_figures
from mlalign.evaluate.reports.figures import (
    Curve,
    Difference,
    bars,
    differences,
    lines,
    rank_histogram,
    recall_curves,
    timeline,
    training_figures,
)
from mlalign.evaluate.reports.page import tasks_in_order
from mlalign.evaluate.reports.render import thumbnail
from mlalign.evaluate.reports.row_comparisons import SHOWN_QUERIES
from mlalign.evaluate.statistics.summaries import RowOutcome, RunOutcome
from mlalign.evaluate.tasks.retrieval import FusedWeight


@pytest.fixture(scope="module")
def report(small_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    data = DataConfig(train_split="train", validation_split="val")
    for seed in (0, 1):
        config = RunConfig(data=data, optimiser=OptimiserConfig(epochs=2), seed=seed)
        train_run(small_cache, folder / f"<both>-seed{seed}", config)
    runs = [part for seed in (0, 1) for part in ("--run", str(folder / f"<both>-seed{seed}"))]
    settings = ["split=train", "validation_split=null", "bootstrap_samples=50"]
    settings.append("normalisations=[dual_softmax]")
    options = [part for setting in settings for part in ("--set", setting)]
    arguments = [str(small_cache), *runs, *options, "-o", str(folder / "report")]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    return folder / "report"


@pytest.fixture(scope="module")
def page(report: Path) -> str:
    return (report / "report.html").read_text(encoding="utf-8")


def test_the_page_asks_for_nothing_outside_itself(page: str) -> None:
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources and all(source.startswith(("data:", "#")) for source in sources)
    assert "<script" not in page and "url(http" not in page


def test_names_and_texts_are_escaped(page: str) -> None:
    assert "&lt;both&gt;" in page and "<both>" not in page


def test_every_number_of_the_tables_is_that_of_the_results(report: Path, page: str) -> None:
    content = json.loads((report / "results.json").read_text())
    for row in content["rows"]:
        for score in row["scores"]:
            metric = score["metrics"].get("R@5")
            if metric is not None and score["subset"] is None:
                low, high = metric["low"], metric["high"]
                assert f"{metric['value']:.1f}<small>{low:.1f}–{high:.1f}</small>" in page


def test_every_part_is_there(page: str) -> None:
    for part in ("numbers", "figures", "compare", "levels", "moments", "gallery"):
        assert f'<h2 id="{part}">' in page and f'<a href="#{part}">' in page
    for kind in ("Best", "Median", "Worst"):
        assert f"<h3>{kind} queries</h3>" in page
    assert "data:image/jpeg;base64," in page, "the videos are there, and so are their pictures"
    assert "Validation while training" in page and "Loss while training" in page
    assert "Multiple choice by question type" in page


def test_tests_of_normalised_rows_are_folded_and_columns_that_nothing_fills_left_out(
    page: str,
) -> None:
    against, normalising = re.findall(r"<details.*?</details>", page, flags=re.DOTALL)
    assert against.startswith("<details open>") and "Rows less zero-shot" in against
    assert normalising.startswith("<details>") and "Normalised rows less their own" in normalising
    assert "McNemar" not in against, "means over seeds have none"
    assert "McNemar" in normalising and "<th>gained, lost</th>" in normalising


def test_normalised_rows_stand_below_a_rule(page: str) -> None:
    table = page[page.index("<h3>text to clip</h3>") :]
    plain, normalised = table[: table.index("</table>")].split("</tbody><tbody>")
    assert "+ dual softmax" not in plain and normalised.count("+ dual softmax") == 6


def test_the_tasks_of_the_card_come_first() -> None:
    tasks = [
        SimpleNamespace(name=name)
        for name in ("text_to_clip", "clip_to_text", "moments", "answers")
    ]

    def names(card: str | None) -> list[str]:
        evaluation: Any = SimpleNamespace(config=SimpleNamespace(card=card), tasks=tasks)
        return [task.name for task in tasks_in_order(evaluation)]

    assert names(None) == ["text_to_clip", "clip_to_text", "moments", "answers"]
    assert names("charades-sta") == ["moments", "text_to_clip", "clip_to_text", "answers"]


def test_figures_are_well_formed_and_take_the_pages_colour() -> None:
    ranks = {"a": [np.array([0, 3, 700])], "b & c": [np.array([1, 1, 9]), np.array([0, 0, 2])]}
    less = Difference(group="R@1", name="b", colour=1, value=1.0, low=-1.0, high=2.0)
    curve = Curve(name="a", xs=[0, 1], ys=[1, 2], colour=0)
    figures = [
        recall_curves(ranks),
        rank_histogram(ranks),
        differences([less], baseline="a"),
        lines([curve], x_label="epoch", y_label="score"),
        bars(["x<y", "z"], {"a": [1, 2], "b": [3, 4]}, y_label="accuracy"),
        timeline(
            np.array([[0.0, 1.0], [1.0, 2.5]]),
            np.array([0.1, 0.4]),
            true_span=(1.0, 2.0),
            scale=(0.0, 0.4),
        ),
    ]
    for figure in figures:
        root = ElementTree.fromstring(figure)
        assert root.tag.endswith("svg") and "width" not in root.attrib
        assert "currentColor" in figure and "#123456" not in figure


def test_the_same_data_gives_the_same_figure() -> None:
    ranks = {"a": [np.array([0, 3, 700])]}
    assert recall_curves(ranks) == recall_curves(ranks)


def test_the_bars_of_the_histogram_count_every_query_once() -> None:
    """All ranks in one bar: it has a hundred percent, whatever its rank."""
    for rank in (0, 1, 2, 4, 9, 999):
        figure = rank_histogram({"a": [np.full(7, rank)]})
        ElementTree.fromstring(figure)
        assert ">100<" in figure, "the axis reaches 100"


def test_a_video_that_is_gone_or_broken_has_no_picture(tmp_path: Path) -> None:
    assert thumbnail(tmp_path / "gone.mp4", 1.0) is None
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    assert thumbnail(tmp_path / "broken.mp4", 1.0) is None


def test_a_playlist_opens_no_other_file(make_video, tmp_path: Path) -> None:
    make_video(tmp_path / "secret.ts", [0, 500], container="mpegts")
    (tmp_path / "list.mp4").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n"
    )
    assert thumbnail(tmp_path / "list.mp4", 0.0) is None


def test_a_run_is_drawn_by_the_mean_loss_and_the_score_of_each_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines_of = [
        {"kind": "validation", "epoch": 0, "score": 0.25},
        {"kind": "step", "epoch": 1, "loss": 4.0},
        {"kind": "step", "epoch": 1, "loss": 2.0},
        {"kind": "validation", "epoch": 1, "score": 0.5},
        {"kind": "step", "epoch": 2, "loss": 1.0},
    ]
    text = "".join(f"{json.dumps(line)}\n" for line in lines_of)
    (tmp_path / "metrics.jsonl").write_text(text)
    drawn: list[Curve] = []
    monkeypatch.setattr(page_figures, "lines", lambda curves, **_: drawn.extend(curves) or "svg")
    weight = FusedWeight(value=0.5, chosen_on=None, reason="")
    runs = [
        RunOutcome(path=path, seed=0, weight=weight, scored={})
        for path in (tmp_path, tmp_path / "gone")
    ]
    zero_shot = RunOutcome(path=None, seed=None, weight=weight, scored={})
    rows = [RowOutcome(name="z", runs=(zero_shot,)), RowOutcome(name="r", runs=tuple(runs))]
    assert len(training_figures(rows)) == 2
    assert [(curve.colour, curve.xs, curve.ys) for curve in drawn] == [
        (1, [1, 2], [3.0, 1.0]),
        (1, [0, 1], [25.0, 50.0]),
    ]
    assert training_figures(rows[:1]) == {}


def test_compared_queries_have_the_rank_of_every_row(report: Path, page: str) -> None:
    queries = pq.read_table(report / "queries.parquet").to_pandas()
    first_run = (queries.seed != 1) & ~queries.row.str.contains("dual softmax")
    fused = queries[first_run & (queries.task == "text_to_clip") & (queries.score == "fused")]
    ranks = fused.pivot(index="query_id", columns="row", values="rank")
    spread = ranks.max(axis=1) / ranks.min(axis=1)
    part = page[page.index('id="compare"') : page.index('id="levels"')]
    found = re.findall(
        r"<b class=\"who\">(.*?)</b> <span class=\"who quiet\">rank (\S+)</span>", part
    )
    shown = list(zip(found[::2], found[1::2], strict=True))
    assert len(shown) == min(SHOWN_QUERIES, int((spread > 1).sum()))
    wanted = spread.sort_values(ascending=False).iloc[: len(shown)]
    factors = []
    for (_, first), (_, second) in shown:
        factors.append(max(float(first), float(second)) / min(float(first), float(second)))
    assert factors == pytest.approx(wanted.tolist())


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs chromium")
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_it_whole_at_any_width(
    report: Path, tmp_path: Path, width: int, dark: bool
) -> None:
    """Nothing sticks out to the side, every picture and figure has a size, text can be read."""
    seen = look_at(report / "report.html", tmp_path, width=width, dark=dark)
    assert seen["scroll"] <= width
    assert (seen["width"], seen["wide"], seen["flat"]) == (width, [], [])
    assert seen["pictures"] > 0 and seen["contrast"] > 7
