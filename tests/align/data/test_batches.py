"""Batches: what is in them, and their masks against loops over the split."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from split_fixtures import NO_TASKS, Text, random_split, split_of, with_sentences
from task_fixtures import split_with_questions

from mlalign.align.config import OptimiserConfig, RunConfig
from mlalign.align.data.batches import epoch_batches, make_batch, num_batches
from mlalign.align.data.pairs import normalised_words
from mlalign.align.data.split import (
    TrainingDataError,
    TrainingSplit,
    gather_sentences,
    load_training_split,
)
from mlalign.align.data.trainable import trainable
from mlalign.align.loss_config import LossConfig
from mlalign.extract.cache.split_features import (
    SplitFeatures,
    sentence_features,
    sentences_of_texts,
)

CPU = torch.device("cpu")


def loaded(split: SplitFeatures, losses: LossConfig | None = None) -> TrainingSplit:
    config = RunConfig(losses=losses or LossConfig(), tasks=NO_TASKS)
    return load_training_split(split, config=trainable(config, split).config, device=CPU)


@pytest.mark.parametrize("seed", range(10))
def test_an_epoch_shows_every_clip_with_texts_once(seed: int) -> None:
    split = random_split(seed)
    shown = np.concatenate(
        [b.clips for b in epoch_batches(loaded(split), batch_clips=5, seed=0, epoch=1)]
    )
    assert sorted(shown.tolist()) == np.unique(split.text_clips).tolist()


def test_the_order_follows_from_seed_and_epoch_alone() -> None:
    split = loaded(random_split(0))

    def epoch(seed: int, epoch: int) -> list[list[int]]:
        batches = epoch_batches(split, batch_clips=5, seed=seed, epoch=epoch)
        return [
            [*b.clips.tolist(), *b.global_level.texts.tolist()]
            for b in batches
            if b.global_level is not None
        ]

    assert epoch(0, 1) == epoch(0, 1)
    assert epoch(0, 1) != epoch(0, 2)
    assert epoch(0, 1) != epoch(1, 1)


@pytest.mark.parametrize("num_clips", range(1, 30))
@pytest.mark.parametrize("batch_clips", [2, 3, 8, 100])
def test_batches_are_equal_and_none_has_a_single_clip(num_clips: int, batch_clips: int) -> None:
    count = num_batches(num_clips, batch_clips=batch_clips)
    sizes = [len(part) for part in np.array_split(np.arange(num_clips), count)]
    assert sum(sizes) == num_clips
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= batch_clips + 1
    assert min(sizes) >= min(2, num_clips)


@pytest.mark.parametrize("seed", range(20))
def test_the_global_level_equals_loops_over_the_split(seed: int) -> None:
    split = random_split(seed)
    rng = np.random.default_rng(seed)
    clips = rng.permutation(len(split.clip_ids))[:7]
    level = make_batch(loaded(split), clips, rng=rng).global_level
    assert level is not None
    assert level.videos.tolist() == clips.tolist()
    captions = {
        clip: [
            t
            for t, owner in enumerate(split.text_clips)
            if owner == clip and not split.text_is_segment[t]
        ]
        for clip in clips
    }
    assert [split.text_clips[t] for t in level.texts] == [c for c in clips if captions[c]]
    for row, clip in enumerate(clips):
        words = {normalised_words(split.texts[t]) for t in captions[clip]}
        for column, text in enumerate(level.texts.tolist()):
            own = split.text_clips[text] == clip
            assert level.positive[row, column] == own
            assert level.negative[row, column] == (normalised_words(split.texts[text]) not in words)


@pytest.mark.parametrize("seed", range(20))
def test_the_segment_level_equals_loops_over_the_split(seed: int) -> None:
    split = random_split(seed)
    rng = np.random.default_rng(seed)
    clips = rng.permutation(len(split.clip_ids))[:7]
    level = make_batch(loaded(split), clips, rng=rng).segment_level
    assert level is not None
    owner_of = np.repeat(np.arange(len(split.clip_ids)), np.diff(split.segment_offsets))
    segments = [s for clip in clips for s in np.flatnonzero(owner_of == clip)]
    texts = [
        t
        for clip in clips
        for t in np.flatnonzero(split.text_is_segment & (split.text_clips == clip))
    ]
    assert level.videos.tolist() == segments
    batch = make_batch(loaded(split), clips, rng=rng)
    assert batch.segments.tolist() == segments
    assert batch.segment_counts.tolist() == [int((owner_of == clip).sum()) for clip in clips]
    assert level.texts.tolist() == texts

    def shared(segment: int, text: int) -> float:
        (a, b), (c, d) = split.segment_spans[segment], split.text_spans[text]
        return max(0.0, min(b, d) - max(a, c))

    def covered(segment: int, text: int) -> float:
        return shared(segment, text) / float(np.diff(split.segment_spans[segment])[0])

    def is_own(segment: int, text: int) -> bool:  # the rule is "spans"
        same = split.segment_spans[segment] == split.text_spans[text]
        is_inside = bool(same.all()) or covered(segment, text) >= 0.5
        return bool(owner_of[segment] == split.text_clips[text]) and is_inside

    in_clip = set(zip(level.in_clip_rows.tolist(), level.in_clip_columns.tolist(), strict=True))
    for row, segment in enumerate(segments):
        near = [
            t
            for t in texts
            if split.text_clips[t] == owner_of[segment]
            and (is_own(segment, t) or covered(segment, t) > 0.1)
        ]
        words = {normalised_words(split.texts[t]) for t in near}
        for column, text in enumerate(texts):
            assert level.positive[row, column] == is_own(segment, text)
            assert level.negative[row, column] == (normalised_words(split.texts[text]) not in words)
            assert ((row, column) in in_clip) == (owner_of[segment] == split.text_clips[text])


def test_all_captions_of_a_clip_hold_for_it_though_one_is_drawn() -> None:
    texts: list[Text] = [(0, "a dog", None), (0, "an animal", None), (1, "An animal!", None)]
    split = loaded(split_of([[(0, 1)], [(0, 1)]], texts), LossConfig(segment_weight=0))
    for draw in range(10):
        batch = make_batch(split, np.array([0, 1]), rng=np.random.default_rng(draw))
        assert batch.global_level is not None
        assert not batch.global_level.negative[0, 1]


def test_a_level_without_weight_is_left_out() -> None:
    split = random_split(0)
    rng = np.random.default_rng(0)
    batch = make_batch(loaded(split, LossConfig(segment_weight=0)), np.arange(4), rng=rng)
    assert batch.segment_level is None and batch.global_level is not None
    batch = make_batch(loaded(split, LossConfig(global_weight=0)), np.arange(4), rng=rng)
    assert batch.global_level is None and batch.segment_level is not None


@pytest.mark.parametrize("seed", range(5))
def test_the_sentences_of_a_batch_are_those_of_its_texts(seed: int) -> None:
    split = with_sentences(random_split(seed), seed)
    resident = loaded(split)
    batch = make_batch(resident, np.arange(7), rng=np.random.default_rng(seed))
    assert batch.global_level is not None
    lists, features = sentences_of_texts(split), sentence_features(split)
    expected = [lists[text] for text in batch.global_level.texts.tolist()]
    assert batch.sentence_counts.tolist() == [len(rows) for rows in expected]
    gathered = gather_sentences(resident, batch.sentences).numpy()
    np.testing.assert_array_equal(gathered, features[np.concatenate(expected)])
    assert (batch.sentence_counts > 1).any()


def test_nothing_inside_a_span_is_a_negative_however_clips_are_cut() -> None:
    """Shots of 5, 2 and 1 s; windows of 2 s; sixteen equal pieces of a clip of 32 s."""
    spans = [(0.0, 8.0), (6.0, 13.0), (4.2, 15.8)]
    cuts = ([0, 5, 7, 8, 12], [0, 2, 4, 6, 8, 10, 12, 13], [2 * k for k in range(17)])
    segments = [[(float(a), float(b)) for a, b in zip(cut, cut[1:], strict=False)] for cut in cuts]
    texts: list[Text] = [(clip, f"sentence {clip}", span) for clip, span in enumerate(spans)]
    batch = make_batch(
        loaded(split_of(segments, texts)), np.array([2, 0, 1]), rng=np.random.default_rng(0)
    )
    level = batch.segment_level
    assert level is not None
    rows = [(clip, segment) for clip in (2, 0, 1) for segment in segments[clip]]
    for row, (clip, (start, end)) in enumerate(rows):
        for column, text in enumerate(level.texts.tolist()):
            shared = min(end, spans[text][1]) - max(start, spans[text][0])
            share = max(0.0, shared) / (end - start) if text == clip else 0.0
            assert level.negative[row, column] == (share <= 0.1)
            assert level.positive[row, column] == (share >= 0.5)


def test_clips_of_one_video_that_overlap_are_no_negatives_of_each_other() -> None:
    texts: list[Text] = [
        *((clip, f"caption {clip}", None) for clip in range(4)),
        *((clip, f"sentence {clip}", (0.0, 1.0)) for clip in range(4)),
    ]
    split = dataclasses.replace(
        split_of([[(0, 1), (1, 2)]] * 4, texts),
        clip_videos=np.array([0, 0, 0, 1]),
        clip_starts=np.array([0.0, 5.0, 10.0, 0.0]),  # 10 s each: the third starts at an end
    )
    batch = make_batch(loaded(split), np.array([3, 1, 0, 2]), rng=np.random.default_rng(0))
    for level, rows_of_clip in ((batch.global_level, 1), (batch.segment_level, 2)):
        assert level is not None
        for row, video in enumerate(np.repeat([3, 1, 0, 2], rows_of_clip)):
            for column, text in enumerate(split.text_clips[level.texts.numpy()].tolist()):
                if video != text:
                    is_apart = {int(video), text} not in ({0, 1}, {1, 2})
                    assert level.negative[row, column] == is_apart


@pytest.mark.parametrize(
    "losses", [LossConfig(in_clip_weight=1), LossConfig(cross_clip_negative_weight=0)]
)
def test_negatives_inside_clips_need_clips_of_several_segments(losses: LossConfig) -> None:
    texts: list[Text] = [
        (clip, f"{kind} {clip}", span)
        for clip in (0, 1)
        for kind, span in (("caption", None), ("sentence", (0.0, 1.0)))
    ]
    with pytest.raises(TrainingDataError, match="negatives inside clips.*resegment"):
        loaded(split_of([[(0, 1)], [(0, 1)]], texts), losses)
    assert loaded(split_of([[(0, 1), (1, 2)], [(0, 1)]], texts), losses).segment_pairs is not None


@pytest.mark.parametrize("kind", ["clip", "segment", "text"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused_with_their_clips(kind: str, value: float) -> None:
    split = random_split(0)
    getattr(split, f"{kind}_features")[-1, 2] = value
    last = {"clip": 11, "segment": 11, "text": split.text_clips[-1]}[kind]
    with pytest.raises(TrainingDataError, match=f"1 of .* {kind} features .* clips clip{last}:"):
        loaded(split)


@pytest.mark.parametrize("kind", ["sentence", "question", "option"])
def test_so_are_those_of_sentences_questions_and_options(kind: str) -> None:
    split = with_sentences(split_with_questions(0))
    asked, sentences = split.questions, split.sentences
    assert sentences is not None
    features, owners = {
        "sentence": (sentences.values, np.repeat(split.text_clips, sentences.counts)),
        "question": (asked.question_features, asked.clips),
        "option": (asked.option_features, np.repeat(asked.clips, np.diff(asked.option_offsets))),
    }[kind]
    features[-1, 2] = np.nan
    message = f"1 of .* {kind} features .* clips clip{owners[-1]}:"
    with pytest.raises(TrainingDataError, match=message):
        loaded(split)


@pytest.mark.parametrize("most", [2, 99])
def test_several_captions_of_a_clip_are_drawn_without_repeats_and_do_not_repel(most: int) -> None:
    split = random_split(3)
    config = RunConfig(
        losses=LossConfig(segment_weight=0),
        optimiser=OptimiserConfig(texts_per_clip=most),
        tasks=NO_TASKS,
    )
    resident = load_training_split(split, config=config, device=torch.device("cpu"))
    seen: set[int] = set()
    for epoch in range(20):
        for batch in epoch_batches(resident, batch_clips=5, seed=0, epoch=epoch):
            level = batch.global_level
            assert level is not None
            texts = level.texts.tolist()
            owners = split.text_clips[texts]
            own = batch.clips[:, None] == owners[None, :]
            np.testing.assert_array_equal(level.positive.numpy(), own)
            assert not (level.negative.numpy() & own).any()
            assert len(set(texts)) == len(texts)
            is_global = split.text_clips[~split.text_is_segment]
            for clip in batch.clips:
                assert (owners == clip).sum() == min((is_global == clip).sum(), most)
            seen |= set(texts)
    assert seen == set(np.flatnonzero(~split.text_is_segment).tolist())
