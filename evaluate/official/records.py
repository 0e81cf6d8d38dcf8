"""What the official files say and the tables have no place for: annotators, saliency scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from ...data_manifests.cards.card import Card, ImporterName
from ...data_manifests.core.errors import UserError
from .files import PredictionError, read_annotations

KEYS: Final[dict[ImporterName, str]] = {"didemo": "annotation_id", "qvhighlights": "qid"}
"""By the importer of a card, the id of a query in its files."""


def official_records(card: Card, annotations: Path, *, split: str) -> dict[str, dict[str, Any]]:
    """The records of a split by the id of their query.

    annotations: the split's file, or the folder that has it. Raises UserError for a card whose
    files hold nothing that the tables lack, PredictionError with the faults of a file.
    """
    if card.importer not in KEYS:
        raise UserError(
            f"the tables have all that the official files of {card.name} say: leave "
            f"--annotations out"
        )
    path = split_file(card, annotations, split=split)
    return read_annotations(path, KEYS[card.importer])


def split_file(card: Card, annotations: Path, *, split: str) -> Path:
    """The official file of a split; PredictionError when it is not there."""
    if annotations.is_file():
        return annotations
    names = [
        name
        for file in card.files.values()
        if file.split == split and file.needed
        for name in file.names
    ]
    for name in names:
        if (annotations / name).is_file():
            return annotations / name
    raise PredictionError(
        f"{annotations}: expected the official file of split {split!r} of {card.name}: "
        f"{' or '.join(names) or 'it has none'}"
    )
