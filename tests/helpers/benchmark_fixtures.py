"""Benchmarks in official shapes with a few clips each, and caches of them with random features.

Every number is drawn by a seed; features are noisy enough that some queries fail and some succeed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from mlalign.data_manifests.building.build import build_dataset
from mlalign.data_manifests.cards.card import Card, load_card
from mlalign.data_manifests.tables.reader import read_manifest
from mlalign.data_manifests.tables.schema import Manifest
from mlalign.extract.cache.split_features import QuestionFeatures, SplitFeatures

DIM = 8
KEY = "0123456789abcdef"
NUM_CLIPS = 12


def build(card: Card | str, files: dict[str, str], folder: Path) -> Manifest:
    """The manifest of the files, which are left in folder/files."""
    (folder / "files").mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / "files" / name).write_text(text)
    card = load_card(card) if isinstance(card, str) else card
    build_dataset(
        card, annotations=folder / "files", videos=None, out=folder / "manifest", partial=True
    )
    return read_manifest(folder / "manifest")


def split_features(
    manifest: Manifest, split: str, *, seconds: float = 2.0, duration: float = 30.0, seed: int = 0
) -> SplitFeatures:
    """The split as a cache would give it: clips of one length, cut into segments of `seconds`."""
    rng = np.random.default_rng(seed)
    clips = manifest.clips.filter(pc.equal(manifest.clips["split"], split)).sort_by("clip_id")
    texts = manifest.texts.filter(pc.equal(manifest.texts["split"], split)).sort_by("text_id")
    texts = texts.filter(pc.not_equal(texts["kind"], "subtitle"))
    ids = clips["clip_id"].to_pylist()
    place = {name: number for number, name in enumerate(ids)}
    per_clip = int(np.ceil(duration / seconds))
    starts = np.tile(seconds * np.arange(per_clip), len(ids))
    segments = rng.normal(size=(len(ids), per_clip, DIM)).astype(np.float32)
    owners = np.array([place[name] for name in texts["clip_id"].to_pylist()], dtype=np.int64)
    spans = _spans(texts)
    features = rng.normal(size=(texts.num_rows, DIM)).astype(np.float32)
    for row, (owner, span) in enumerate(zip(owners, spans, strict=True)):
        own = segments[owner]
        noise = 1.4
        if not np.isnan(span[0]):
            own = own[int(span[0] / seconds) : max(1, int(np.ceil(span[1] / seconds)))]
            noise = 0.6
        features[row] = noise * features[row] + own.mean(axis=0) * np.sqrt(len(own))
    words = texts["text"].to_pylist()
    for row, name in enumerate(texts["text_id"].to_pylist()):
        twins = [k for k in range(row) if words[k] == words[row] and owners[k] == owners[row]]
        if twins and "/" in name:  # moments of one query have one text
            features[row] = features[twins[0]]
    return SplitFeatures(
        cache_key=KEY,
        split=split,
        segment_rule="fixed",
        clip_ids=ids,
        clip_features=segments.mean(axis=1),
        clip_durations=np.full(len(ids), duration),
        segment_features=segments.reshape(-1, DIM),
        segment_offsets=per_clip * np.arange(len(ids) + 1),
        segment_spans=np.stack([starts, np.minimum(starts + seconds, duration)], axis=1),
        text_ids=texts["text_id"].to_pylist(),
        texts=words,
        text_features=features,
        text_clips=owners,
        text_spans=spans,
        num_failed_clips=0,
        questions=_questions(manifest, split, place, segments, rng),
    )


def _questions(
    manifest: Manifest,
    split: str,
    place: dict[str, int],
    segments: np.ndarray,
    rng: np.random.Generator,
) -> QuestionFeatures:
    asked = manifest.questions.filter(pc.equal(manifest.questions["split"], split))
    asked = asked.sort_by("question_id")
    clips = np.array([place[name] for name in asked["clip_id"].to_pylist()], dtype=np.int64)
    answers = asked["answer_index"].to_pylist()
    options, counts = [], []
    for row, several in enumerate(asked["options"].to_pylist()):
        counts.append(1 if several is None else len(several))
        drawn = rng.normal(size=(counts[-1], DIM))
        if answers[row] is not None:
            start = asked["start_seconds"][row].as_py()
            place_in_clip = rng.integers(len(segments[0])) if start is None else int(start / 2)
            drawn[answers[row]] += 1.5 * segments[clips[row]][place_in_clip]
        options.append(drawn)
    return QuestionFeatures(
        question_ids=asked["question_id"].to_pylist(),
        kinds=asked["kind"].to_pylist(),
        types=asked["type"].to_pylist(),
        clips=clips,
        spans=_spans(asked),
        questions=asked["question"].to_pylist(),
        answers=asked["answer"].to_pylist(),
        answer_indices=np.array([-1 if a is None else a for a in answers], dtype=np.int64),
        question_features=rng.normal(size=(asked.num_rows, DIM)).astype(np.float32),
        option_features=np.concatenate(options or [np.zeros((0, DIM))]).astype(np.float32),
        option_offsets=np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64),
    )


def _spans(table: Any) -> np.ndarray:
    columns = [pc.fill_null(table[f"{side}_seconds"], np.nan) for side in ("start", "end")]
    return np.stack([column.to_numpy() for column in columns], axis=1).astype(np.float64)


class FakeStore:
    """Stands for a cache of a benchmark."""

    key = KEY
    dim = text_dim = DIM

    def __init__(self, manifest: Manifest, path: Path, **shape: float) -> None:
        self.path = path
        self.clips = manifest.clips
        self.questions = manifest.questions
        self.splits = manifest.splits
        self.record = {
            "videos_root": "/nowhere",
            "dataset": manifest.name,
            "official": {split: {"clips": 1} for split in manifest.splits},
        }
        self._manifest, self._shape = manifest, shape

    def split(self, name: str | None, **options: object) -> SplitFeatures:
        assert name is not None
        seed = 1 + sorted(self.splits).index(name)
        return split_features(self._manifest, name, seed=seed, **self._shape)


def lines(items: list[Any]) -> str:
    return "".join(json.dumps(item) + "\n" for item in items)


def moment(rng: np.random.Generator, duration: float = 30.0) -> list[float]:
    """A span of some whole seconds inside the clip."""
    start, end = np.sort(rng.choice(int(duration) + 1, size=2, replace=False))
    return [float(start), float(end)]
