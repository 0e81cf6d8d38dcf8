"""A split as vectors of both levels, against loops over clips, texts and sentences."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from split_fixtures import DIM, NO_TASKS, random_split, with_sentences
from task_fixtures import split_with_questions

from mlalign.align.config import RunConfig
from mlalign.align.loss_config import GlobalFrom, LevelsConfig
from mlalign.align.model.model import AlignmentModel, build_model
from mlalign.data_manifests.core.errors import UserError
from mlalign.evaluate.config import SegmentScoreConfig
from mlalign.evaluate.scores import vectors
from mlalign.evaluate.scores.similarity import level_scores
from mlalign.evaluate.scores.vectors import (
    Encoder,
    ZeroShot,
    clip_vectors,
    embed,
    text_vectors,
)
from mlalign.extract.cache.split_features import SplitFeatures


def trained_model() -> AlignmentModel:
    torch.manual_seed(0)
    config = RunConfig(tasks=NO_TASKS, levels=LevelsConfig(path=True))
    model = build_model(config, dim_video=DIM, dim_text=DIM)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model.eval()


def sentences_in_loops(split: SplitFeatures, text: int) -> list[np.ndarray]:
    """The features of the sentences that were split off; of one sentence the text's own."""
    assert split.sentences is not None
    extracted = list(split.sentences[text])
    return extracted or [split.text_features[text]]


def unit(vector: np.ndarray) -> np.ndarray:
    return np.asarray(vector / np.linalg.norm(vector))


def alone(encoder: Encoder, side: str, whole: np.ndarray, parts: list[np.ndarray]) -> np.ndarray:
    """The vector of one item of the global level, encoded by itself."""
    encode = encoder.encode_videos if side == "video" else encoder.encode_texts
    with torch.no_grad():
        made, _ = encode(
            torch.from_numpy(whole[None]),
            torch.from_numpy(np.stack(parts)),
            torch.tensor([len(parts)]),
        )
    return np.asarray(made[0].numpy())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("encoder", ["parts", "pooled", "trained"])
@pytest.mark.parametrize("rows", [3, 1 << 14])
def test_the_vectors_of_a_split_are_those_of_each_item_alone(
    seed: int, encoder: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "ENCODE_ROWS", rows)
    split = with_sentences(random_split(seed), seed)
    modes: dict[str, GlobalFrom] = {"parts": "parts", "pooled": "pooled"}
    own = trained_model() if encoder == "trained" else ZeroShot(modes[encoder])
    embeddings = embed(split, own)
    for clip in range(len(split.clip_ids)):
        segments = slice(split.segment_offsets[clip], split.segment_offsets[clip + 1])
        expected = alone(
            own, "video", split.clip_features[clip], list(split.segment_features[segments])
        )
        np.testing.assert_allclose(embeddings.clips[clip], expected, atol=1e-6)
    for text in range(len(split.texts)):
        parts = sentences_in_loops(split, text)
        expected = alone(own, "text", split.text_features[text], parts)
        np.testing.assert_allclose(embeddings.texts[text], expected, atol=1e-6)
        of_text = embeddings.sentences[embeddings.sentences_of_texts[text]]
        for vector, feature in zip(of_text, parts, strict=True):
            with torch.no_grad():
                encoded = own.encode_sentences(torch.from_numpy(feature[None]))[0].numpy()
            np.testing.assert_allclose(vector, encoded, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("weight", ["global", "segment"])
def test_the_scores_of_texts_with_sentences_equal_loops(seed: int, weight: str) -> None:
    split = with_sentences(random_split(seed), seed)
    embeddings = embed(split, ZeroShot())
    texts = np.random.default_rng(seed).permutation(len(split.texts))[:9]
    queries = text_vectors(embeddings, texts)
    scores = level_scores(queries, clip_vectors(split, embeddings), config=SegmentScoreConfig())
    for place, text in enumerate(texts.tolist()):
        parts = [unit(part) for part in sentences_in_loops(split, text)]
        for clip in range(len(split.clip_ids)):
            first, last = split.segment_offsets[clip : clip + 2]
            segments = [unit(segment) for segment in split.segment_features[first:last]]
            if weight == "global":
                expected = unit(np.mean(parts, axis=0)) @ unit(np.mean(segments, axis=0))
                measured = scores[0][place, clip]
            else:
                best = [max(part @ segment for segment in segments) for part in parts]
                expected, measured = np.mean(best), scores[1][place, clip]
            assert measured == pytest.approx(expected, abs=1e-6)


def test_text_vectors_are_in_the_order_asked_for_and_slice_alike() -> None:
    split = with_sentences(random_split(1), 1)
    embeddings = embed(split, ZeroShot())
    texts = np.array([4, 0, 4, 7])
    some = text_vectors(embeddings, texts)
    assert len(some) == 4 and (some.part_counts >= 1).all()
    for place, text in enumerate(texts.tolist()):
        one = text_vectors(embeddings, np.array([text]))
        for part in (some.slice(place, place + 1), some.take(np.array([place]))):
            assert np.array_equal(part.wholes, one.wholes)
            assert np.array_equal(part.parts, one.parts)
            assert part.offsets.tolist() == [0, len(one.parts)]
    assert len(text_vectors(embeddings, np.zeros(0, dtype=np.int64))) == 0


def test_an_option_is_a_text_of_one_sentence() -> None:
    split, model = split_with_questions(0), trained_model()
    embeddings = embed(split, model)
    features = split.questions.option_features
    for option, vector in enumerate(embeddings.options):
        expected = alone(model, "text", features[option], [features[option]])
        np.testing.assert_allclose(vector, expected, atol=1e-6)
    with torch.no_grad():
        sentences = model.encode_sentences(torch.from_numpy(features)).numpy()
    np.testing.assert_allclose(embeddings.option_sentences, sentences, atol=1e-6)


def test_a_vector_that_is_not_finite_is_refused() -> None:
    split = with_sentences(random_split(0))
    assert split.sentences is not None
    broken = split.sentences.values.copy()
    broken[0] = np.nan
    bad = dataclasses.replace(split, sentences=dataclasses.replace(split.sentences, values=broken))
    with pytest.raises(UserError, match="1 of .* texts have NaN"):
        embed(bad, ZeroShot())
