"""--shard I/N: one extraction as n jobs that know nothing of each other."""

import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from mlalign.data_manifests.core.errors import UserError
from mlalign.data_manifests.tables.reader import read_manifest
from mlalign.extract.cache.store import FeatureStore
from mlalign.extract.maintenance.verify import verify_cache
from mlalign.extract.planning.inputs import JobPart

EXTRACT = "from mlalign.extract.cli import program; program()"


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_clip_is_of_exactly_one_job(count):
    parts = [JobPart(index=index, count=count) for index in range(1, count + 1)]
    sizes = Counter()
    for number in range(2000):
        (owner,) = (part for part in parts if part.has(f"clip {number}\u00e9"))
        sizes[owner.index] += 1
    assert min(sizes.values()) > 0.8 * 2000 / count, "even parts"


def test_whose_a_clip_is_never_changes():
    """By SHA-256 of the id: jobs on machines and versions of all kinds agree."""
    owners = [
        next(i for i in (1, 2, 3) if JobPart(index=i, count=3).has(name)) for name in "abcdef"
    ]
    assert owners == [2, 2, 3, 3, 3, 1]


def test_texts_and_questions_go_with_their_clip(small_scenes):
    manifest = read_manifest(small_scenes)
    parts = [JobPart(index=index, count=3).of(manifest) for index in (1, 2, 3)]
    for name in ("clips", "texts", "questions"):
        tables = [getattr(part, name) for part in parts]
        assert sum(table.num_rows for table in tables) == getattr(manifest, name).num_rows
        for part, table in zip(parts, tables, strict=True):
            assert set(table["clip_id"].to_pylist()) <= set(part.clips["clip_id"].to_pylist())


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3", "1/3/5", "1.5/3", "²/3"])
def test_what_is_no_part_is_wrong_usage(mlalign_extract, small_scenes, tmp_path, text):
    with pytest.raises(UserError, match="expected I/N"):
        JobPart.parse(text)
    done = mlalign_extract(small_scenes, "-o", tmp_path / "c", "--shard", text)
    assert done.exit_code == 2
    assert not (tmp_path / "c").exists()


@pytest.mark.slow
def test_three_jobs_two_of_them_at_once_give_what_one_run_gives(
    mlalign_extract, small_scenes, small_options, small_cache, tmp_path
):
    cache = tmp_path / "cache"
    arguments = [small_scenes, "-o", cache, *small_options, "--json", "--shard"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-P", "-c", EXTRACT, *map(str, arguments), part],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for part in ("1/3", "2/3")
    ]
    summaries = []
    for process in processes:
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
        summaries.append(json.loads(output))
    done = mlalign_extract(*arguments, "3/3")
    assert done.exit_code == 0, done.output
    summaries.append(json.loads(done.stdout))
    whole, ours = FeatureStore.open(small_cache), FeatureStore.open(cache)
    # Each job speaks of its own part, and nothing was done twice.
    for name in ("new_clips", "new_frames", "new_texts"):
        run = json.loads(next((small_cache / "runs").glob("*.json")).read_text())
        assert sum(summary[name] for summary in summaries) == run["summary"][name]
    assert sum(summary["clips"]["ok"] for summary in summaries) == 6
    assert max(summary["clips"]["ok"] for summary in summaries) < 6
    assert ours.key == whole.key
    assert ours.clips.num_rows == 6 and verify_cache(cache).problems == []
    for rule in whole.segment_rules:
        one, two = ours.split(None, segments=rule), whole.split(None, segments=rule)
        assert (one.clip_ids, one.text_ids) == (two.clip_ids, two.text_ids)
        for name in ("clip_features", "segment_features", "segment_spans", "text_features"):
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
        np.testing.assert_array_equal(one.questions.option_features, two.questions.option_features)
    again = json.loads(mlalign_extract(small_scenes, "-o", cache, *small_options, "--json").stdout)
    assert again["new_clips"] == again["new_texts"] == 0


def test_a_job_without_clips_is_done_at_once(mlalign_extract, make_video, tmp_path):
    make_video(tmp_path / "only.mp4", [0, 500])
    options = [tmp_path / "only.mp4", "-o", tmp_path / "cache", "--backbone", "tiny"]
    owner = next(i for i in (1, 2) if JobPart(index=i, count=2).has("only.mp4"))
    idle = mlalign_extract(*options, "--shard", f"{3 - owner}/2", "--json")
    assert idle.exit_code == 0, idle.output
    assert json.loads(idle.stdout)["clips"] == {"ok": 0, "partial": 0, "failed": 0}
    busy = mlalign_extract(*options, "--shard", f"{owner}/2", "--json")
    assert json.loads(busy.stdout)["clips"]["ok"] == 1
