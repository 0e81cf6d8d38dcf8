"""Cards: what a benchmark is, where its official files are, and how its numbers are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from ..core.errors import SettingsError
from ..core.settings import load_settings
from .scoring_rules import MomentProtocol, QuestionProtocol, RetrievalProtocol

CARDS: Final = Path(__file__).parents[1] / "datasets"
"""Where the cards that come with mlalign lie: NAME.yaml."""

Task = Literal["retrieval", "moments", "multiple_choice", "open_ended"]
Queries = Literal["each_caption", "given_caption", "paragraph", "each_sentence", "questions"]
ImporterName = Literal[
    "activitynet_captions",
    "activitynet_qa",
    "captions_csv",
    "charades_sta",
    "didemo",
    "how2qa",
    "how2r",
    "lsmdc",
    "lsmdc_choice",
    "moments_csv",
    "msrvtt",
    "msrvtt_choice",
    "msvd",
    "next_qa",
    "questions_csv",
    "qvhighlights",
    "tacos",
    "tvqa",
    "tvr",
    "vatex",
    "violin",
    "vlep",
    "xu_qa",
    "youcook2",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class OfficialFile:
    """One file (or folder) of the official annotations."""

    names: tuple[str, ...]
    """The names that users have it under; the first one there is read."""
    of: str = ""
    """What it holds, in a few words."""
    split: str | None = None
    """The split that it alone describes; null: several, or all."""
    needed: bool = True
    """Whether its split (without one: anything) cannot be built when it is missing."""
    instead: tuple[str, ...] = ()
    """The card's words for files that together say the same. A split does not need it where all of
    these are there that describe the split."""

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError("names must have at least one file name")


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitSize:
    """What the official files of a split give; null where that is not known or is nothing."""

    clips: int | None = None
    """Clips."""
    texts: int | None = None
    """Texts that are queries of the card's task: captions, paragraphs or sentences."""
    questions: int | None = None
    """Questions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """Published numbers to compare with."""

    method: str
    """Whose they are, and under which conditions."""
    numbers: Mapping[str, float]
    """Metric to value, as published (percent unless the metric says otherwise)."""
    source: str
    """Where they were published."""
    checked: bool = False
    """Whether the numbers were read there; else they are from memory, and shown as such."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """One benchmark under one protocol."""

    name: str
    """As on the command line; a card's file is NAME.yaml."""
    title: str
    """For readers."""
    tasks: tuple[Task, ...]
    """What it measures."""
    importer: ImporterName
    """Which reader its official files have."""
    variant: str | None = None
    """Which of the importer's ways, where it has several."""
    files: Mapping[str, OfficialFile]
    """The official files by the importer's own word for each."""
    where: str
    """Where a user gets them, and the videos."""
    licence: str
    """Of annotations and videos, in a few words."""
    redistributable: bool = False
    """Whether the annotations may be passed on."""
    splits: Mapping[str, SplitSize]
    """The splits, with the sizes that `build` checks."""
    train_split: str | None = None
    """Trained on."""
    validation_split: str | None = None
    """Chooses weights and settings; null: the literature has none (see notes)."""
    test_split: str
    """Whose numbers are reported."""
    queries: Queries
    """How texts become queries: each caption, the one caption that a file gives, all sentences of a
    clip in file order as one paragraph, each sentence with its span, or none but questions."""
    retrieval: RetrievalProtocol | None = None
    """null: not scored."""
    moments: MomentProtocol | None = None
    """null: not scored."""
    questions: QuestionProtocol | None = None
    """null: not scored."""
    references: tuple[Reference, ...] = ()
    """Published numbers."""
    notes: tuple[str, ...] = ()
    """What a reader must know before comparing numbers."""

    def __post_init__(self) -> None:
        faults = []
        for setting in ("train_split", "validation_split", "test_split"):
            split = getattr(self, setting)
            if split is not None and split not in self.splits:
                faults.append(f"{setting} is {split!r}, but splits has {', '.join(self.splits)}")
        for word, file in self.files.items():
            if file.split is not None and file.split not in self.splits:
                faults.append(f"files.{word}.split is {file.split!r}, no split of the card")
            faults += [
                f"files.{word}.instead has {other!r}, no file of the card"
                for other in file.instead
                if other not in self.files
            ]
        wanted = {
            "retrieval": ("retrieval",),
            "moments": ("moments",),
            "questions": ("multiple_choice", "open_ended"),
        }
        for protocol, tasks in wanted.items():
            if (getattr(self, protocol) is None) == any(task in self.tasks for task in tasks):
                faults.append(f"the group {protocol} and the tasks {', '.join(self.tasks)} differ")
        if faults:
            raise ValueError("; ".join(faults))


def card_names() -> list[str]:
    """The cards that come with mlalign, sorted."""
    return sorted(path.stem for path in CARDS.glob("*.yaml"))


def load_card(name: str | Path) -> Card:
    """The card of that name, or in that YAML file; SettingsError with all that is wrong with it."""
    path, name = Path(name), str(name)
    if path.suffix not in (".yaml", ".yml"):
        if name not in card_names():
            raise SettingsError(
                f"no card is called {name!r}; there are: {', '.join(card_names())}; "
                f"a card of your own is given as a file, NAME.yaml"
            )
        path = CARDS / f"{name}.yaml"
    card = load_settings(Card, path)
    if card.name != path.stem:
        raise SettingsError(f"{path}: expected name: {path.stem}, as the file, got {card.name!r}")
    return card
