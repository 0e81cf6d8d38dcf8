"""mlalign-extract verify: all that can be wrong with a cache is found, named, and repaired by
extracting again."""

import json
import os
import time
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlalign.extract.cache.contract import TABLES
from mlalign.extract.cache.writer import ORPHAN_SECONDS, commit_shard
from mlalign.extract.maintenance.verify import verify_cache


def first(cache, pattern):
    return sorted(cache.glob(pattern))[0]


def aged(*paths):
    """As if written before any run that may be at work."""
    for path in paths:
        then = time.time() - 2 * ORPHAN_SECONDS
        os.utime(path, (then, then))


def rewritten(cache, unit, change):
    """A shard committed anew with other arrays or rows, its checksum right."""
    shard = first(cache, f"shards/{unit}-*.h5")
    arrays = {}
    with h5py.File(shard) as file:
        file.visititems(
            lambda name, item: arrays.update({name: item[()]}) if hasattr(item, "shape") else None
        )
    tables = ("segments", "clips") if unit == "clips" else (unit,)
    rows = {
        table: pq.read_table(
            cache / "index" / table / f"{shard.stem}.parquet", schema=TABLES[table]
        ).to_pylist()
        for table in tables
    }
    change(arrays, rows)
    commit_shard(cache, unit, shard.stem, arrays=arrays, tables=rows)
    return shard


def flip_a_bit(cache):
    shard = first(cache, "shards/clips-*.h5")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    return f"shards/{shard.name}", "is damaged: its SHA-256"


def truncate_a_shard(cache):
    shard = first(cache, "shards/texts-*.h5")
    shard.write_bytes(shard.read_bytes()[:-1])
    return f"shards/{shard.name}", "is damaged: its SHA-256"


def lose_a_shard(cache):
    shard = first(cache, "shards/questions-*.h5")
    shard.unlink()
    return f"shards/{shard.name}", "cannot be read"


def truncate_an_index_file(cache):
    index = first(cache, "index/clips/*.parquet")
    index.write_bytes(index.read_bytes()[:-8])
    return f"index/clips/{index.name}", "is damaged"


def flip_a_bit_of_an_index_file(cache):
    index = first(cache, "index/texts/*.parquet")
    content = bytearray(index.read_bytes())
    content[len(content) // 8] ^= 1  # in a page of values; not every byte of a file has an effect
    index.write_bytes(content)
    return f"index/texts/{index.name}", "is damaged"


def lose_an_index_file(cache):
    index = first(cache, "index/clips/*.parquet")
    index.unlink()
    aged(cache / "shards" / f"{index.stem}.h5")
    return f"shards/{index.stem}.h5", "belongs to nothing"


def lose_segments(cache):
    index = first(cache, "index/segments/*.parquet")
    index.unlink()
    return f"index/segments/{index.name}", "no segments by the rule spans"


DAMAGES = (
    flip_a_bit,
    truncate_a_shard,
    lose_a_shard,
    truncate_an_index_file,
    flip_a_bit_of_an_index_file,
    lose_an_index_file,
    lose_segments,
)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_is_named_and_nothing_is_changed(mlalign_extract, copied_cache, damage):
    file, words = damage(copied_cache)
    before = {path: path.stat().st_mtime_ns for path in copied_cache.rglob("*")}
    done = mlalign_extract("verify", copied_cache, "--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)["problems"]
    assert any(one["file"] == file and words in one["problem"] for one in found), found
    told = mlalign_extract("verify", copied_cache)
    assert f"  {file}: " in told.stdout
    assert "run the same mlalign-extract command again" in told.stdout
    assert {path: path.stat().st_mtime_ns for path in copied_cache.rglob("*")} == before


@pytest.mark.parametrize("damages", [DAMAGES[:3], DAMAGES[3:5], DAMAGES[5:]])
def test_extracting_again_repairs_what_verify_finds(
    mlalign_extract, small_scenes, small_options, small_cache, copied_cache, files_of, damages
):
    for damage in damages:
        damage(copied_cache)
    done = mlalign_extract(small_scenes, "-o", copied_cache, *small_options)
    assert done.exit_code == 0, done.output
    after = mlalign_extract("verify", copied_cache)
    assert after.exit_code == 0, after.output
    assert files_of(copied_cache) == files_of(small_cache)


def test_segments_that_cannot_be_cut_again_are_extracted_again(
    mlalign_extract, make_video, files_of, tmp_path
):
    make_video(tmp_path / "videos.mp4", [0, 500, 1000])
    cache = tmp_path / "cache"
    options = [tmp_path / "videos.mp4", "-o", cache, "--backbone", "tiny", "--workers", 1]
    options += ["--set", "keep_frames=false"]
    assert mlalign_extract(*options).exit_code == 0
    whole = files_of(cache)
    index = first(cache, "index/segments/*.parquet")
    for damage in (lambda: index.write_bytes(b"PAR1"), index.unlink):
        damage()
        assert mlalign_extract("verify", cache).exit_code == 1
        assert mlalign_extract(*options).exit_code == 0
        assert mlalign_extract("verify", cache).exit_code == 0
        assert files_of(cache) == whole


def not_finite(arrays, rows):
    arrays["clips/features"][0, 3] = np.nan


def of_another_type(arrays, rows):
    arrays["segments/features"] = arrays["segments/features"].astype(np.float32)


def too_narrow(arrays, rows):
    arrays["frames/features"] = arrays["frames/features"][:, :-1]


def without_times(arrays, rows):
    del arrays["frames/seconds"]


def with_something_else(arrays, rows):
    arrays["frames/thumbnails"] = np.zeros(3)


def out_of_range(arrays, rows):
    rows["clips"][0]["row"] = 99


def pointing_at_one_row(arrays, rows):
    rows["segments"][1]["row"] = rows["segments"][0]["row"]


def with_shared_frames(arrays, rows):
    rows["clips"][1]["first_frame_row"] -= 1


def with_frames_that_are_not_there(arrays, rows):
    rows["clips"][-1]["num_frames"] += 1


def with_frames_out_of_order(arrays, rows):
    arrays["frames/sample_seconds"] = arrays["frames/sample_seconds"][::-1]


def without_a_segment(arrays, rows):
    del rows["segments"][0]


def with_segments_of_no_clip(arrays, rows):
    rows["segments"] += [{**row, "clip_id": "ghost", "row": None} for row in rows["segments"][:1]]


def failed_without_a_reason(arrays, rows):
    rows["clips"][0] |= {"status": "failed", "row": None}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (not_finite, "clips/features has values that are not finite"),
        (of_another_type, "segments/features: expected float16 (n, 256), got float32"),
        (too_narrow, "frames/features: expected float16 (n, 256), got float16"),
        (without_times, "lacks the array frames/seconds"),
        (with_something_else, "has an array frames/thumbnails that the contract does not know"),
        (out_of_range, "1 index rows point outside the 2 rows of clips/features"),
        (pointing_at_one_row, "two index rows point at one row of segments/features"),
        (with_shared_frames, "two clips share frames"),
        (with_frames_that_are_not_there, "the frames of a clip lie outside"),
        (with_frames_out_of_order, "not in the order of their times"),
        (without_a_segment, "has segments ["),
        (with_segments_of_no_clip, "which is not in the index"),
        (failed_without_a_reason, "a failed clip has features, or no reason"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_the_contract_forbids_is_found_behind_right_checksums(copied_cache, change, words):
    shard = rewritten(copied_cache, "clips", change)
    found = [problem for problem in verify_cache(copied_cache).problems if words in problem.problem]
    assert found and shard.stem in found[0].file, verify_cache(copied_cache).problems


def test_options_outside_their_array_are_found(copied_cache):
    def drop_an_option(arrays, rows):
        arrays["options/features"] = arrays["options/features"][:-1]

    rewritten(copied_cache, "questions", drop_an_option)
    (found,) = verify_cache(copied_cache).problems
    assert "the options of a question lie outside" in found.problem


def test_rows_without_their_values_are_found(copied_cache):
    index = first(copied_cache, "index/texts/*.parquet")
    rows = pq.read_table(index, schema=TABLES["texts"])
    nothing = pa.nulls(rows.num_rows, pa.string())
    column = rows.schema.get_field_index("item_digest")
    pq.write_table(rows.set_column(column, rows.schema.field(column), nothing), index)
    (found,) = verify_cache(copied_cache).problems
    assert found.problem == "the column item_digest has rows without a value"


def test_a_whole_cache_has_no_problem(mlalign_extract, small_cache):
    done = mlalign_extract("verify", small_cache, "--json")
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert found["problems"] == []
    assert found["num_shards"] == len(list(small_cache.glob("shards/*.h5")))
    assert found["num_index_files"] == len(list(small_cache.glob("index/*/*.parquet")))
    assert "is whole" in mlalign_extract("verify", small_cache).stdout


def test_what_a_run_at_work_may_be_about_to_commit_is_no_problem(mlalign_extract, copied_cache):
    index = first(copied_cache, "index/clips/*.parquet")
    index.unlink()
    shard = copied_cache / "shards" / f"{index.stem}.h5"
    segments = copied_cache / "index" / "segments" / index.name
    for path in (shard, segments):
        os.utime(path)
    assert verify_cache(copied_cache).problems == []
    aged(shard, segments)
    files = [problem.file for problem in verify_cache(copied_cache).problems]
    assert files == [f"index/segments/{index.name}", f"shards/{shard.name}"]


def test_a_damaged_cache_json_is_one_problem(mlalign_extract, copied_cache):
    record = Path(copied_cache / "cache.json")
    record.write_text(record.read_text().replace('"fps": 2.0', '"fps": 3.0', 1))
    done = mlalign_extract("verify", copied_cache)
    assert done.exit_code == 1
    assert "cache.json: " in done.stdout and "key does not fit" in done.stdout
