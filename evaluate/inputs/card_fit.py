"""Whether a split has what a card asks about, and how many answers its vocabulary covers."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from ...data_manifests.cards.card import Card
from ...data_manifests.cards.scoring_rules import SPANS
from ...data_manifests.core.errors import UserError
from ...extract.cache.store import SplitFeatures
from .protocols import scored_tasks


def check_tasks(card: Card, tasks: Sequence[str], features: SplitFeatures) -> None:
    """Raise UserError when nothing that is scored is what the card asks about."""
    wanted = scored_tasks(card)
    if set(wanted) & set(tasks):
        return
    asked = ", ".join(name.replace("_", " ") for name in wanted)
    open_ended = " or give a run that answers questions," if "answers" in wanted else ""
    raise UserError(
        f"the card {card.name} asks for {asked}, and split {features.split!r} has nothing of that "
        f"with known answers: choose a split with --set split=NAME,{open_ended} score by no card "
        f"with --set card=null, or write predictions with mlalign-evaluate predict"
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
    asked = known.filter(pc.equal(known["split"], split))["answer"].to_pylist()
    if not trained or not asked:
        return {}
    answers = set(rule.of(trained))
    return {
        "card_vocabulary": len(answers),
        "answers_outside_card_vocabulary": sum(answer not in answers for answer in asked),
        "questions_with_answers": len(asked),
    }
