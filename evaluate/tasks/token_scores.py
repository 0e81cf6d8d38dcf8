"""The token score of retrieval: the words of texts with the frames of clips (docs/method.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import torch
from torch import Tensor

from ...align.runs.checkpoint import Run
from ...extract.cache.ragged import Ragged, offsets_of, ragged_rows
from ...extract.cache.split_features import SplitFeatures
from ...extract.cache.store import FeatureStore
from ..config import EvaluationConfig
from ..scores.queries import Scored
from ..scores.ranks import Ranks, join_ranks, ranks_of_groups
from ..scores.vectors import ENCODE_ROWS, Encoder, clip_blocks, refuse_broken, tensor_rows
from .retrieval import RetrievalTask, retrieval_values

BLOCK_SCORES: Final = 1 << 22
"""Scores held at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ManyVectors:
    """n items, each with some unit vectors: a clip's frames, a text's words."""

    vectors: Tensor
    """(R, W) float32, items end to end."""
    offsets: np.ndarray
    """(n + 1,) int64: item i has vectors [offsets[i], offsets[i + 1]), at least one."""

    def take(self, items: np.ndarray) -> Self:
        """The items of these rows, in their order."""
        rows = torch.from_numpy(ragged_rows(self.offsets, items)[0])
        return type(self)(
            vectors=self.vectors[rows], offsets=offsets_of(np.diff(self.offsets)[items])
        )


def scores_tokens(store: FeatureStore, runs: Sequence[Run], config: EvaluationConfig) -> bool:
    """Whether there is a token score: as the settings say, or where a run was trained with it and
    the cache has what it takes. Raises CacheError where it is asked for and the cache has not."""
    if config.token_score is None:
        if not any(run.config.losses.token_weight > 0 for run in runs):
            return False
        kept = store.record["layout"]
        return bool(kept["keep_frames"] and kept["keep_tokens"])
    store.check_kept(frames=config.token_score, tokens=config.token_score)
    return config.token_score


def score_tokens(
    tasks: Sequence[RetrievalTask],
    features: SplitFeatures,
    encoder: Encoder,
    *,
    config: EvaluationConfig,
) -> list[Scored]:
    """Of each task. Every text counts with all of its words."""
    assert features.frames is not None and features.tokens is not None
    with torch.inference_mode():
        frames = _frames(features, features.frames, encoder)
        words = _words(features.tokens, encoder)
        ranks_of_tasks = [_ranks(task, frames, words, encoder, config=config) for task in tasks]
    return [
        Scored(ranks=ranks, values=retrieval_values(ranks, task.correct, config))
        for task, ranks in zip(tasks, ranks_of_tasks, strict=True)
    ]


def _ranks(
    task: RetrievalTask,
    frames: ManyVectors,
    words: ManyVectors,
    encoder: Encoder,
    *,
    config: EvaluationConfig,
) -> Ranks:
    """Each block has all items of its queries, so that a right item's score and its rivals' come
    from one computation."""
    by_text = task.direction == "text_to_clip"
    queries, items = (task.texts, task.clips) if by_text else (task.clips, task.texts)
    step = max(1, BLOCK_SCORES // max(1, len(items)))
    parts = []
    for start in range(0, len(queries), step):
        some = queries[start : start + step]
        clips, texts = (items, some) if by_text else (some, items)
        scores_NT = _scores(frames.take(clips), words.take(texts), encoder).numpy()
        scores_QI = scores_NT.T if by_text else scores_NT
        block_correct = task.correct.slice(start, start + len(some))
        parts.append(
            ranks_of_groups(scores_QI, block_correct, groups=task.groups, ties=config.ties)
        )
    return join_ranks(parts)


def _scores(frames: ManyVectors, words: ManyVectors, encoder: Encoder) -> Tensor:
    return encoder.token_scores(
        frames.vectors, words.vectors, frame_offsets=frames.offsets, word_offsets=words.offsets
    )


def _frames(features: SplitFeatures, frames: Ragged, encoder: Encoder) -> ManyVectors:
    """In blocks of whole clips of about ENCODE_ROWS frames."""
    offsets, blocks = frames.offsets, []
    for first, last in clip_blocks(offsets):
        block = tensor_rows(frames.values[offsets[first] : offsets[last]])
        clips = tensor_rows(features.clip_features[first:last])
        counts = torch.from_numpy(np.diff(offsets[first : last + 1]))
        blocks.append(encoder.encode_frames(clips, block, counts))
    return _whole(blocks, offsets, what="frames")


def _words(tokens: Ragged, encoder: Encoder) -> ManyVectors:
    blocks = []
    for start in range(0, len(tokens.values), ENCODE_ROWS):
        block = tensor_rows(tokens.values[start : start + ENCODE_ROWS])
        blocks.append(encoder.encode_sentences(block))
    return _whole(blocks, tokens.offsets, what="tokens")


def _whole(blocks: Sequence[Tensor], offsets: np.ndarray, *, what: str) -> ManyVectors:
    vectors = torch.cat(list(blocks))
    refuse_broken(vectors.numpy(), what=what)
    return ManyVectors(vectors=vectors, offsets=offsets)
