"""Which splits of a cache an evaluation reads, whether they have what a card asks about, and where
their videos are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...align.runs.checkpoint import Run
from ...data_manifests.cards.card import Card
from ...data_manifests.cards.scoring_rules import SPANS
from ...data_manifests.core.errors import UserError
from ...data_manifests.core.file_names import text_name, video_file
from ...extract.cache.split_features import SplitFeatures
from ...extract.cache.store import FeatureStore
from ..config import EvaluationConfig
from .protocols import scored_tasks


def with_segment_rule(config: EvaluationConfig, runs: Sequence[Run]) -> EvaluationConfig:
    """The settings with the segments that the runs were trained on, where they name none.

    Raises UserError for runs that were trained on several.
    """
    rules = sorted({run.segment_rule for run in runs})
    if config.segment_rule is not None or not rules:
        return config
    if len(rules) > 1:
        raise UserError(
            f"the runs were trained on segments of several rules ({', '.join(rules)}): evaluate "
            f"those of a rule together, or all on one with --set segment_rule={rules[0]}"
        )
    return replace(config, segment_rule=rules[0])


def read_split(
    store: FeatureStore, config: EvaluationConfig, *, with_tokens: bool = False
) -> SplitFeatures:
    """The split of the settings; UserError when the cache has no such split. with_tokens: with
    frames and tokens."""
    if config.split is not None and config.split not in store.splits:
        raise UserError(
            f"{store.path} has no split {config.split!r}; it has {', '.join(store.splits)}: choose "
            f"one with --set split=NAME, or all clips with --set split=null"
        )
    return store.split(
        config.split,
        segments=config.segment_rule,
        frames_per_clip=config.frames_per_clip if with_tokens else 0,
        with_tokens=with_tokens,
    )


def read_validation(store: FeatureStore, config: EvaluationConfig) -> SplitFeatures | None:
    """The validation split, when it is there and shares no clip with the evaluated one."""
    name = config.validation_split
    if name is None or config.split in (None, name) or name not in store.splits:
        return None
    return store.split(name, segments=config.segment_rule)


def check_tasks(card: Card, tasks: Sequence[str], features: SplitFeatures) -> None:
    """Raise UserError when nothing that is scored is what the card asks about."""
    wanted = scored_tasks(card)
    if set(wanted) & set(tasks):
        return
    task_names = ", ".join(name.replace("_", " ") for name in wanted)
    open_ended = " or give a run that answers questions," if "answers" in wanted else ""
    raise UserError(
        f"the card {card.name} asks for {task_names}, and split {features.split!r} has nothing of "
        f"that with known answers: choose a split with --set split=NAME,{open_ended} score by no "
        f"card with --set card=null, or write predictions with mlalign-evaluate predict"
    )


def check_segments(card: Card, features: SplitFeatures) -> None:
    """Raise UserError where the moments that the card asks about are the segments themselves."""
    if card.moments is None or features.segment_rule != SPANS:
        return
    rule = card.moments.segments
    raise UserError(
        f"the card {card.name} asks for moments, and the segments by the rule {SPANS} are the true "
        f"ones, among which no method may choose: cut others with mlalign-extract resegment CACHE "
        f"--segments {rule} --segments {SPANS}, train on them (the first rule, or "
        f"--set data.segments={rule}) and evaluate again; or score by no card with --set card=null"
    )


def vocabulary_counts(card: Card, questions: pa.Table, split: str) -> dict[str, int]:
    """Answers of the card's vocabulary, and how many of the split's questions it does not cover.

    questions: the cache's table. Empty where the card has no vocabulary or the cache no training
    split of open-ended questions.
    """
    rule = None if card.questions is None else card.questions.vocabulary
    known = questions.filter(
        pc.and_(pc.equal(questions["kind"], "open_ended"), questions["answer"].is_valid())
    )
    if rule is None or card.train_split is None:
        return {}
    trained = known.filter(pc.equal(known["split"], card.train_split))["answer"].to_pylist()
    evaluated = known.filter(pc.equal(known["split"], split))["answer"].to_pylist()
    if not trained or not evaluated:
        return {}
    answers = set(rule.of(trained))
    return {
        "card_vocabulary": len(answers),
        "answers_outside_card_vocabulary": sum(answer not in answers for answer in evaluated),
        "questions_with_answers": len(evaluated),
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipVideos:
    """Video files and start times of N clips."""

    videos: list[Path]
    """(N,) the file, below the folder of videos that the cache remembers; it may be gone."""
    start_seconds: np.ndarray
    """(N,) float64, where in it the clip starts."""


def clip_videos(store: FeatureStore, clip_ids: list[str]) -> ClipVideos:
    """Those of some clips of the cache."""
    table = store.clips.select(["clip_id", "video_path", "start_seconds"]).to_pydict()
    row = {clip_id: place for place, clip_id in enumerate(table["clip_id"])}
    rows = [row[clip_id] for clip_id in clip_ids]
    root = Path(text_name(store.record["videos_root"]))
    return ClipVideos(
        videos=[video_file(root, table["video_path"][place]) for place in rows],
        start_seconds=np.array([table["start_seconds"][place] or 0.0 for place in rows]),
    )
