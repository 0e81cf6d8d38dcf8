"""Reading a cache: what was committed comes back, what was not does not exist, damage is named."""

import shutil

import numpy as np
import pytest

from mlalign.extract.cache.contract import CacheError, index_path, settings_path, shard_path
from mlalign.extract.cache.store import FeatureStore
from mlalign.extract.cache.writer import commit_shard, open_for_writing

WIDTH = 4
RULES = ("spans", "uniform:2")


def clip_row(clip_id, row, **changes):
    return {
        "clip_id": clip_id,
        "video_path": f"{clip_id}.mp4",
        "split": "train",
        "status": "ok",
        "num_frames": 2,
        "num_segments": 3,
        "duration_seconds": 2.0 + row if row is not None else None,
        "item_digest": f"d-{clip_id}",
        "generation": 0,
        "row": row,
        **changes,
    }


def segment_rows(clip_id, first_row):
    spans = [("spans", 0.5, 1.5), ("uniform:2", 0.0, 1.0), ("uniform:2", 1.0, 2.0)]
    return [
        {
            "clip_id": clip_id,
            "rule": rule,
            "segment_index": i - (rule != "spans"),
            "start_seconds": start,
            "end_seconds": end,
            "num_frames": 1,
            "row": first_row + i,
        }
        for i, (rule, start, end) in enumerate(spans)
    ]


def text_row(text_id, clip_id, row, span=(None, None)):
    return {
        "text_id": text_id,
        "clip_id": clip_id,
        "kind": "caption",
        "text": f"says {text_id}",
        "start_seconds": span[0],
        "end_seconds": span[1],
        "split": "train",
        "item_digest": "d",
        "generation": 0,
        "row": row,
    }


def random_rows(count, seed):
    return np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float16)


def commit_clips(cache, name, clips, *, seed, **changes):
    """A shard of ok clips, {clip_id: split}; its arrays."""
    arrays = {
        "clips/features": random_rows(len(clips), seed),
        "segments/features": random_rows(3 * len(clips), seed + 1),
        "frames/seconds": np.zeros(2 * len(clips)),
    }
    clip_rows = [
        clip_row(clip_id, row, split=split, **changes)
        for row, (clip_id, split) in enumerate(clips.items())
    ]
    segments = [s for row, clip_id in enumerate(clips) for s in segment_rows(clip_id, 3 * row)]
    tables = {"clips": clip_rows, "segments": segments}
    commit_shard(cache, "clips", name, arrays=arrays, tables=tables)
    return arrays


def commit_texts(cache, name, rows, *, seed):
    features = random_rows(len(rows), seed)
    commit_shard(cache, "texts", name, arrays={"texts/features": features}, tables={"texts": rows})
    return features


def new_cache(path):
    open_for_writing(
        path,
        settings={"backbone": "tiny", "width": WIDTH},
        layout={"segments": list(RULES), "keep_frames": False},
        record={},
    )
    return path


@pytest.fixture
def cache(tmp_path):
    """Clips a and c (train), b (test) in two shards, clip z failed; texts of all of them."""
    cache = new_cache(tmp_path / "cache")
    commit_clips(cache, "clips-1", {"c": "train", "b": "test"}, seed=10)
    commit_clips(cache, "clips-2", {"a": "train"}, seed=20)
    failed = clip_row("z", None, status="failed", reason="broken", num_frames=0, num_segments=0)
    empty = {
        "clips/features": random_rows(0, 0),
        "segments/features": random_rows(0, 0),
    }
    commit_shard(
        cache, "clips", "clips-3", arrays=empty, tables={"clips": [failed], "segments": []}
    )
    rows = [
        text_row("t3", "a", 0),
        text_row("t1", "c", 1, span=(0.5, 1.5)),
        text_row("t2", "b", 2),
        text_row("t0", "z", 3),
    ]
    commit_texts(cache, "texts-1", rows, seed=30)
    return cache


def test_clips_that_are_cut_short_are_there_unless_left_out_and_counted_either_way(cache):
    commit_clips(cache, "clips-4", {"d": "train"}, seed=40, status="partial", reason="cut short")
    commit_texts(cache, "texts-2", [text_row("t9", "d", 0)], seed=50)
    store = FeatureStore.open(cache)
    whole, without = store.split("train"), store.split("train", leave_out_partial=True)
    assert (whole.clip_ids, without.clip_ids) == (["a", "c", "d"], ["a", "c"])
    assert (whole.text_ids, without.text_ids) == (["t1", "t3", "t9"], ["t1", "t3"])
    for split in (whole, without):
        assert (split.num_failed_clips, split.num_partial_clips) == (1, 1)
    np.testing.assert_array_equal(without.segment_features, whole.segment_features[:2])


def test_a_split_of_nothing_but_clips_cut_short_says_so(cache):
    commit_clips(cache, "clips-4", {"d": "short"}, seed=40, status="partial", reason="cut short")
    with pytest.raises(CacheError, match="has features but 1 that are cut short and left"):
        FeatureStore.open(cache).split("short", leave_out_partial=True)


def test_a_split_is_what_was_committed_in_the_order_of_the_ids(cache):
    found = FeatureStore.open(cache).split("train")
    one, two = random_rows(2, 10), random_rows(1, 20)
    assert found.clip_ids == ["a", "c"]
    np.testing.assert_array_equal(found.clip_features, np.stack([two[0], one[0]]))
    np.testing.assert_array_equal(found.clip_durations, [2.0, 2.0])
    assert found.segment_rule == "spans"
    np.testing.assert_array_equal(found.segment_offsets, [0, 1, 2])
    np.testing.assert_array_equal(found.segment_spans, [[0.5, 1.5], [0.5, 1.5]])
    segments = np.stack([random_rows(3, 21)[0], random_rows(6, 11)[0]])
    np.testing.assert_array_equal(found.segment_features, segments)
    assert found.text_ids == ["t1", "t3"]
    assert found.texts == ["says t1", "says t3"]
    np.testing.assert_array_equal(found.text_features, random_rows(4, 30)[[1, 0]])
    np.testing.assert_array_equal(found.text_clips, [1, 0])
    np.testing.assert_array_equal(found.text_is_segment, [True, False])
    np.testing.assert_array_equal(found.text_spans[0], [0.5, 1.5])
    assert np.isnan(found.text_spans[1]).all()
    assert found.num_failed_clips == 1


def test_subtitles_are_no_descriptions(tmp_path):
    cache = new_cache(tmp_path / "cache")
    commit_clips(cache, "clips-1", {"a": "train"}, seed=10)
    spoken = {**text_row("a@0", "a", 0, span=(0.0, 1.0)), "kind": "subtitle"}
    commit_texts(cache, "texts-1", [spoken, text_row("t", "a", 1)], seed=30)
    store = FeatureStore.open(cache)
    assert store.split("train").text_ids == ["t"]
    assert store.texts.num_rows == 2


def test_arrays_have_the_types_of_the_contract(cache):
    found = FeatureStore.open(cache).split(None)
    assert found.clip_features.dtype == found.segment_features.dtype == np.float32
    assert found.text_features.dtype == np.float32
    assert found.segment_offsets.dtype == found.text_clips.dtype == np.int64
    assert found.clip_durations.dtype == found.segment_spans.dtype == np.float64
    assert found.questions.question_features.shape == (0, WIDTH)
    assert found.questions.option_offsets.tolist() == [0]


def test_every_rule_can_be_asked_for(cache):
    store = FeatureStore.open(cache)
    assert store.segment_rules == RULES
    found = store.split("train", segments="uniform:2")
    np.testing.assert_array_equal(found.segment_offsets, [0, 2, 4])
    np.testing.assert_array_equal(found.segment_spans[:2], [[0, 1], [1, 2]])
    np.testing.assert_array_equal(found.segment_features[2:], random_rows(6, 11)[1:3])
    with pytest.raises(CacheError, match="has no segments 'fixed:3'; it has spans, uniform:2"):
        store.split("train", segments="fixed:3")


def test_no_split_means_all_clips(cache):
    found = FeatureStore.open(cache).split(None)
    assert found.split == "all"
    assert found.clip_ids == ["a", "b", "c"]
    assert found.text_ids == ["t1", "t2", "t3"]


def test_an_unknown_split_is_refused_with_those_there_are(cache):
    with pytest.raises(CacheError, match="has no split 'val'; it has test, train"):
        FeatureStore.open(cache).split("val")


def test_a_split_of_failed_clips_alone_is_refused(tmp_path):
    cache = new_cache(tmp_path)
    failed = clip_row("z", None, status="failed", reason="broken")
    commit_shard(cache, "clips", "clips-3", arrays={}, tables={"clips": [failed], "segments": []})
    with pytest.raises(CacheError, match="none of the 1 clips of split 'train' has features"):
        FeatureStore.open(cache).split("train")


def test_questions_come_with_the_features_of_their_options(cache):
    features, options = random_rows(3, 40), random_rows(6, 41)
    common = {"split": "train", "item_digest": "d", "generation": 0, "type": "why"}
    rows = [
        {"question_id": "q2", "clip_id": "a", "kind": "multiple_choice", "question": "What?"}
        | {"options": ["x", "y"], "answer_index": 1, "row": 0, "first_option_row": 0},
        {"question_id": "q0", "clip_id": "c", "kind": "open_ended", "question": "Who?"}
        | {"answer": "me", "row": 1, "first_option_row": 2},
        {"question_id": "q1", "clip_id": "a", "kind": "multiple_choice", "question": "Why?"}
        | {"options": ["u", "v", "w"], "row": 2, "first_option_row": 3, "start_seconds": 0.5}
        | {"end_seconds": 1.0},
    ]
    commit_shard(
        cache,
        "questions",
        "questions-1",
        arrays={"questions/features": features, "options/features": options},
        tables={"questions": [{**common, **row} for row in rows]},
    )
    found = FeatureStore.open(cache).split("train").questions
    assert found.question_ids == ["q0", "q1", "q2"]
    assert found.kinds == ["open_ended", "multiple_choice", "multiple_choice"]
    np.testing.assert_array_equal(found.clips, [1, 0, 0])
    np.testing.assert_array_equal(found.question_features, features[[1, 2, 0]])
    np.testing.assert_array_equal(found.option_offsets, [0, 1, 4, 6])
    np.testing.assert_array_equal(found.option_features, options[[2, 3, 4, 5, 0, 1]])
    np.testing.assert_array_equal(found.answer_indices, [-1, -1, 1])
    assert found.answers == ["me", None, None]
    np.testing.assert_array_equal(found.spans, [[np.nan] * 2, [0.5, 1.0], [np.nan] * 2])


def test_the_row_of_the_highest_generation_counts(cache):
    # Names sort against the generations.
    commit_clips(cache, "clips-0", {"a": "train"}, seed=50, generation=2, duration_seconds=9.0)
    commit_clips(cache, "clips-9", {"a": "train"}, seed=60, generation=1)
    found = FeatureStore.open(cache).split("train")
    assert found.clip_ids == ["a", "c"]
    np.testing.assert_array_equal(found.clip_features[0], random_rows(1, 50)[0])
    np.testing.assert_array_equal(found.segment_offsets, [0, 1, 2])
    np.testing.assert_array_equal(found.segment_features[0], random_rows(3, 51)[0])
    assert found.clip_durations[0] == 9.0


def test_a_clip_that_fails_when_done_again_loses_its_features(cache):
    failed = clip_row("a", None, status="failed", reason="replaced by junk", generation=1)
    commit_shard(cache, "clips", "clips-4", arrays={}, tables={"clips": [failed], "segments": []})
    found = FeatureStore.open(cache).split("train")
    assert found.clip_ids == ["c"]
    assert found.text_ids == ["t1"]
    assert found.num_failed_clips == 2


def test_a_shard_without_its_main_index_file_does_not_exist(cache):
    index_path(cache, "clips", "clips-2.h5").unlink()
    found = FeatureStore.open(cache).split("train")
    assert found.clip_ids == ["c"]
    assert len(found.segment_features) == 1
    assert found.text_ids == ["t1"]


def test_unfinished_files_are_not_seen(cache):
    before = FeatureStore.open(cache).split(None)
    for folder in ("shards", "index/clips", "index/segments", "index/texts"):
        (cache / folder / ".host-1-abc.tmp").write_bytes(b"half")
    shard_path(cache, "clips-8.h5").write_bytes(b"half")
    after = FeatureStore.open(cache).split(None)
    assert after.clip_ids == before.clip_ids
    np.testing.assert_array_equal(after.segment_features, before.segment_features)


def test_a_copied_cache_reads_the_same(cache, tmp_path):
    shutil.copytree(cache, tmp_path / "copy")
    shutil.rmtree(cache)
    assert FeatureStore.open(tmp_path / "copy").split("test").clip_ids == ["b"]


def test_no_cache_is_named(tmp_path):
    with pytest.raises(CacheError, match="is not a feature cache"):
        FeatureStore.open(tmp_path)


def test_a_cache_without_clips_has_no_splits(tmp_path):
    store = FeatureStore.open(new_cache(tmp_path))
    assert store.splits == ()
    with pytest.raises(CacheError, match="has no split 'train'; it has no clips yet"):
        store.split("train")
    with pytest.raises(CacheError, match="0 clips"):
        store.split(None)


def flat(found):
    return [
        found.clip_ids,
        found.clip_features.tolist(),
        found.clip_durations.tolist(),
        found.segment_features.tolist(),
        found.segment_offsets.tolist(),
        found.segment_spans.tolist(),
        found.text_ids,
        found.texts,
        found.text_features.tolist(),
        found.text_clips.tolist(),
        found.text_is_segment.tolist(),
    ]


@pytest.mark.parametrize("kind", ["clips", "texts"])
def test_a_damaged_shard_is_named(cache, kind):
    path = shard_path(cache, f"{kind}-1.h5")
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [content[: len(content) // 2], b"", content + b"\0"]
    for place in rng.integers(0, len(content), 20):
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.integers(8)
        damaged.append(bytes(flipped))
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(
            CacheError, match=f"{kind}-1.h5 is damaged.*run the same mlalign-extract"
        ):
            FeatureStore.open(cache).split("train")
    path.unlink()
    with pytest.raises(CacheError, match=f"cannot read the shard .*{kind}-1.h5: No such file"):
        FeatureStore.open(cache).split("train")


@pytest.mark.parametrize("table", ["clips", "segments", "texts"])
def test_a_truncated_index_file_is_named(cache, table):
    shard = "texts-1.h5" if table == "texts" else "clips-1.h5"
    path = index_path(cache, table, shard)
    content = path.read_bytes()
    for size in (0, 3, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(CacheError, match=f"{path.name} is damaged.*run the same mlalign-extra"):
            FeatureStore.open(cache)


@pytest.mark.parametrize("table", ["clips", "segments", "texts"])
def test_a_flipped_bit_in_an_index_file_is_noticed_or_without_effect(cache, table):
    path = index_path(cache, table, "texts-1.h5" if table == "texts" else "clips-1.h5")
    content = path.read_bytes()
    before = flat(FeatureStore.open(cache).split("train"))
    rng = np.random.default_rng(1)
    num_noticed = 0
    for place in rng.integers(0, len(content), 60):
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.integers(8)
        path.write_bytes(flipped)
        try:
            found = flat(FeatureStore.open(cache).split("train"))
        except CacheError:
            num_noticed += 1
            continue
        assert found == before, place
    assert num_noticed > 5


def test_a_lost_segments_index_is_named(cache):
    index_path(cache, "segments", "clips-1.h5").unlink()
    with pytest.raises(CacheError, match="1 clips have no segments 'spans'"):
        FeatureStore.open(cache).split("train")


def test_an_index_of_another_schema_is_named(cache):
    source = index_path(cache, "texts", "texts-1.h5")
    shutil.copy(source, index_path(cache, "clips", "clips-1.h5"))
    with pytest.raises(CacheError, match="clips-1.parquet is damaged"):
        FeatureStore.open(cache)


def test_a_cache_below_a_folder_with_an_equals_sign_opens(tmp_path):
    cache = new_cache(tmp_path / "split=train" / "clip_id=7")
    commit_clips(cache, "clips-1", {"a": "train"}, seed=1)
    assert FeatureStore.open(cache).split("train").clip_ids == ["a"]
    assert settings_path(cache).exists()
