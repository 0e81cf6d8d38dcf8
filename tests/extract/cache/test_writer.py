"""Committing shards: whole or not at all, equal bytes for equal content, disks that refuse."""

import errno
import io
import json
import os
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest

from mlalign.extract.cache.contract import CacheError, index_path, read_settings, shard_path
from mlalign.extract.cache.writer import check_new, check_same, commit_shard, open_for_writing

SETTINGS = {"backbone": "tiny", "fps": 1.0, "width": 4, "preprocessing": {"mean": (0.5, 0.5)}}
LAYOUT = {"segments": ["spans", "uniform:4"], "keep_frames": True}


def make(cache, **changes):
    settings = {**SETTINGS, **{k: v for k, v in changes.items() if k in SETTINGS}}
    layout = {**LAYOUT, **{k: v for k, v in changes.items() if k in LAYOUT}}
    return open_for_writing(cache, settings=settings, layout=layout, record={"command": "x"})


def commit(cache, *, seed=0, name="texts-1"):
    features = np.random.default_rng(seed).normal(size=(3, 4)).astype(np.float16)
    rows = [
        {"text_id": f"t{i}", "clip_id": "c", "kind": "caption", "text": "ü\n", "split": "all"}
        | {"row": i, "item_digest": "d", "generation": 0}
        for i in range(3)
    ]
    arrays = {"texts/features": features}
    commit_shard(cache, "texts", name, arrays=arrays, tables={"texts": rows})
    return features, rows


def files(cache):
    return sorted(str(p.relative_to(cache)) for p in cache.rglob("*") if p.is_file())


def test_a_new_cache_says_how_it_was_made(tmp_path):
    key = make(tmp_path / "new" / "cache")
    content = read_settings(tmp_path / "new" / "cache")
    assert content["key"] == key
    assert content["settings"]["preprocessing"] == {"mean": [0.5, 0.5]}
    assert content["layout"] == LAYOUT
    assert content["command"] == "x"


def test_opening_it_again_changes_nothing(tmp_path):
    key = make(tmp_path)
    before = (tmp_path / "cache.json").read_bytes()
    assert make(tmp_path) == key
    assert (tmp_path / "cache.json").read_bytes() == before


def test_other_settings_are_refused_with_both_values_of_each(tmp_path):
    make(tmp_path)
    before = (tmp_path / "cache.json").read_bytes()
    with pytest.raises(CacheError) as caught:
        make(tmp_path, fps=2.0, backbone="ViT-B-32", segments=["uniform:8"])
    message = str(caught.value)
    assert "fps: the cache has 1.0, this run asks for 2.0" in message
    assert "backbone: the cache has tiny, this run asks for ViT-B-32" in message
    assert "segments: the cache has spans, uniform:4, this run asks for uniform:8" in message
    assert "keep_frames" not in message
    assert "nothing was changed" in message
    assert (tmp_path / "cache.json").read_bytes() == before


def test_settings_are_compared_as_json_keeps_them(tmp_path):
    make(tmp_path)
    check_same(tmp_path, {"preprocessing": {"mean": (0.5, 0.5)}, "fps": 1})
    with pytest.raises(CacheError, match="width: the cache has 4, this run asks for 5"):
        check_same(tmp_path, {"width": 5})


def test_a_folder_with_something_in_it_is_not_made_a_cache(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(CacheError, match="is not empty and not a cache"):
        make(tmp_path)
    assert files(tmp_path) == ["thesis.tex"]


def test_a_file_is_not_made_a_cache(tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(CacheError, match="is a file"):
        make(tmp_path / "cache")


def test_an_empty_folder_may_become_a_cache(tmp_path):
    (tmp_path / ".DS_Store").write_text("")
    check_new(tmp_path)
    check_new(tmp_path / "nowhere")
    make(tmp_path)


def test_a_shard_comes_back_from_disk(tmp_path):
    features, rows = commit(tmp_path)
    with h5py.File(shard_path(tmp_path, "texts-1.h5")) as file:
        stored = file["texts/features"]
        assert stored.dtype == np.float16
        np.testing.assert_array_equal(stored[()], features)
    table = pq.read_table(index_path(tmp_path, "texts", "texts-1.h5")).to_pylist()
    assert [{name: row[name] for name in rows[0]} for row in table] == rows
    assert {row["shard"] for row in table} == {"texts-1.h5"}
    assert table[0]["start_seconds"] is None


def test_equal_content_gives_equal_bytes(tmp_path):
    for name in ("a", "b"):
        commit(tmp_path / name)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    for name in files(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_main_index_file_comes_last(tmp_path, monkeypatch):
    written = []
    replace = os.replace

    def spy(source, target):
        written.append(os.path.relpath(target, tmp_path))
        replace(source, target)

    monkeypatch.setattr(os, "replace", spy)
    commit_shard(
        tmp_path, "clips", "clips-1", arrays={}, tables={"clips": [], "segments": [], "texts": []}
    )
    assert written[0] == "shards/clips-1.h5"
    assert written[-1] == "index/clips/clips-1.parquet"


def test_an_empty_shard_is_a_sound_file(tmp_path):
    arrays = {"texts/features": np.empty((0, 4), dtype=np.float16)}
    commit_shard(tmp_path, "texts", "texts-0", arrays=arrays, tables={"texts": []})
    with h5py.File(io.BytesIO(shard_path(tmp_path, "texts-0.h5").read_bytes())) as file:
        assert file["texts/features"].shape == (0, 4)
    assert pq.read_table(index_path(tmp_path, "texts", "texts-0.h5")).num_rows == 0


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
@pytest.mark.parametrize("number", [0, 1])
def test_a_full_disk_leaves_no_half_file(tmp_path, monkeypatch, call, number):
    """The disk fills up at the first or second file of a shard."""
    commit(tmp_path, name="texts-0")
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    calls = []

    def failing(original):
        def fail(*arguments):
            calls.append(arguments)
            if len(calls) > number:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original(*arguments)

        return fail

    if call == "write":
        open_path = Path.open

        def full(path, mode="r", *arguments, **options):
            if "w" not in mode:
                return open_path(path, mode, *arguments, **options)
            calls.append(path)
            if len(calls) <= number:
                return open_path(path, mode)

            class Full(io.FileIO):
                def write(self, content):
                    super().write(bytes(content)[:10])
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            return io.BufferedRandom(Full(path, "w+"))

        monkeypatch.setattr(Path, "open", full)
    else:
        monkeypatch.setattr(os, call, failing(getattr(os, call)))
    with pytest.raises(CacheError, match="No space left on device.*make room and run the same"):
        commit(tmp_path, seed=1)
    monkeypatch.undo()
    for name, content in before.items():
        assert (tmp_path / name).read_bytes() == content
    assert not index_path(tmp_path, "texts", "texts-1.h5").exists()
    for name in set(files(tmp_path)) - set(before):
        # What is there under a final name is whole.
        if not name.endswith(".tmp"):
            commit(tmp_path / "whole", seed=1)
            assert (tmp_path / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_disk_that_refuses_a_new_cache_is_named(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CacheError, match="Read-only file system.*make it possible to write there"):
        make(tmp_path / "cache")


def test_the_first_of_two_makers_wins(tmp_path, monkeypatch):
    """Another process makes the cache between our look and our writing."""
    link, rival = os.link, {"format": None}

    def late(source, target):
        monkeypatch.setattr(os, "link", link)
        make(tmp_path, fps=2.0)
        rival.update(json.loads((tmp_path / "cache.json").read_text()))
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(CacheError, match="fps: the cache has 2.0, this run asks for 1.0"):
        make(tmp_path)
    assert json.loads((tmp_path / "cache.json").read_text()) == rival


def test_no_temporary_file_is_left(tmp_path):
    make(tmp_path)
    commit(tmp_path)
    assert not [name for name in files(tmp_path) if name.endswith(".tmp")]


def test_files_can_be_read_by_whom_the_umask_allows(tmp_path):
    before = os.umask(0o027)
    try:
        make(tmp_path)
        commit(tmp_path)
    finally:
        os.umask(before)
    for name in files(tmp_path):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o640, name
