"""A benchmark's card as the settings of an evaluation, and what a report says of it.

What the user sets wins over the card, and the card over the defaults; a report names every rule,
and those that are other than the card's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Final

from ...data_manifests.cards.card import Card, card_names, load_card
from ...data_manifests.cards.scoring_rules import (
    ANSWER_MOMENT_IOU,
    SPANS,
    MomentRules,
    RetrievalRules,
)
from ...data_manifests.core.settings import given_settings, load_settings, settings_dict
from ..config import EvaluationConfig

MOMENT_RULES: Final = tuple(field.name for field in fields(MomentRules))
RETRIEVAL_RULES: Final = tuple(field.name for field in fields(RetrievalRules))


def load_protocol(
    record: Callable[[], Mapping[str, Any]],
    config: Path | None,
    overrides: Sequence[str] = (),
    *,
    card: str | None = None,
) -> EvaluationConfig:
    """The settings, with a card's rules where the user sets nothing.

    record: reads cache.json, once settings are known to be right.   card: a name or file; None:
    that of the settings, or else the cache's own.
    Raises SettingsError for settings or a card that cannot be read.
    """
    if card is not None:
        overrides = [*overrides, f"card={card}"]
    chosen = load_settings(EvaluationConfig, config, overrides).card
    if "card" not in given_settings(config, overrides):
        chosen = card_of_cache(record())
    if chosen is None:
        return load_settings(EvaluationConfig, config, overrides)
    below = {"card": chosen, **card_settings(load_card(chosen))}
    return load_settings(EvaluationConfig, config, overrides, below=below)


def card_of_cache(record: Mapping[str, Any]) -> str | None:
    """The card that the cache's manifest was built by, where it comes with mlalign."""
    name = record.get("dataset")
    return name if record.get("official") and name in card_names() else None


def card_settings(card: Card) -> dict[str, Any]:
    """The settings that a card decides, as a YAML file would have them."""
    settings: dict[str, Any] = {
        "split": card.test_split,
        "validation_split": card.validation_split,
    }
    if card.retrieval is not None:
        retrieval = settings_dict(card.retrieval)
        settings |= {name: retrieval[name] for name in RETRIEVAL_RULES}
    if card.moments is not None:
        moments = settings_dict(card.moments)
        settings["moments"] = {name: moments[name] for name in MOMENT_RULES}
    if card.questions is not None:
        settings["groups"] = settings_dict(card.questions)["groups"]
        settings["answer_moments"] = card.questions.moments
    return settings


def scored_tasks(card: Card) -> tuple[str, ...]:
    """Names of the evaluation's tasks that the card is about; what else is scored is ours."""
    names: list[str] = []
    if card.retrieval is not None and card.queries == "each_sentence":
        names.append("sentence_to_clip")
    elif card.retrieval is not None:
        names += card.retrieval.directions
    if card.moments is not None:
        names.append("moments")
        names += ["corpus_moments"] * card.moments.corpus
        if card.moments.average_precision:
            names += ["long_moments", "middle_moments", "short_moments", "highlights"]
    names += ["multiple_choice"] * ("multiple_choice" in card.tasks)
    names += ["answers"] * ("open_ended" in card.tasks)
    return tuple(names)


def protocol_json(config: EvaluationConfig, tasks: Sequence[str]) -> dict[str, Any] | None:
    """What results.json says of the card; None without one."""
    if config.card is None:
        return None
    card = load_card(config.card)
    return {
        "name": card.name,
        "title": card.title,
        "tasks": [name for name in scored_tasks(card) if name in tasks],
        "rules": list(rule_lines(config, tasks)),
        "other_than_the_card": list(departures(config, card)),
        "references": [asdict(reference) for reference in card.references],
        "notes": list(card.notes),
    }


def rule_lines(config: EvaluationConfig, tasks: Sequence[str]) -> Iterator[str]:
    """Every rule that the scored tasks' numbers follow, in words."""
    if {"text_to_clip", "clip_to_text", "sentence_to_clip"} & set(tasks):
        ties = {"against": "before the right one", "mean": "at their mean", "first": "in order"}
        yield f"retrieval: R@{_listed(config.recall_ks)}; ties rank {ties[config.ties]}"
    if "clip_to_text" in tasks:
        several = {
            "captions": "the best own caption among all captions",
            "clips": "clips ranked by their best caption",
        }
        yield f"clip to text: {several[config.several_captions]}"
    if {"text_to_clip", "clip_to_text", "sentence_to_clip"} & set(tasks):
        middle = {
            "mean": "the mean of the middle two",
            "lower": "the lower of the middle two; of clip to text their mean",
        }
        yield f"median rank: {middle[config.median]}"
    if "moments" in tasks:
        yield from _moment_rules(config)
    if config.answer_moments and "multiple_choice" in tasks:
        yield (
            f"questions: mIoU over the hull; ASA, the answer right and its moment at IoU >= "
            f"{ANSWER_MOMENT_IOU:g}"
        )
    for group in config.groups:
        if {"multiple_choice", "answers"} & set(tasks):
            yield f"questions: {group.name} is {', '.join(group.types)}"


def segments_note(segment_rule: str | None) -> str | None:
    """What must be known of numbers whose segments were cut with a look at the annotations."""
    if segment_rule != SPANS:
        return None
    return (
        "Segments are the annotated spans of these clips (rule spans): a moment is chosen among "
        "true ones. To compare with methods that do not know them, cut otherwise (mlalign-extract "
        "resegment) and set segment_rule, as uniform:8, in training (data.segments) and here."
    )


def departures(config: EvaluationConfig, card: Card) -> Iterator[str]:
    """The settings that are other than the card's."""
    return _differences(settings_dict(config), card_settings(card), prefix="")


def reference_lines(card: Card) -> Iterator[str]:
    """Published numbers, one method a line; those from memory are marked."""
    for reference in card.references:
        numbers = "; ".join(f"{name}: {value:g}" for name, value in reference.numbers.items())
        doubt = "" if reference.checked else "; from memory, not checked"
        yield f"{reference.method}. {numbers} [{reference.source}{doubt}]"


def _moment_rules(config: EvaluationConfig) -> Iterator[str]:
    moments = config.moments
    if moments.chunks is not None:
        chunks = moments.chunks
        yield (
            f"moments: all runs of {chunks.number} chunks of {chunks.seconds:g} s; ranks and IoU "
            f"averaged over the best {chunks.best_annotators} annotators"
        )
        return
    thresholds = ", ".join(f"{value:g}" for value in moments.iou_thresholds)
    yield (
        f"moments: R@{_listed(moments.recall_ks)} at IoU {moments.iou_comparison} {thresholds} "
        f"over the {moments.iou_denominator}"
    )
    suppressed = "none" if moments.nms_iou is None else f"above IoU {moments.nms_iou:g}"
    yield f"moments: temporal NMS {suppressed}; the first {moments.num_predictions} predictions"
    if moments.average_precision:
        yield "moments: mAP of interpolated precision, mean over IoU 0.5 to 0.95, by length, too"
    if moments.corpus:
        yield f"corpus moments: among those of each query's best {moments.corpus_clips} clips"


def _differences(
    settings: Mapping[str, Any], card: Mapping[str, Any], *, prefix: str
) -> Iterator[str]:
    for name, wanted in card.items():
        value = settings[name]
        if isinstance(wanted, Mapping) and isinstance(value, Mapping):
            yield from _differences(value, wanted, prefix=f"{prefix}{name}.")
        elif value != wanted:
            yield f"{prefix}{name} is {_shown(value)}, the card has {_shown(wanted)}"


def _listed(ks: Sequence[int]) -> str:
    return ", ".join(map(str, ks))


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)
