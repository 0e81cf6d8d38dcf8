"""What the documentation shows works as it is written."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from mlalign.data_manifests.building.build import build_dataset
from mlalign.data_manifests.cards.card import load_card
from mlalign.data_manifests.tables.reader import read_manifest

DOCS = Path(__file__).parents[1] / "docs"


def test_the_cards_of_the_datasets_page_build_its_tables(tmp_path):
    """As they are written there; only the sizes are others."""
    text = (DOCS / "datasets.md").read_text(encoding="utf-8")
    cards = re.findall(r"```yaml\n# (\S+)\n(.*?)```", text, re.S)
    tables = re.findall(r"```csv\n(.*?)```", text, re.S)
    assert len(cards) == len(tables) == 3
    for (name, card), table in zip(cards, tables, strict=True):
        (tmp_path / name).write_text(card)
        files, out = tmp_path / f"{name}-files", tmp_path / f"{name}-manifest"
        files.mkdir()
        (files / "train.csv").write_text(table)
        loaded = load_card(str(tmp_path / name))
        build_dataset(loaded, annotations=files, videos=None, out=out, partial=True)
        manifest = read_manifest(out)
        assert manifest.clips["clip_id"].to_pylist() == ["feeder_0001"]
        assert manifest.texts.num_rows + manifest.questions.num_rows >= 1


def test_the_examples_of_the_python_page_run_in_its_order(
    tmp_path: Path, small_scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlalign.align import own_parts

    shutil.copytree(small_scenes, tmp_path / "scenes")
    monkeypatch.chdir(tmp_path)
    for registry in (own_parts.HEADS, own_parts.LOSSES):  # the page's own parts stay on the page
        monkeypatch.setattr(registry, "_registered", {})
    names: dict[str, Any] = {"__name__": "python_page"}
    text = (DOCS / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(blocks) == 8
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert names["texts"].shape == names["sentences"].shape
    assert names["rank_metrics"](names["captions"] @ names["videos"].T, names["right"])["R@1"] == 75
    assert (tmp_path / "report-of-scores" / "report.html").exists()
