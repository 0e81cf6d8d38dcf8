"""Folders may be called anything: what looks like an address or a partition is only a name."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from mlalign.data_manifests.tables.reader import read_manifest, write_manifest
from mlalign.evaluate.cli import main as mlalign_evaluate
from mlalign.extract.cache.store import FeatureStore

NAME = "s3:bucket/rep-uniform:2/split=train/a b%20c"


@pytest.mark.slow
def test_every_command_works_in_folders_of_these_names(
    small_scenes, mlalign_extract, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / NAME
    folder.mkdir(parents=True)
    manifest, cache, report = (Path(NAME) / part for part in ("manifest", "cache", "report"))
    write_manifest(read_manifest(small_scenes), manifest)
    assert read_manifest(manifest).clips.num_rows > 0
    done = mlalign_extract(manifest, "-o", cache, "--backbone", "tiny")
    assert done.exit_code == 0, done.output
    assert FeatureStore.open(cache).split("test").clip_ids
    done = CliRunner().invoke(mlalign_evaluate, [str(cache), "-o", str(report)])
    assert done.exit_code == 0, done.output
    assert (folder / "report" / "queries.parquet").exists()
