"""Splits that training learns, and short trainings."""

from __future__ import annotations

import numpy as np
from split_fixtures import NO_TASKS

from mlalign.align.config import OptimiserConfig, RunConfig, ValidationConfig
from mlalign.align.head_config import HeadConfig, HeadName, HeadsConfig
from mlalign.align.loss_config import LossConfig
from mlalign.extract.cache.split_features import QuestionFeatures, SplitFeatures

LATENT = 8


def synthetic_split(num_clips: int, *, dim: int, seed: int, noise: float = 0.3) -> SplitFeatures:
    """Ragged clips whose segments and texts are two noisy linear views of the same latents.

    The two maps are random and the same for all seeds: zero-shot is chance, training finds them.
    """
    maps = np.random.default_rng(0).normal(size=(2, LATENT, dim))
    rng = np.random.default_rng([seed, 1])
    counts = rng.integers(2, 5, num_clips)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    owner = np.repeat(np.arange(num_clips), counts)
    latents = rng.normal(size=(len(owner), LATENT))

    def view(latent: np.ndarray, side: int) -> np.ndarray:
        seen = latent + noise * rng.normal(size=latent.shape)
        return (seen @ maps[side] / np.sqrt(LATENT)).astype(np.float32)

    segments = view(latents, 0)
    segments /= np.linalg.norm(segments, axis=1, keepdims=True)
    paragraphs = np.add.reduceat(latents, offsets[:-1]) / counts[:, None]
    start = np.arange(len(owner)) - offsets[owner]
    spans = np.stack([start, start + 1], axis=1).astype(np.float64)
    num_texts = num_clips + len(owner)
    none = np.zeros(0, dtype=np.int64)
    nothing = np.zeros((0, dim), dtype=np.float32)
    return SplitFeatures(
        cache_key="key",
        split=f"seed {seed}",
        segment_rule="spans",
        clip_ids=[f"clip{i}" for i in range(num_clips)],
        clip_features=np.add.reduceat(segments, offsets[:-1]) / counts[:, None].astype(np.float32),
        clip_durations=counts.astype(np.float64),
        segment_features=segments,
        segment_offsets=offsets,
        segment_spans=spans,
        text_ids=[f"text{i}" for i in range(num_texts)],
        texts=[f"words {i}" for i in range(num_texts)],
        text_features=10 * np.concatenate([view(paragraphs, 1), view(latents, 1)]),
        text_clips=np.concatenate([np.arange(num_clips), owner]),
        text_spans=np.concatenate([np.full((num_clips, 2), np.nan), spans]),
        num_failed_clips=0,
        questions=QuestionFeatures(
            question_ids=[],
            kinds=[],
            types=[],
            clips=none,
            spans=np.zeros((0, 2)),
            questions=[],
            answers=[],
            answer_indices=none,
            question_features=nothing,
            option_features=nothing,
            option_offsets=np.zeros(1, dtype=np.int64),
        ),
    )


VALIDATION = synthetic_split(100, dim=24, seed=1)


def config_of(
    *,
    head: HeadName = "residual",
    losses: LossConfig | None = None,
    epochs: int = 6,
    learning_rate: float = 3e-3,
    patience_epochs: int | None = None,
    dropout: float = 0.0,
    seed: int = 0,
) -> RunConfig:
    heads = HeadConfig(name=head, dropout=dropout)
    return RunConfig(
        heads=HeadsConfig(video=heads, text=heads),
        losses=losses or LossConfig(),
        tasks=NO_TASKS,
        optimiser=OptimiserConfig(
            epochs=epochs, batch_clips=50, learning_rate=learning_rate, warmup_epochs=1
        ),
        validation=ValidationConfig(patience_epochs=patience_epochs),
        seed=seed,
        device="cpu",
    )
