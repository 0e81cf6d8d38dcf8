"""Features that do not fit in memory are read through a map, with the numbers of those that do."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from trainer_fixtures import VALIDATION, config_of

from mlalign.align.cli import main
from mlalign.align.config import DataConfig
from mlalign.align.data import split as training_split
from mlalign.align.data.memory import (
    FEATURES_FILE,
    _free_in_groups,
    feature_bytes,
    free_bytes,
    read_splits,
    reason_to_map,
    write_splits,
)
from mlalign.align.data.shared_splits import SplitsFile, shared_splits
from mlalign.align.data.split import TrainingDataError, check_finite, gather_rows
from mlalign.align.head_config import HeadName
from mlalign.align.model.model import build_model
from mlalign.align.sweep.sweep import FEATURES_FOLDER
from mlalign.align.validation import encode_blocks
from mlalign.align.validation.recall import load_validation_split, validate
from mlalign.data_manifests.core.errors import SettingsError
from mlalign.extract.cache.store import FeatureStore

ARRAYS = ("clip_features", "segment_features", "text_features", "segment_offsets", "text_clips")


@pytest.mark.parametrize("in_memory", [True, False])
def test_splits_that_are_mapped_are_those_in_memory(in_memory, small_cache, tmp_path):
    store = FeatureStore.open(small_cache)
    expected = read_splits(store, DataConfig())
    write_splits(store, DataConfig(), tmp_path / "splits", in_memory=in_memory)
    found = shared_splits(tmp_path / "splits")
    (tmp_path / "splits").unlink()  # its pages stay while they are in use
    for one, other in zip(found, expected, strict=True):
        for name in ARRAYS:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        options = (one.questions.option_features, other.questions.option_features)
        np.testing.assert_array_equal(*options)
        assert (one.texts, one.clip_ids) == (other.texts, other.clip_ids)


def test_arrays_that_lie_in_the_file_are_not_written_again(small_cache, tmp_path):
    store = FeatureStore.open(small_cache)
    with SplitsFile(tmp_path / "splits") as file:
        splits = read_splits(store, DataConfig(), file=file)
        file.finish(splits)
    in_file = (tmp_path / "splits").read_bytes()
    assert in_file.count(splits[0].clip_features.tobytes()) == 1


def test_what_features_need_is_counted_from_the_index(small_cache):
    store = FeatureStore.open(small_cache)
    counted = 0
    for split in read_splits(store, DataConfig()):
        arrays = [split.clip_features, split.segment_features, split.text_features]
        arrays += [split.questions.question_features, split.questions.option_features]
        arrays += [] if split.sentences is None else [split.sentences.values]
        counted += sum(array.nbytes for array in arrays)
    assert feature_bytes(store, DataConfig()) == counted


def test_frames_and_tokens_are_counted_and_mapped_as_they_are_stored(token_cache, tmp_path):
    store, data = FeatureStore.open(token_cache), DataConfig(frames_per_clip=3)
    expected = read_splits(store, data, with_tokens=True)
    needed = sum(
        ragged.values.nbytes for split in expected for ragged in (split.frames, split.tokens)
    )
    assert feature_bytes(store, data, with_tokens=True) == feature_bytes(store, data) + needed
    write_splits(store, data, tmp_path / "splits", with_tokens=True, in_memory=False)
    for one, other in zip(shared_splits(tmp_path / "splits"), expected, strict=True):
        for name in ("frames", "tokens"):
            found, wanted = getattr(one, name), getattr(other, name)
            assert found.values.dtype == wanted.values.dtype == np.float16
            np.testing.assert_array_equal(found.values, wanted.values)
            np.testing.assert_array_equal(found.offsets, wanted.offsets)


def test_features_are_mapped_when_they_exceed_what_is_allowed(small_cache, monkeypatch):
    store = FeatureStore.open(small_cache)
    needed = feature_bytes(store, DataConfig())
    assert reason_to_map(store, DataConfig(memory_gib=1.01 * needed / 2**30)) is None
    reason = reason_to_map(store, DataConfig(memory_gib=0.5 * needed / 2**30))
    assert "GiB of features are read through a memory map (data.memory_gib allows" in reason
    place = "mlalign.align.data.memory.free_bytes"
    monkeypatch.setattr(place, lambda: 2 * needed)
    assert reason_to_map(store, DataConfig()) is None
    assert "GiB are free" in reason_to_map(store, DataConfig(), processes=2)
    monkeypatch.setattr(place, lambda: int(1.5 * needed))
    assert reason_to_map(store, DataConfig()) is not None
    monkeypatch.setattr(place, lambda: None)
    assert reason_to_map(store, DataConfig()) is None


def test_free_memory_is_known_on_linux():
    free = free_bytes()
    assert free is None or 0 <= free < 2**50


@pytest.mark.parametrize(
    ("membership", "mount", "limit", "used", "cached"),
    [
        ("0::/job\n", "", "memory.max", "memory.current", "inactive_file"),
        (
            "5:cpu,memory:/job\n0::/\n",
            "memory",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        ),
    ],
)
@pytest.mark.parametrize("folder", ["job", "."], ids=["host", "container"])
def test_the_limit_of_a_control_group_counts(
    membership, mount, limit, used, cached, folder, tmp_path
):
    """Of both versions; in a container the job's folder is the mount itself."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(membership)
    group = tmp_path / "sys/fs/cgroup" / mount / folder
    group.mkdir(parents=True)
    (group / limit).write_text("4000\n")
    (group / used).write_text("3000\n")
    (group / "memory.stat").write_text(f"file 900\n{cached} 500\n")
    assert list(_free_in_groups(tmp_path)) == [1500]


@pytest.mark.parametrize("head", ["residual", "temporal"])
def test_a_mapped_run_has_the_same_bytes_and_leaves_no_features(head, small_cache, tmp_path):
    """Nor what a killed run left; those of a sweep in the same folder stay."""
    stale = tmp_path / "mapped" / FEATURES_FILE.format(machine=0)
    of_sweep = tmp_path / "mapped" / FEATURES_FOLDER / "splits-0"
    of_sweep.parent.mkdir(parents=True)
    for path in (stale, of_sweep):
        path.write_bytes(b"cut off")
    said = {}
    for name, gib in (("whole", "null"), ("mapped", "0")):
        settings = ["optimiser.epochs=3", "device=cpu", f"heads.video.name={head}"]
        arguments = [str(small_cache), "-o", str(tmp_path / name)]
        for setting in (*settings, f"data.memory_gib={gib}"):
            arguments += ["--set", setting]
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
        said[name] = result.stderr
    assert "read through a memory map (data.memory_gib allows 0)" in said["mapped"]
    assert "memory map" not in said["whole"]
    for file in ("metrics.jsonl", "heads.safetensors", "last.safetensors"):
        whole, mapped = ((tmp_path / name / file).read_bytes() for name in ("whole", "mapped"))
        assert whole == mapped
    assert not stale.exists() and of_sweep.exists()


def test_a_file_in_the_way_of_the_run_is_named(small_cache, tmp_path):
    (tmp_path / "run").write_text("")
    arguments = [str(small_cache), "-o", str(tmp_path / "run"), "--set", "data.memory_gib=0"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2 and "a file is in its way" in result.stderr


@pytest.mark.parametrize("memory_gib", ["0", "1"])
@pytest.mark.parametrize("is_there", [False, True])
def test_a_failed_start_leaves_no_run_folder(memory_gib, is_there, small_cache, tmp_path):
    """Whether the features are mapped, for which the folder is needed, or in memory."""
    out = tmp_path / "run"
    if is_there:
        out.mkdir()
    settings = [f"data.memory_gib={memory_gib}", "heads.video.width=3", "device=cpu"]
    words = [word for setting in settings for word in ("--set", setting)]
    done = CliRunner().invoke(main, [str(small_cache), "-o", str(out), *words])
    assert done.exit_code == 2 and "keeps the width of the features" in done.stderr
    assert out.exists() == is_there
    assert not is_there or not list(out.iterdir())


def test_memory_is_not_negative():
    with pytest.raises(ValueError, match="memory_gib must be >= 0"):
        DataConfig(memory_gib=-1.0)


def test_a_missing_split_is_named(small_cache, tmp_path):
    data = DataConfig(train_split="nope", memory_gib=0.0)
    with pytest.raises(SettingsError, match="data.train_split is 'nope'"):
        write_splits(FeatureStore.open(small_cache), data, tmp_path / "splits", in_memory=True)


@pytest.mark.parametrize("head", ["residual", "attention"])
def test_validation_in_blocks_gives_the_same_recall(head: HeadName, monkeypatch):
    config = config_of(head="residual")
    heads = replace(config.heads, video=replace(config.heads.video, name=head))
    model = build_model(replace(config, heads=heads), dim_video=24, dim_text=24)
    split = load_validation_split(VALIDATION, device=torch.device("cpu"))
    whole = validate(model, split)
    monkeypatch.setattr(encode_blocks, "BLOCK_ROWS", 7)
    assert validate(model, split) == whole


def test_rows_are_gathered_to_where_their_indices_are():
    features, rows = torch.arange(12.0).reshape(4, 3), torch.tensor([3, 0, 3])
    assert torch.equal(gather_rows(features, rows), features[rows])


def test_features_that_are_not_finite_are_found_in_every_block(monkeypatch):
    monkeypatch.setattr(training_split, "BLOCK_ROWS", 7)
    bad = VALIDATION.segment_features.copy()
    bad[[3, 40]] = np.nan
    with pytest.raises(TrainingDataError, match=r"2 of \d+ segment features are NaN"):
        check_finite(replace(VALIDATION, segment_features=bad))


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot reserve")
def test_a_full_disk_is_an_error_before_anything_is_written(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with SplitsFile(tmp_path / "splits") as file, pytest.raises(OSError, match="No space"):
        file.allocate((3, 4), "float32")
