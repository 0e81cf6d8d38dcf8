"""The report's page: it holds what it shows, names are escaped, and it fits a phone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner

from mlalign.align.config import DataConfig, OptimiserConfig, RunConfig
from mlalign.align.trainer import align
from mlalign.evaluate.cli import main
from mlalign.evaluate.page_figures import (
    Curve,
    bars,
    lines,
    rank_histogram,
    recall_curves,
    timeline,
)
from mlalign.evaluate.thumbnails import thumbnail

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def report(small_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    data = DataConfig(train_split="train", validation_split="val")
    config = RunConfig(data=data, optimiser=OptimiserConfig(epochs=2))
    align(small_cache, folder / "<both>", config)
    arguments = [str(small_cache), "--run", str(folder / "<both>"), "-o", str(folder / "report")]
    settings = ["--set", "split=train", "--set", "validation_split=null"]
    done = CliRunner().invoke(main, [*arguments, *settings, "--set", "bootstrap_samples=50"])
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
    for part in ("numbers", "figures", "levels", "moments", "gallery"):
        assert f'<h2 id="{part}">' in page
    for kind in ("Best", "Median", "Worst"):
        assert f"<h3>{kind} queries</h3>" in page
    assert "data:image/jpeg;base64," in page, "the videos are there, and so are their pictures"
    assert "Validation while training" in page


def test_figures_are_well_formed_and_take_the_pages_colour() -> None:
    ranks = {"a": [np.array([0, 3, 700])], "b & c": [np.array([1, 1, 9]), np.array([0, 0, 2])]}
    curve = Curve(name="a", xs=[0, 1], ys=[1, 2], colour=0)
    figures = [
        recall_curves(ranks),
        rank_histogram(ranks),
        lines([curve], x_label="epoch", y_label="score"),
        bars(["x<y", "z"], {"a": [1, 2], "b": [3, 4]}, y_label="accuracy"),
        timeline(np.array([[0.0, 1.0], [1.0, 2.5]]), np.array([0.1, 0.4]), true_span=(1.0, 2.0)),
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


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs chromium")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_it_whole_at_any_width(report: Path, tmp_path: Path, width: int) -> None:
    """Nothing sticks out to the side, and every picture and figure has a size."""
    probe = (
        "<script>addEventListener('load', () => {"
        "const wide = [...document.querySelectorAll('main *')].filter(e => !e.closest('.wide') &&"
        " !e.closest('svg') && e.getBoundingClientRect().right > innerWidth + 1);"
        "const flat = [...document.querySelectorAll('svg, img')].filter("
        "e => e.closest('figure, .clip') && e.getBoundingClientRect().height < 10);"
        "document.title = JSON.stringify({width: innerWidth, wide: wide.length,"
        " flat: flat.length, scroll: document.documentElement.scrollWidth});});</script>"
    )
    page = (report / "report.html").read_text(encoding="utf-8")
    (tmp_path / "page.html").write_text(page.replace("</body>", f"{probe}</body>"))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", "--virtual-time-budget=5000"]
    frame = (
        f'<iframe id="f" src="page.html" style="border:0;width:{width}px;height:900px"></iframe>'
    )
    wait = (
        "<script>addEventListener('load', () => setTimeout(() => { document.title = "
        "document.getElementById('f').contentDocument.title; }, 500));</script>"
    )
    (tmp_path / "frame.html").write_text(f"<!doctype html><body>{frame}{wait}</body>")
    command = [str(BROWSER), *flags, "--allow-file-access-from-files", f"{tmp_path}/frame.html"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r"<title>(.*?)</title>", done.stdout)
    assert found is not None, done.stderr[-2000:]
    seen = json.loads(found[1].replace("&quot;", '"'))
    assert seen.pop("scroll") <= width
    assert seen == {"width": width, "wide": 0, "flat": 0}
