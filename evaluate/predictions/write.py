"""Our own predictions of a split, in the official format of its card's benchmark.

Answers need not be known: the files are what leaderboards' servers take. Where they are known,
`mlalign-evaluate score` gives of the files the numbers of the report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from ...align.data.moment_items import moment_queries
from ...data_manifests.cards.card import load_card
from ...data_manifests.core.errors import UserError
from ..config import EvaluationConfig
from ..official.formats import (
    corpus_record,
    highlight_record,
    official_id,
    sentence_id,
    window_content,
    write_content,
    write_similarities,
)
from ..scores.similarity import score_blocks
from ..scores.vectors import TwoLevelVectors, clip_vectors, text_vectors
from ..tasks.corpus_moments import predict_in_corpus
from ..tasks.didemo_chunks import rank_runs
from ..tasks.highlights import clip_saliency
from ..tasks.moments import predict_moments
from .answers import Predictor, load_predictor, question_content

NUM_VIDEOS: Final = 100
"""Clips of a query in TVR's video retrieval."""


def write_predictions(
    cache: Path, run: Path | None, config: EvaluationConfig, folder: Path
) -> list[Path]:
    """Write the files of a split's predictions by the fused score; their paths.

    run: None for zero-shot. Raises UserError without a card, for a run of another cache, and for a
    split without anything that the card asks about.
    """
    if config.card is None:
        raise UserError("predictions are written in a card's format: name one with --card")
    predictor = load_predictor(cache, run, config, load_card(config.card))
    stem = f"{predictor.card.name}_{predictor.features.split}"
    return _files(predictor, folder / stem)


def _files(predictor: Predictor, stem: Path) -> list[Path]:
    card = predictor.card
    if card.queries == "questions":
        return _written(question_content(predictor), stem)
    if card.moments is None:
        return [_write_similarities(predictor, stem.with_name(f"{stem.name}.npz"))]
    content: Callable[[Predictor], tuple[Any, str]] = {
        "qvhighlights": _highlight_content,
        "tvr": _corpus_content,
        "how2r": _corpus_content,
        "didemo": _ranking_content,
    }.get(card.importer, _window_content)
    if not predictor.features.text_ids:
        raise UserError(f"split {predictor.features.split!r} has no texts: nothing to predict")
    return _written(content(predictor), stem)


def _written(content: tuple[Any, str], stem: Path) -> list[Path]:
    path = stem.with_name(stem.name + content[1])
    write_content(content[0], path)
    return [path]


def _queries(predictor: Predictor) -> list[tuple[str, int]]:
    """Id and a text of every query, with a known moment or not."""
    ids, texts = moment_queries(
        predictor.features, np.arange(len(predictor.features.text_ids), dtype=np.int64)
    )
    return list(zip(ids, texts.firsts.tolist(), strict=True))


def _moments(predictor: Predictor, text: int) -> np.ndarray:
    rules = predictor.config.moments
    given = (predictor.features, predictor.embeddings, predictor.encoder)
    return predict_moments(*given, text=text, config=rules)


def _window_content(predictor: Predictor) -> tuple[Any, str]:
    is_charades = predictor.card.importer == "charades_sta"
    return window_content(
        {
            name if is_charades else sentence_id(name): _moments(predictor, text)
            for name, text in _queries(predictor)
        }
    )


def _highlight_content(predictor: Predictor) -> tuple[Any, str]:
    features = predictor.features
    return [
        highlight_record(
            name,
            features.texts[text],
            features.clip_ids[features.text_clips[text]],
            _moments(predictor, text),
            clip_saliency(features, predictor.embeddings, text=text),
        )
        for name, text in _queries(predictor)
    ], ".jsonl"


def _ranking_content(predictor: Predictor) -> tuple[Any, str]:
    chunks = predictor.config.moments.chunks
    if chunks is None:
        raise UserError("DiDeMo's format has runs of chunks: moments.chunks must not be null")
    given = (predictor.features, predictor.embeddings, predictor.encoder)
    return [
        {
            "annotation_id": official_id(name),
            "predictions": [list(run) for run in rank_runs(*given, text=text, chunks=chunks)],
        }
        for name, text in _queries(predictor)
    ], ".json"


def _corpus_content(predictor: Predictor) -> tuple[Any, str]:
    """TVR's three tasks; every clip of the split is in video2idx."""
    features, queries = predictor.features, _queries(predictor)
    texts = np.array([text for _, text in queries], dtype=np.int64)
    given = (features, predictor.embeddings, predictor.encoder)
    searched = predict_in_corpus(
        *given, texts=texts, weight=predictor.weight, config=predictor.config
    )
    content: dict[str, Any] = {"video2idx": {name: k for k, name in enumerate(features.clip_ids)}}
    content["VCMR"] = [
        corpus_record(name, features.texts[text], result.clips.tolist(), result.moments)
        for (name, text), result in zip(queries, searched, strict=True)
    ]
    content["SVMR"] = []
    for name, text in queries:
        moments, clip = _moments(predictor, text), int(features.text_clips[text])
        clips = [clip] * len(moments)
        content["SVMR"].append(corpus_record(name, features.texts[text], clips, moments))
    content["VR"] = [
        corpus_record(name, features.texts[text], best.tolist(), _as_moments(scores[best]))
        for (name, text), (best, scores) in zip(queries, _best_clips(predictor, texts), strict=True)
    ]
    return content, ".json"


def _as_moments(scores: np.ndarray) -> np.ndarray:
    """(n, 3): no time, and a score."""
    return np.column_stack([np.zeros((len(scores), 2)), scores])


def _best_clips(predictor: Predictor, texts: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each text the best clips, best first, and the scores of all."""
    clips = clip_vectors(predictor.features, predictor.embeddings)
    vectors = text_vectors(predictor.embeddings, texts)
    for scores_QN in _score_blocks(predictor, vectors, clips):
        for scores in scores_QN:
            yield np.argsort(-scores, kind="stable")[:NUM_VIDEOS], scores


def _score_blocks(
    predictor: Predictor, texts: TwoLevelVectors, clips: TwoLevelVectors
) -> Iterator[np.ndarray]:
    """(block, N) fused scores of the texts, in blocks."""
    for _, _, by_weight in score_blocks(
        texts,
        clips,
        direction="text_to_clip",
        weights=[predictor.weight],
        segment_score=predictor.config.segment_score,
    ):
        yield from by_weight


def _write_similarities(predictor: Predictor, path: Path) -> Path:
    """The fused score of every text of the whole clip with every clip of the split."""
    features = predictor.features
    texts = np.flatnonzero(~features.text_is_segment)
    if not len(texts):
        raise UserError(f"split {features.split!r} has no texts of whole clips: nothing to predict")
    clips = clip_vectors(features, predictor.embeddings)
    vectors = text_vectors(predictor.embeddings, texts)
    scores_TV = np.concatenate(list(_score_blocks(predictor, vectors, clips)))
    write_similarities(
        scores_TV, [features.text_ids[row] for row in texts], features.clip_ids, path
    )
    return path
