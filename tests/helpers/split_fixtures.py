"""Random splits of ragged clips, for the tests of align."""

from __future__ import annotations

import dataclasses

import numpy as np

from mlalign.align.loss_config import TaskConfig
from mlalign.extract.cache.ragged import Ragged
from mlalign.extract.cache.split_features import QuestionFeatures, SplitFeatures

DIM = 4
NO_QUESTIONS = QuestionFeatures(
    question_ids=[],
    kinds=[],
    types=[],
    clips=np.zeros(0, dtype=np.int64),
    spans=np.zeros((0, 2)),
    questions=[],
    answers=[],
    answer_indices=np.zeros(0, dtype=np.int64),
    question_features=np.zeros((0, DIM), dtype=np.float32),
    option_features=np.zeros((0, DIM), dtype=np.float32),
    option_offsets=np.zeros(1, dtype=np.int64),
)

NO_TASKS = TaskConfig(choice_weight=0, answer_weight=0, moment_weight=0)
"""For tests of the levels."""

Text = tuple[int, str, tuple[float, float] | None]


def split_of(segments: list[list[tuple[float, float]]], texts: list[Text]) -> SplitFeatures:
    """A split of clips with the given segments and (clip, words, span or None) texts."""
    rng = np.random.default_rng(0)
    counts = [len(clip) for clip in segments]
    spans = [span for clip in segments for span in clip]
    return SplitFeatures(
        cache_key="key",
        split="train",
        segment_rule="spans",
        clip_ids=[f"clip{i}" for i in range(len(segments))],
        clip_features=rng.normal(size=(len(segments), DIM)).astype(np.float32),
        clip_durations=np.full(len(segments), 10.0),
        segment_features=rng.normal(size=(len(spans), DIM)).astype(np.float32),
        segment_offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        segment_spans=np.array(spans, dtype=np.float64).reshape(-1, 2),
        text_ids=[f"text{i}" for i in range(len(texts))],
        texts=[words for _, words, _ in texts],
        text_features=rng.normal(size=(len(texts), DIM)).astype(np.float32),
        text_clips=np.array([clip for clip, _, _ in texts], dtype=np.int64),
        text_spans=np.array(
            [(np.nan, np.nan) if span is None else span for _, _, span in texts], dtype=np.float64
        ).reshape(-1, 2),
        num_failed_clips=0,
        questions=NO_QUESTIONS,
    )


def random_split(seed: int, num_clips: int = 12) -> SplitFeatures:
    """Ragged segments, several captions a clip, words that occur again, clips without texts."""
    rng = np.random.default_rng(seed)
    segments, texts = [], list[Text]()
    for clip in range(num_clips):
        cuts = np.sort(rng.integers(0, 20, size=(rng.integers(1, 5), 2)), axis=1)
        spans = [(float(start), float(end) + 1) for start, end in cuts]
        segments.append(spans)
        texts += [(clip, f"Caption {rng.integers(9)}", None) for _ in range(rng.integers(0, 4))]
        texts += [(clip, f"sentence {rng.integers(9)}.", s) for s in spans if rng.random() < 0.7]
    order = rng.permutation(len(texts))
    return split_of(segments, [texts[i] for i in order])


def with_sentences(split: SplitFeatures, seed: int = 0) -> SplitFeatures:
    """The same split whose global texts have 0 (one sentence) or 2 to 4 sentences."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 5, size=len(split.texts))
    counts[(counts == 1) | split.text_is_segment] = 0
    values = rng.normal(size=(counts.sum(), split.text_features.shape[1])).astype(np.float32)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return dataclasses.replace(split, sentences=Ragged(values=values, offsets=offsets))


def with_tokens(split: SplitFeatures, seed: int = 0) -> SplitFeatures:
    """The same split, with random ragged frames and tokens, as a cache has them: float16."""
    rng = np.random.default_rng(seed)

    def ragged(num_items: int, width: int) -> Ragged:
        counts = rng.integers(1, 9, size=num_items)
        features = rng.normal(size=(counts.sum(), width)).astype(np.float16)
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return Ragged(values=features, offsets=offsets)

    return dataclasses.replace(
        split,
        frames=ragged(len(split.clip_ids), split.clip_features.shape[1]),
        tokens=ragged(len(split.texts), split.text_features.shape[1]),
    )
