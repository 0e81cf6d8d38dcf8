"""What the documentation shows works as it is written."""

from __future__ import annotations

import re
from pathlib import Path

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
