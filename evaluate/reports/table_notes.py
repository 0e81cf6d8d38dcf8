"""The notes under the tables: intervals, weights, ties, vocabularies, and the card's rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ...data_manifests.cards.card import load_card
from ..config import EvaluationConfig
from ..evaluation import Evaluation
from ..inputs.protocols import departures, reference_lines, rule_lines, scored_tasks, segments_note
from ..scores.ranks import SCORE_RESOLUTION
from ..scores.vectors import ZeroShot
from ..statistics.normalised_rows import assumptions
from ..statistics.summaries import RowOutcome


def notes(evaluation: Evaluation) -> Iterator[str]:
    """How the numbers were made, and what they leave out."""
    config, counts = evaluation.config, evaluation.counts
    seeds = max(len(row.runs) for row in evaluation.rows)
    spread = "mean over seeds ± their standard deviation; " if seeds > 1 else ""
    yield (
        f"Percent (MdR: rank); {spread}below it the {100 * config.confidence:g} % bootstrap "
        f"interval over queries ({config.bootstrap_samples} resamples of whole clips)."
    )
    if note := segments_note(evaluation.features.segment_rule):
        yield note
    for label, assumption in assumptions(evaluation.rows).items():
        yield f"{label}: {assumption}. Not comparable with rows without it."
    if evaluation.cache is not None:
        yield from _zero_shot_notes(evaluation)
        yield from _fused_notes(evaluation)
    ties = [f"{row.name} {num}" for row in evaluation.rows if (num := _ties(evaluation, row))]
    if ties:
        yield (
            f"Ties (scores within {SCORE_RESOLUTION:g}) {_tie_rule(config)}; most tied queries "
            f"of a text→clip score: {', '.join(ties)}."
        )
    for row in evaluation.rows:
        for effect in (run.index_effect for run in row.runs):
            if effect is not None:
                yield (
                    f"{row.name}, searched through {f'{effect.factory} {effect.search}'.strip()}: "
                    f"{effect.segment_recall_at_10:.1f} % of the ten nearest segments are found; "
                    f"text→clip R@1 {effect.approximate['R@1']:.1f} instead of "
                    f"{effect.exact['R@1']:.1f}."
                )
    if size := counts.get("card_vocabulary"):
        covered = 1 - counts["answers_outside_card_vocabulary"] / counts["questions_with_answers"]
        yield (
            f"answers: the card's vocabulary has {size:,} answers of the training split and covers "
            f"{100 * covered:.1f} % of the questions; runs answer with their own."
        )
    if outside := counts.get("answers_outside_vocabulary"):
        total = counts["open_ended_questions"]
        yield (
            f"answers: {outside} of {total} right answers are outside the vocabulary of the "
            f"training split and count as wrong; accuracy is at most "
            f"{100 * (1 - outside / total):.1f} %."
        )
    if counts["open_ended_questions_not_scored"]:
        yield (
            f"{counts['open_ended_questions_not_scored']} open-ended questions were not scored: "
            f"they need a known answer, and a run that was trained to answer them "
            f"(tasks.answer_weight)."
        )


ZERO_SHOT_NOTES: Final = {
    "parts": "a clip is the mean of its segments, a text the mean of its sentences",
    "pooled": "a clip is the mean of its frames, a text is encoded as a whole",
}
"""How the global level of rows without heads is made."""


def _zero_shot_notes(evaluation: Evaluation) -> Iterator[str]:
    for row in evaluation.plain_rows:
        encoder = evaluation.encoders[row.name]
        if isinstance(encoder, ZeroShot):
            yield f"{row.name}, global score: {ZERO_SHOT_NOTES[encoder.global_from]}."


def _fused_notes(evaluation: Evaluation) -> Iterator[str]:
    """How the fused score was made."""
    weights = ", ".join(f"{row.name} {_weights(row)}" for row in evaluation.plain_rows)
    yield f"fused = a * global + (1 - a) * segment; a: {weights}."
    reasons = sorted({run.weight.reason for row in evaluation.rows for run in row.runs})
    yield f"a is {'; '.join(reasons)}."


def protocol_notes(evaluation: Evaluation) -> Iterator[str]:
    """Which card, every rule, and published numbers."""
    config = evaluation.config
    if config.card is None:
        return
    card, tasks = load_card(config.card), [task.name for task in evaluation.tasks]
    theirs = [name.replace("_", " ") for name in scored_tasks(card) if name in tasks]
    yield f"By the card {card.name} ({card.title}): {', '.join(theirs) or 'none of these tasks'}."
    yield from (f"  {line}." for line in rule_lines(config, tasks))
    yield from (f"  Not the card's: {line}." for line in departures(config, card))
    yield from (f"Published: {line}" for line in reference_lines(card))


def _tie_rule(config: EvaluationConfig) -> str:
    rules = {
        "against": "count against us",
        "mean": "rank at their mean",
        "first": "rank in the given order",
    }
    return rules[config.ties]


def _weights(row: RowOutcome) -> str:
    return "/".join(f"{run.weight.value:g}" for run in row.runs)


def _ties(evaluation: Evaluation, row: RowOutcome) -> int:
    """The largest number of tied queries of any run and score of text_to_clip."""
    summaries = evaluation.summaries[row.name]
    of_task = [summary.num_tied for summary in summaries if summary.task == "text_to_clip"]
    return max((max(num_tied) for num_tied in of_task), default=0)
