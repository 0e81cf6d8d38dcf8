"""What is to be done: what is new, changed or failed, and nothing else."""

import os
import random
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from mlalign.data_manifests.tables import schema
from mlalign.extract.cache.contract import index_path, shard_path
from mlalign.extract.cache.writer import commit_shard
from mlalign.extract.decode.clip_reader import source_sha256
from mlalign.extract.planning.plan import plan_clips, plan_rows, read_committed

KEY = "k" * 64


def table(rows, table_schema):
    columns = {field.name: [row.get(field.name) for row in rows] for field in table_schema}
    return pa.table(columns, schema=table_schema)


def make_manifest(root, clips, texts=(), questions=()):
    clips = [{"split": "train", "video_path": f"{row['clip_id']}.mp4", **row} for row in clips]
    texts = [{"kind": "caption", "text": "t", "split": "train", **row} for row in texts]
    questions = [
        {"kind": "open_ended", "question": "Who?", "split": "train", **row} for row in questions
    ]
    return schema.Manifest(
        name="test",
        videos_root=root,
        clips=table(clips, schema.CLIPS),
        texts=table(texts, schema.TEXTS),
        questions=table(questions, schema.QUESTIONS),
    )


@pytest.fixture
def manifest(tmp_path):
    """Five clips, each with a file of its own; a text with a span of clip 0."""
    for i in range(5):
        (tmp_path / f"{i}.mp4").write_bytes(b"video %d" % i)
    return make_manifest(
        tmp_path,
        [{"clip_id": str(i)} for i in range(5)],
        [{"text_id": "t0", "clip_id": "0", "start_seconds": 1.0, "end_seconds": 2.0}],
    )


def plan(manifest, committed=None, *, retry_failed=False, shard_size=2, key=KEY):
    return plan_clips(
        manifest, committed or {}, retry_failed=retry_failed, shard_size=shard_size, key=key
    )


def ids(works):
    return [item.row["clip_id"] for work in works for item in work.items]


def done(works, root, *, status="ok"):
    """The committed rows of works that were carried out."""
    committed = {}
    for work in works:
        for item in work.items:
            path = root / item.row["video_path"]
            facts = {"source_bytes": None, "source_mtime_ns": None, "source_sha256": None}
            if path.exists():
                facts["source_bytes"] = path.stat().st_size
                facts["source_mtime_ns"] = path.stat().st_mtime_ns
                if status != "failed":
                    facts["source_sha256"] = source_sha256(path)
            row = {**item.index_row(0), **facts, "status": status}
            committed[item.row["clip_id"]] = row
    return committed


def with_clip(manifest, index, **changes):
    rows = manifest.clips.to_pylist()
    rows[index] |= changes
    return replace(manifest, clips=table(rows, schema.CLIPS))


def test_everything_is_planned_at_first_in_order_and_in_shards(manifest):
    works = plan(manifest)
    assert ids(works) == ["0", "1", "2", "3", "4"]
    assert [len(work.items) for work in works] == [2, 2, 1]
    assert len({work.name for work in works}) == 3
    assert {item.generation for work in works for item in work.items} == {0}
    assert works[0].items[0].spans == ((1.0, 2.0),)


def test_nothing_is_planned_of_what_is_done(manifest, tmp_path):
    assert plan(manifest, done(plan(manifest), tmp_path)) == []


def test_a_new_clip_alone_is_planned(manifest, tmp_path):
    committed = done(plan(manifest), tmp_path)
    del committed["3"]
    assert ids(plan(manifest, committed)) == ["3"]


@pytest.mark.parametrize(
    "change",
    [{"start_seconds": 0.5}, {"end_seconds": 3.0}, {"split": "test"}, {"video_path": "0.mp4"}],
    ids=str,
)
def test_a_clip_that_is_described_otherwise_is_planned(manifest, tmp_path, change):
    committed = done(plan(manifest), tmp_path)
    [work] = plan(with_clip(manifest, 2, **change), committed)
    assert ids([work]) == ["2"]
    assert work.items[0].generation == 1


def test_a_clip_whose_texts_have_other_spans_is_planned(manifest, tmp_path):
    committed = done(plan(manifest), tmp_path)
    texts = [
        {"text_id": "t0", "clip_id": "0", "kind": "caption", "text": "t", "split": "train"}
        | {"start_seconds": 1.0, "end_seconds": 2.5}
    ]
    other = replace(manifest, texts=table(texts, schema.TEXTS))
    assert ids(plan(other, committed)) == ["0"]
    texts[0] |= {"text": "another text", "end_seconds": 2.0, "text_id": "t9"}
    same_spans = replace(manifest, texts=table(texts, schema.TEXTS))
    assert plan(same_spans, committed) == []


def test_the_spans_of_questions_count_too(manifest, tmp_path):
    committed = done(plan(manifest), tmp_path)
    asked = make_manifest(
        tmp_path,
        manifest.clips.to_pylist(),
        manifest.texts.to_pylist(),
        [{"question_id": "q", "clip_id": "4", "start_seconds": 0.0, "end_seconds": 1.0}],
    )
    assert ids(plan(asked, committed)) == ["4"]


def test_a_replaced_video_is_planned(manifest, tmp_path):
    committed = done(plan(manifest), tmp_path)
    (tmp_path / "1.mp4").write_bytes(b"another one, longer")
    assert ids(plan(manifest, committed)) == ["1"]


def test_a_replaced_video_of_the_same_size_is_planned(manifest, tmp_path):
    committed = done(plan(manifest), tmp_path)
    (tmp_path / "1.mp4").write_bytes(b"video X")
    os.utime(tmp_path / "1.mp4", ns=(1, 1))
    assert ids(plan(manifest, committed)) == ["1"]


def test_a_touched_but_equal_video_is_not_planned(manifest, tmp_path):
    committed = done(plan(manifest), tmp_path)
    os.utime(tmp_path / "1.mp4", ns=(1, 1))
    assert plan(manifest, committed) == []


def test_a_missing_video_does_not_unplan_what_is_done(manifest, tmp_path):
    committed = done(plan(manifest), tmp_path)
    (tmp_path / "1.mp4").unlink()
    assert plan(manifest, committed) == []


def test_a_failed_clip_is_planned_only_when_asked_for(manifest, tmp_path):
    committed = done(plan(manifest), tmp_path)
    committed |= done(plan(make_manifest(tmp_path, [{"clip_id": "3"}])), tmp_path, status="failed")
    assert plan(manifest, committed) == []
    [work] = plan(manifest, committed, retry_failed=True)
    assert ids([work]) == ["3"]
    assert work.items[0].generation == 1


def test_a_failed_clip_whose_video_changed_or_came_is_planned(manifest, tmp_path):
    (tmp_path / "3.mp4").unlink()
    committed = done(plan(manifest), tmp_path, status="failed")
    assert plan(manifest, committed) == []
    (tmp_path / "3.mp4").write_bytes(b"here it is")
    (tmp_path / "4.mp4").write_bytes(b"whole now")
    assert ids(plan(manifest, committed)) == ["3", "4"]


def test_a_clip_that_left_the_manifest_is_no_work(manifest, tmp_path):
    committed = done(plan(manifest), tmp_path)
    fewer = make_manifest(tmp_path, manifest.clips.to_pylist()[1:])
    assert plan(fewer, committed) == []


def test_equal_work_has_equal_names_whoever_plans_it(manifest):
    assert [work.name for work in plan(manifest)] == [work.name for work in plan(manifest)]
    moved = replace(manifest, videos_root=manifest.videos_root / "..")
    assert [work.name for work in plan(moved)] == [work.name for work in plan(manifest)]


def test_other_work_has_another_name(manifest, tmp_path):
    names = [plan(manifest, shard_size=5)[0].name]
    names.append(plan(manifest, shard_size=5, key="other")[0].name)
    names.append(plan(with_clip(manifest, 0, split="x"), shard_size=5)[0].name)
    again = done(plan(manifest), tmp_path, status="failed")
    names.append(plan(manifest, again, shard_size=5, retry_failed=True)[0].name)
    assert len(set(names)) == 4


def test_any_part_done_leaves_exactly_the_rest(manifest, tmp_path):
    whole = done(plan(manifest), tmp_path)
    rng = random.Random(0)
    for _ in range(20):
        part = {name: row for name, row in whole.items() if rng.random() < 0.5}
        assert ids(plan(manifest, part)) == [name for name in whole if name not in part]


def test_texts_are_planned_when_new_or_changed():
    def texts(*words):
        rows = [
            {"text_id": f"t{i}", "clip_id": "0", "kind": "caption", "text": word, "split": "all"}
            for i, word in enumerate(words)
        ]
        return table(rows, schema.TEXTS)

    def plan_texts(rows, committed):
        return plan_rows(rows, "texts", committed, shard_size=2, key=KEY)

    works = plan_texts(texts("a", "b", "c"), {})
    assert [len(work.items) for work in works] == [2, 1]
    committed = {i.row["text_id"]: i.index_row(0) for work in works for i in work.items}
    assert plan_texts(texts("a", "b", "c"), committed) == []
    assert plan_texts(texts("a", "b"), committed) == []
    [work] = plan_texts(texts("a", "B", "c", "d"), committed)
    assert [(item.row["text_id"], item.generation) for item in work.items] == [("t1", 1), ("t3", 0)]


def commit_all(works, cache, root):
    for work in works:
        rows = []
        for i, item in enumerate(work.items):
            path = root / item.row["video_path"]
            facts = {"source_bytes": path.stat().st_size, "source_sha256": source_sha256(path)}
            facts |= {"source_mtime_ns": path.stat().st_mtime_ns, "status": "ok"}
            rows.append({**item.index_row(i), **facts})
        segments = [
            {"clip_id": row["clip_id"], "rule": "spans", "segment_index": 0, "row": i}
            | {"start_seconds": 0.0, "end_seconds": 1.0, "num_frames": 1}
            for i, row in enumerate(rows)
        ]
        features = np.ones((len(rows), 4), dtype=np.float16)
        commit_shard(
            cache,
            "clips",
            work.name,
            arrays={"clips/features": features, "segments/features": features},
            tables={"clips": rows, "segments": segments},
        )


@pytest.fixture
def cache(manifest, tmp_path):
    commit_all(plan(manifest), tmp_path / "cache", tmp_path)
    return tmp_path / "cache"


def test_what_was_committed_is_read_back_and_not_planned(manifest, cache):
    said = []
    committed = read_committed(cache, "clips", report=said.append)
    assert sorted(committed) == ["0", "1", "2", "3", "4"]
    assert plan(manifest, committed) == [] and said == []


def test_a_cache_that_is_not_there_has_nothing(tmp_path):
    assert read_committed(tmp_path / "nowhere", "clips") == {}


def shard_of(manifest, index):
    return f"{plan(manifest)[index].name}.h5"


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
@pytest.mark.parametrize("part", ["shard", "clips", "segments"])
def test_damage_is_said_and_exactly_its_clips_are_planned_again(
    manifest, cache, tmp_path, part, damage
):
    shard = shard_of(manifest, 1)
    path = shard_path(cache, shard) if part == "shard" else index_path(cache, part, shard)
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[8:40] = bytes(byte ^ 0xFF for byte in content[8:40])
        path.write_bytes(content)
    elif damage == "truncate":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.unlink()
    said = []
    committed = read_committed(cache, "clips", report=said.append)
    works = plan(manifest, committed)
    assert ids(works) == ["2", "3"]
    # A lost main index file is as if the shard had never been.
    assert len(said) == (0 if (part, damage) == ("clips", "remove") else 1)
    assert all(shard.removesuffix(".h5") in line for line in said)
    # The work that follows puts whole files in their place, under the same names.
    assert [work.name for work in works] == [plan(manifest)[1].name]
    commit_all(works, cache, tmp_path)
    said.clear()
    assert plan(manifest, read_committed(cache, "clips", report=said.append)) == [] and said == []


def test_the_highest_generation_is_what_is_committed(manifest, cache, tmp_path):
    (tmp_path / "1.mp4").write_bytes(b"another one, longer")
    works = plan(manifest, read_committed(cache, "clips"))
    commit_all(works, cache, tmp_path)
    committed = read_committed(cache, "clips")
    assert committed["1"]["generation"] == 1
    assert plan(manifest, committed) == []
