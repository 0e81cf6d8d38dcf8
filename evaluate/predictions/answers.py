"""What predicts for a split (a run, or the backbone as it is), and its answers to all questions,
known or not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...align.runs.checkpoint import load_run
from ...data_manifests.cards.card import Card
from ...data_manifests.core.errors import UserError
from ...extract.cache.ragged import offsets_of, ragged_rows
from ...extract.cache.split_features import SplitFeatures
from ...extract.cache.store import FeatureStore
from ..config import EvaluationConfig
from ..inputs.rows import check_cache_keys
from ..inputs.splits import check_segments, read_split, read_validation, with_segment_rule
from ..official.formats import NUM_OPTIONS, answer_content, answer_moment_content
from ..scores.vectors import Embeddings, Encoder, ZeroShot, embed
from ..tasks.answers import scores_of_answers
from ..tasks.choices import answer_moments, chosen_options, option_scores
from ..tasks.retrieval import choose_fused_weight


def question_content(predictor: Predictor) -> tuple[Any, str]:
    """The content of the file of answers, and the ending of its name.

    Raises UserError for a split without the questions of the card, and for open-ended ones without
    a run that answers them.
    """
    questions = predictor.features.questions
    if "open_ended" in predictor.card.tasks:
        return answer_content(predictor.card, _open_answers(predictor), {})
    rows, answers, options = _choices(predictor)
    if predictor.config.answer_moments:
        given = (predictor.features, predictor.embeddings, predictor.encoder)
        spans = answer_moments(*given, chosen=options, rows=rows)
        return answer_moment_content(answers, dict(zip(answers, spans, strict=True)))
    known = {
        questions.question_ids[row]: int(questions.answer_indices[row])
        for row in rows
        if questions.answer_indices[row] >= 0
    }
    return answer_content(predictor.card, answers, known)


def _choices(predictor: Predictor) -> tuple[np.ndarray, dict[str, int | str], np.ndarray]:
    """Rows of all multiple-choice questions, the chosen index of each, and the options' rows."""
    questions = predictor.features.questions
    is_choice = np.array([kind == "multiple_choice" for kind in questions.kinds], dtype=bool)
    rows = np.flatnonzero(is_choice)
    if not len(rows):
        raise UserError(f"split {predictor.features.split!r} has no multiple-choice questions")
    counts = np.diff(questions.option_offsets)[rows]
    num_options = NUM_OPTIONS.get(predictor.card.importer)
    if num_options is not None and counts.max() > num_options:
        raise UserError(
            f"questions of {predictor.card.name} have {num_options} options, and those of split "
            f"{predictor.features.split!r} up to {counts.max()}: give the card that they are of"
        )
    options, _ = ragged_rows(questions.option_offsets, rows)
    offsets = offsets_of(counts)
    by_name = option_scores(
        predictor.features,
        predictor.embeddings,
        options=options,
        clips=np.repeat(questions.clips[rows], counts),
        weight=predictor.weight,
        config=predictor.config,
        encoder=predictor.encoder,
    )
    scores_O = by_name["task" if "task" in by_name else "fused"]
    places = chosen_options(scores_O, offsets)
    indices = (places - offsets[:-1]).tolist()
    ids = [questions.question_ids[row] for row in rows]
    return rows, dict(zip(ids, indices, strict=True)), options[places]


def _open_answers(predictor: Predictor) -> dict[str, int | str]:
    """The best answer of the run's vocabulary to each open-ended question."""
    encoder, questions = predictor.encoder, predictor.features.questions
    if encoder.answer_head is None or encoder.answer_features is None:
        raise UserError(
            "open-ended questions are answered by a run that was trained for it "
            "(tasks.answer_weight): give one with --run"
        )
    rows = np.array(
        [row for row, kind in enumerate(questions.kinds) if kind == "open_ended"], dtype=np.int64
    )
    if not len(rows):
        raise UserError(f"split {predictor.features.split!r} has no open-ended questions")
    answers: dict[str, int | str] = {}
    for block, scores_KA in scores_of_answers(
        rows, encoder.answer_features, predictor.features, predictor.embeddings, encoder
    ):
        for row, best in zip(rows[block], scores_KA.argmax(axis=1), strict=True):
            answers[questions.question_ids[row]] = encoder.answers[best]
    return answers


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictor:
    """A split and what predicts for it."""

    card: Card
    """Whose format is written."""
    config: EvaluationConfig
    """The resolved settings."""
    features: SplitFeatures
    """The split."""
    embeddings: Embeddings
    """Its vectors."""
    encoder: Encoder
    """The run's heads, or the backbone as it is."""
    weight: float
    """Of the global score in the fused one."""


def load_predictor(
    cache: Path, run: Path | None, config: EvaluationConfig, card: Card
) -> Predictor:
    """The split's features and vectors, and the weight that validation chooses."""
    store = FeatureStore.open(cache)
    runs = [] if run is None else [load_run(run)]
    check_cache_keys(runs, store)
    if not runs and store.dim != store.text_dim:
        raise UserError(
            f"{cache} has video and text features of two widths, which only heads compare: give a "
            f"run with --run"
        )
    config = with_segment_rule(config, runs)
    encoder = runs[0].model if runs else ZeroShot()
    features = read_split(store, config)
    check_segments(card, features)
    validation = read_validation(store, config)
    return Predictor(
        card=card,
        config=config,
        features=features,
        embeddings=embed(features, encoder),
        encoder=encoder,
        weight=choose_fused_weight(validation, encoder, config).value,
    )
