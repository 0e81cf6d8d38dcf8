"""Procedural scenes: exact spans, held-out pairs, same seed same data, questions that are true."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from mlalign.data_manifests.core.errors import UserError
from mlalign.data_manifests.scenes.make import scenes_manifest, split_names, write_scenes
from mlalign.data_manifests.scenes.pictures import draw_scene, write_clip
from mlalign.data_manifests.scenes.plan import (
    BACKGROUNDS,
    COLOURS,
    FRAMES_PER_SECOND,
    HELD_OUT,
    SHAPES,
    plan_clip,
)
from mlalign.data_manifests.tables.reader import read_manifest
from mlalign.data_manifests.tables.schema import Manifest

ORDINALS = ["first", "second", "third", "fourth", "fifth", "sixth"]
NUMBERS = {3: "three", 4: "four", 5: "five", 6: "six"}
NUM_WRITTEN = 20


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scenes") / "out"
    write_scenes(out, num_clips=NUM_WRITTEN, seed=3, num_processes=1)
    return out


@pytest.fixture(scope="module")
def many() -> Manifest:
    """The tables of 400 clips, without their pictures."""
    return scenes_manifest(Path("videos"), splits=split_names(400), seed=1)


def decoded(path: Path) -> tuple[np.ndarray, list[float]]:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        assert container.streams.video[0].codec_context.name == "h264"
        pictures = np.stack([frame.to_ndarray(format="rgb24") for frame in frames])
        return pictures, [float(frame.time or 0.0) for frame in frames]


def understood(caption: str) -> dict[str, str]:
    """A caption read again, without the code that wrote it."""
    words = caption.replace(",", "").split()
    found = {
        "colour": [w for w in words if w in COLOURS],
        "shape": [w for w in words if w in SHAPES],
        "size": [w for w in words if w in ("small", "large")],
        "motion": re.findall(r"stays still|moves \w+|grows|shrinks|blinks", caption),
        "place": re.findall(r"(?:at|on|in) the \w+", caption),
    }
    assert all(len(values) == 1 for values in found.values()), caption
    return {name: values[0] for name, values in found.items()}


def scenes_of(manifest: Manifest) -> dict[str, list[dict[str, Any]]]:
    """The segment captions of each clip in order of time, understood."""
    clips: dict[str, list[dict[str, Any]]] = {}
    for row in manifest.texts.to_pylist():
        if row["kind"] == "caption":
            clips.setdefault(row["clip_id"], []).append({**row, **understood(row["text"])})
    return {
        clip: sorted(rows, key=lambda row: float(row["start_seconds"]))
        for clip, rows in clips.items()
    }


def test_spans_tile_each_clip_exactly(many: Manifest) -> None:
    ends = {row["clip_id"]: row["end_seconds"] for row in many.clips.to_pylist()}
    scenes = scenes_of(many)
    assert scenes.keys() == ends.keys()
    for clip, rows in scenes.items():
        assert 3 <= len(rows) <= 6
        starts = [row["start_seconds"] for row in rows]
        assert [0.0, *(row["end_seconds"] for row in rows)] == [*starts, ends[clip]]
        assert all((start * FRAMES_PER_SECOND).is_integer() for start in starts)
    durations = Counter(r["end_seconds"] - r["start_seconds"] for s in scenes.values() for r in s)
    assert len(durations) == 7


def test_a_paragraph_is_the_captions_in_order(many: Manifest) -> None:
    paragraphs = [row for row in many.texts.to_pylist() if row["kind"] == "paragraph"]
    scenes = scenes_of(many)
    assert len(paragraphs) == len(scenes) == 400
    for row in paragraphs:
        assert row["start_seconds"] is None
        assert row["text"] == ". ".join(scene["text"] for scene in scenes[row["clip_id"]])
        # CLIP's text tower reads 77 tokens, two of them its own marks; all words here are one.
        assert len(re.findall(r"\w+|[.,]", row["text"])) <= 75
    assert len({row["text"] for row in paragraphs}) == 400


def test_frames_and_times_are_as_the_manifest_says(written: Path) -> None:
    manifest = read_manifest(written)
    for row in manifest.clips.to_pylist():
        pictures, times = decoded(manifest.video_file(row["video_path"]))
        assert pictures.shape[1:] == (96, 128, 3)
        assert times == [index / FRAMES_PER_SECOND for index in range(len(pictures))]
        assert row["end_seconds"] == len(pictures) / FRAMES_PER_SECOND


def test_the_file_shows_what_was_drawn(written: Path) -> None:
    manifest = read_manifest(written)
    for index, row in enumerate(manifest.clips.to_pylist()[:5]):
        scenes = plan_clip(seed=3, index=index, split=row["split"])
        drawn = np.concatenate([draw_scene(scene) for scene in scenes]).astype(float)
        pictures, _ = decoded(manifest.video_file(row["video_path"]))
        assert np.abs(pictures - drawn).mean() < 5


def test_the_main_object_is_in_the_picture_in_its_colour() -> None:
    for index in range(60):
        for scene in plan_clip(seed=0, index=index, split="test"):
            first = draw_scene(scene)[0]
            share = (first == COLOURS[scene.colour]).all(axis=-1).mean()
            assert 0.004 < share < 0.4
            background = (first == BACKGROUNDS[scene.background]).all(axis=-1).mean()
            assert background > 0.5


@pytest.mark.parametrize("motion", ["moves left", "moves right", "moves up", "moves down"])
def test_motions_go_where_their_name_says(motion: str) -> None:
    scenes = [s for i in range(60) for s in plan_clip(seed=0, index=i, split="train")]
    moving = [scene for scene in scenes if scene.motion == motion]
    assert moving
    for scene in moving:
        (x0, y0), (x1, y1) = scene.centre(0), scene.centre(scene.num_frames - 1)
        step = {"left": x0 - x1, "right": x1 - x0, "up": y0 - y1, "down": y1 - y0}
        assert step[motion.split()[1]] > 20
        assert sorted(map(abs, (x1 - x0, y1 - y0)))[0] == 0


def test_held_out_pairs_are_seen_in_test_only(many: Manifest) -> None:
    splits = {row["clip_id"]: row["split"] for row in many.clips.to_pylist()}
    seen: dict[str, set[tuple[str, str]]] = {"train": set(), "val": set(), "test": set()}
    for index, split in enumerate(split_names(400)):
        for scene in plan_clip(seed=1, index=index, split=split):
            seen[split].add((scene.colour, scene.shape))
            seen[split].update([scene.other] if scene.other else [])
    for clip, rows in scenes_of(many).items():
        assert {(row["colour"], row["shape"]) for row in rows} <= seen[splits[clip]]
    assert not seen["train"] & HELD_OUT and not seen["val"] & HELD_OUT
    assert seen["test"] >= HELD_OUT
    assert {colour for colour, _ in seen["train"]} == set(COLOURS)
    assert {shape for _, shape in seen["train"]} == set(SHAPES)
    for row in many.questions.to_pylist():
        if row["split"] != "test":
            for option in row["options"] or []:
                assert tuple(option.split()[-2:]) not in HELD_OUT


def test_every_question_has_its_one_answer_in_the_captions(many: Manifest) -> None:
    clips = scenes_of(many)
    types = Counter()
    for row in many.questions.to_pylist():
        scenes = clips[row["clip_id"]]
        names = [f"the {scene['size']} {scene['colour']} {scene['shape']}" for scene in scenes]
        assert len(set(names)) == len(names)
        question, answer = row["question"], row["answer"]
        types[row["type"]] += 1
        if row["kind"] == "multiple_choice":
            assert len(set(row["options"])) == len(row["options"]) in (4, 5)
            assert row["options"][row["answer_index"]] == answer
        if row["type"] == "order":
            [word, name] = re.findall(r"what comes right (after|before) (the .*)\?", question)[0]
            assert answer == names[names.index(name) + (1 if word == "after" else -1)]
        elif row["type"] == "motion":
            [name] = re.findall(r"what does (the .*) do\?", question)
            motion = scenes[names.index(name)]["motion"]
            assert [o for o in row["options"] if o == f"it {motion}"] == [answer]
        elif row["type"] == "count":
            assert answer == NUMBERS[len(scenes)]
        else:
            [ordinal] = re.findall(r"in the (\w+) scene\?", question)
            scene = scenes[ORDINALS.index(ordinal)]
            if row["type"] == "background":
                assert answer in BACKGROUNDS
            else:
                given = "shape" if row["type"] == "colour" else "colour"
                assert scene[given] in question.split()
                assert answer == scene[row["type"]]
    assert types.keys() == {"order", "motion", "count", "background", "colour", "shape"}
    assert min(types.values()) > 100


def test_two_objects_of_a_scene_share_neither_colour_nor_shape() -> None:
    """Else "which colour is the square in the third scene?" could have two answers."""
    for index in range(200):
        scenes = plan_clip(seed=5, index=index, split="test")
        pairs = [(scene.colour, scene.shape) for scene in scenes]
        others = [scene.other for scene in scenes if scene.other is not None]
        assert len({*pairs, *others}) == len(pairs) + len(others)
        for scene in scenes:
            if scene.other is not None:
                assert scene.other[0] != scene.colour and scene.other[1] != scene.shape


def test_background_questions_are_true_of_the_pictures(written: Path) -> None:
    manifest = read_manifest(written)
    scenes = scenes_of(manifest)
    asked = [row for row in manifest.questions.to_pylist() if row["type"] == "background"]
    assert asked
    for row in asked:
        [ordinal] = re.findall(r"in the (\w+) scene\?", row["question"])
        scene = scenes[row["clip_id"]][ORDINALS.index(ordinal)]
        pictures, _ = decoded(manifest.video_file(f"{row['clip_id']}.mp4"))
        first = pictures[round(scene["start_seconds"] * FRAMES_PER_SECOND)]
        usual = np.median(first.reshape(-1, 3), axis=0)
        nearest = min(BACKGROUNDS, key=lambda name: np.abs(usual - BACKGROUNDS[name]).sum())
        assert nearest == row["answer"]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_pixels(written: Path, tmp_path: Path) -> None:
    """Here written by two processes, there by one."""
    write_scenes(tmp_path / "again", num_clips=NUM_WRITTEN, seed=3, num_processes=2)
    files = sorted(path.relative_to(written) for path in written.rglob("*") if path.is_file())
    again = tmp_path / "again"
    assert files == sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    for file in files:
        if file.suffix == ".mp4":
            assert np.array_equal(decoded(written / file)[0], decoded(again / file)[0])
        else:
            assert (written / file).read_bytes() == (again / file).read_bytes()


def test_another_seed_gives_another_dataset(many: Manifest) -> None:
    other = scenes_manifest(Path("videos"), splits=split_names(400), seed=2)
    assert other.texts["text"].to_pylist() != many.texts["text"].to_pylist()


def test_the_captions_of_a_seed_never_change(many: Manifest) -> None:
    """Golden: a change here changes every published number made with scenes."""
    text = "\n".join(many.texts["text"].to_pylist() + many.questions["answer"].to_pylist())
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "93fa200ed10f0afc"


@pytest.mark.parametrize(
    ("num_clips", "counts"),
    [
        (1, (1, 0, 0)),
        (3, (1, 1, 1)),
        (10, (6, 1, 3)),
        (100, (60, 10, 30)),
        (2500, (1500, 250, 750)),
    ],
)
def test_splits_are_exact(num_clips: int, counts: tuple[int, int, int]) -> None:
    names = split_names(num_clips)
    assert tuple(names.count(split) for split in ("train", "val", "test")) == counts
    assert len(names) == num_clips


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "note").write_text("mine")
    with pytest.raises(UserError, match="not an empty folder"):
        write_scenes(tmp_path, num_clips=1)
    with pytest.raises(UserError, match="not an empty folder"):
        write_scenes(tmp_path / "note", num_clips=1)
    assert [path.name for path in tmp_path.iterdir()] == ["note"]


def test_a_file_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot write .*No such file or directory"):
        write_clip(plan_clip(seed=0, index=0, split="train"), tmp_path / "none" / "a.mp4")


def test_what_an_interrupted_run_left_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".partial" / "videos").mkdir(parents=True)
    (tmp_path / ".partial" / "videos" / "old.mp4").touch()
    write_scenes(tmp_path, num_clips=1)
    names = ["clips.parquet", "dataset.yaml", "questions.parquet", "texts.parquet", "videos"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert [path.name for path in (tmp_path / "videos").iterdir()] == ["clip-00000.mp4"]
