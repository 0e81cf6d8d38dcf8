"""What the documentation shows works as it is written."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from mlalign.data_manifests.build import build_dataset
from mlalign.data_manifests.cards import load_card
from mlalign.data_manifests.reader import read_manifest

DOCS = Path(__file__).parents[1] / "docs"


def test_the_cards_of_the_datasets_page_build_its_tables(tmp_path):
    """Each further card says only what is other than in the first."""
    text = (DOCS / "datasets.md").read_text(encoding="utf-8")
    cards = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.S)]
    tables = re.findall(r"```csv\n(.*?)```", text, re.S)
    assert len(cards) == len(tables) == 3
    for card, table in zip(cards, tables, strict=True):
        whole = {**cards[0], **card}
        protocols = {"retrieval", "moments", "questions"} & set(card)
        for name in {"retrieval", "moments", "questions"} - protocols:
            whole.pop(name, None)
        whole["splits"] = {"train": {}, "test": {}}
        path = tmp_path / f"{whole['name']}.yaml"
        path.write_text(yaml.safe_dump(whole))
        files = tmp_path / whole["name"]
        files.mkdir()
        (files / "train.csv").write_text(table)
        out = tmp_path / f"{whole['name']}-manifest"
        build_dataset(load_card(str(path)), annotations=files, videos=None, out=out)
        manifest = read_manifest(out)
        assert manifest.clips["clip_id"].to_pylist() == ["feeder_0001"]
        assert manifest.texts.num_rows + manifest.questions.num_rows >= 1
