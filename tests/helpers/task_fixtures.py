"""Splits with questions, and settings that train the tasks."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from split_fixtures import DIM, NO_TASKS, random_split

from mlalign.align.config import OptimiserConfig, RunConfig
from mlalign.align.head_config import HeadConfig, HeadsConfig
from mlalign.align.loss_config import LossConfig
from mlalign.align.model.model import AlignmentModel
from mlalign.extract.cache.split_features import QuestionFeatures, SplitFeatures

NO_LEVELS = LossConfig(global_weight=0, segment_weight=0, weak_segment_weight=0)


LINEAR = HeadsConfig(video=HeadConfig(name="linear"), text=HeadConfig(name="linear"))


ANSWERS = ("red", "red", "blue", "rare", "red", "blue")


def split_with_questions(seed: int, *, num_clips: int = 9) -> SplitFeatures:
    """Clips cut into 1 to 5 pieces of 2 s; 0 to 3 questions of each kind; texts with spans."""
    rng = np.random.default_rng(seed)
    base = random_split(seed, num_clips)
    counts = rng.integers(1, 6, size=num_clips)
    starts = np.concatenate([np.arange(count) * 2.0 for count in counts])
    clips, kinds, answers, right, options = [], [], [], [], []
    for clip in range(num_clips):
        for _ in range(rng.integers(0, 4)):
            clips += [clip, clip]
            kinds += ["multiple_choice", "open_ended"]
            options += [int(rng.integers(2, 6)), 1]
            right += [int(rng.integers(options[-2])), -1]
            answers += [None, ANSWERS[rng.integers(len(ANSWERS))]]
    features = rng.normal(size=(len(starts), DIM)).astype(np.float32)
    words = {answer: rng.normal(size=DIM).astype(np.float32) for answer in sorted(set(ANSWERS))}
    own = [
        words[answer][None] if answer else rng.normal(size=(number, DIM)).astype(np.float32)
        for answer, number in zip(answers, options, strict=True)
    ]
    spans = base.text_spans.copy()
    is_segment = base.text_is_segment
    begin = rng.uniform(0, 1.5, size=is_segment.sum())
    spans[is_segment] = np.stack([begin, begin + rng.uniform(0.1, 8, size=len(begin))], axis=1)
    return dataclasses.replace(
        base,
        segment_rule="uniform:5",
        segment_features=features,
        segment_offsets=np.concatenate([[0], np.cumsum(counts)]),
        segment_spans=np.stack([starts, starts + 2], axis=1),
        text_spans=spans,
        questions=QuestionFeatures(
            question_ids=[f"q{k}" for k in range(len(clips))],
            kinds=kinds,
            types=[None] * len(clips),
            clips=np.array(clips),
            spans=np.full((len(clips), 2), np.nan),
            questions=["?"] * len(clips),
            answers=answers,
            answer_indices=np.array(right),
            question_features=rng.normal(size=(len(clips), DIM)).astype(np.float32),
            option_features=np.concatenate(own),
            option_offsets=np.concatenate([[0], np.cumsum(options)]),
        ),
    )


def config_of(**tasks: float) -> RunConfig:
    return RunConfig(
        heads=LINEAR,
        losses=NO_LEVELS,
        tasks=dataclasses.replace(NO_TASKS, **tasks, items_per_clip=99),
        optimiser=OptimiserConfig(epochs=40, batch_clips=16, learning_rate=0.05),
    )


def double(model: AlignmentModel) -> AlignmentModel:
    torch.manual_seed(1)
    for parameter in model.parameters():  # away from zeros and identities
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.double()
