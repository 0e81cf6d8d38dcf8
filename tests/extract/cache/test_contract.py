"""The key of a cache and the reading of cache.json."""

import json

import pytest

from mlalign.extract.cache.contract import (
    FORMAT,
    ID_COLUMNS,
    TABLES,
    CacheError,
    cache_key,
    digest,
    index_path,
    read_settings,
    settings_path,
    shard_path,
)

SETTINGS = {"backbone": "tiny", "fps": 1.0, "width": 8, "preprocessing": {"mean": [0.5, 0.25]}}


def write(cache, **changes):
    content = {
        "format": FORMAT,
        "key": cache_key(SETTINGS),
        "settings": SETTINGS,
        "layout": {"segments": ["uniform:4"], "keep_frames": True},
        **changes,
    }
    content = {name: value for name, value in content.items() if value is not None}
    settings_path(cache).write_text(json.dumps(content))
    return content


def test_the_key_does_not_hang_on_the_order_of_the_settings():
    assert cache_key(SETTINGS) == cache_key(dict(reversed(SETTINGS.items())))


@pytest.mark.parametrize(
    "change",
    [
        {"fps": 2.0},
        {"backbone": "ViT-B-32"},
        {"preprocessing": {"mean": [0.25, 0.5]}},
        {"new": None},
    ],
    ids=str,
)
def test_the_key_changes_with_every_setting(change):
    assert cache_key({**SETTINGS, **change}) != cache_key(SETTINGS)


def test_digests_tell_apart_what_looks_alike():
    values = [1, 1.5, "1", [1], [[1]], None, "", [], {}, "é", "e\u0301", [1, 23], [12, 3], {"a": 1}]
    assert len({digest(value) for value in values}) == len(values)


def test_digests_survive_json():
    value = {"spans": [(0.1 + 0.2, 1e-9)], "text": "\ud83d\ude00 \n"}
    assert digest(json.loads(json.dumps(value))) == digest(value)


def test_the_digest_of_a_value_is_the_same_for_ever():
    assert digest({"b": [1.0, None], "a": "ü"}) == (
        "d8fe344eacf980a41f791966c2394c31b2afdc0ce62ff7a287e537dda84dc608"
    )


def test_every_unit_has_its_table_with_id_and_location():
    for unit, column in ID_COLUMNS.items():
        names = TABLES[unit].names
        assert names[0] == column
        assert {"shard", "row", "shard_sha256", "item_digest", "generation"} <= set(names)


def test_the_files_of_a_shard_share_its_name(tmp_path):
    assert shard_path(tmp_path, "clips-1.h5") == tmp_path / "shards/clips-1.h5"
    assert index_path(tmp_path, "segments", "clips-1.h5") == (
        tmp_path / "index/segments/clips-1.parquet"
    )


def test_settings_come_back_as_they_were_written(tmp_path):
    written = write(tmp_path)
    assert read_settings(tmp_path) == written


def test_a_folder_without_settings_is_no_cache(tmp_path):
    with pytest.raises(CacheError, match="is not a feature cache: it has no cache.json"):
        read_settings(tmp_path)
    with pytest.raises(CacheError, match="is not a feature cache"):
        read_settings(tmp_path / "nowhere")


def test_another_format_is_refused_with_both_numbers(tmp_path):
    write(tmp_path, format=99)
    with pytest.raises(CacheError, match=f"has cache format 99, this version reads {FORMAT}"):
        read_settings(tmp_path)


def test_a_key_that_does_not_fit_the_settings_is_damage(tmp_path):
    write(tmp_path, settings={**SETTINGS, "fps": 2.0})
    with pytest.raises(CacheError, match="its key does not fit its settings"):
        read_settings(tmp_path)


@pytest.mark.parametrize("missing", ["settings", "key", "format", "layout"])
def test_a_missing_part_is_named_as_damage(tmp_path, missing):
    write(tmp_path, **{missing: None})
    with pytest.raises(CacheError, match="cache.json is damaged|has cache format None"):
        read_settings(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"key settings"', "{}", '{"key": 1}'])
def test_what_is_no_settings_file_is_named_as_damage(tmp_path, text):
    settings_path(tmp_path).write_text(text)
    with pytest.raises(CacheError, match="cache.json"):
        read_settings(tmp_path)


def test_no_flipped_bit_ends_in_another_error(tmp_path):
    write(tmp_path)
    content = settings_path(tmp_path).read_bytes()
    for place in range(len(content)):
        for bit in (0, 3, 7):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            settings_path(tmp_path).write_bytes(damaged)
            try:
                found = read_settings(tmp_path)
            except CacheError:
                continue
            # Only what makes no numbers may differ unseen.
            assert found["settings"] == SETTINGS
            assert isinstance(found["layout"], dict)
