"""Cards for a reader: all of them as a table, one as a page."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

from .card import Card, SplitSize
from .scoring_rules import MomentProtocol, QuestionProtocol, RetrievalProtocol

WIDTH: Final = 100
CAPTIONS: Final = {
    "captions": "the best own caption, among all captions",
    "clips": "clips by their best caption",
}
MEDIANS: Final = {
    "mean": "the mean of the middle two",
    "lower": "the lower of the middle two, of clip to text their mean",
}
TIES: Final = {
    "against": "all equal scores rank before the right one",
    "mean": "equal scores share their mean rank",
    "first": "equal scores rank in the given order",
}
DENOMINATORS: Final = {"union": "over the union", "hull": "over the hull of both spans"}


def card_table(cards: Sequence[Card]) -> list[str]:
    """A line for each card: its name, its tasks, the sizes of its splits."""
    rows = [["name", "task", "clips, then texts or questions, of each split"]]
    for card in cards:
        sizes = [f"{split} {_sizes(size)}" for split, size in card.splits.items()]
        rows.append([card.name, ", ".join(card.tasks).replace("_", " "), "; ".join(sizes)])
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return [f"{name:{widths[0]}}  {task:{widths[1]}}  {sizes}" for name, task, sizes in rows]


def card_page(card: Card, asked: str | None = None) -> list[str]:
    """The lines of a page that says all that the card says.

    asked: what the card was asked for by, a file perhaps; None: its name.
    """
    return [
        card.title,
        "=" * len(card.title),
        f"name: {card.name}    tasks: {', '.join(card.tasks).replace('_', ' ')}",
        "",
        *_paragraph("where", card.where),
        *_paragraph("licence", card.licence),
        *_paragraph(
            "annotations may be passed on",
            "yes, under that licence" if card.redistributable else "no, or not known",
        ),
        *_section("Official files", _files(card)),
        *_section("Splits", _splits(card)),
        *_section("Protocol", _protocol(card)),
        *("", "Commands", "--------", *_commands(card, asked or card.name)),
        *_section("Published numbers", _references(card)),
        *_section("Before you compare", (f"- {note}" for note in card.notes)),
    ]


def _sizes(size: SplitSize) -> str:
    numbers = [size.clips, size.texts if size.questions is None else size.questions]
    return " / ".join("?" if number is None else f"{number:,}" for number in numbers)


def _files(card: Card) -> Iterator[str]:
    replaced = {other: file.names[0] for file in card.files.values() for other in file.instead}
    for word, file in card.files.items():
        split = "" if file.split is None else f" (split {file.split})"
        optional = "" if file.needed else ", optional"
        if word in replaced:
            optional = f", instead of {replaced[word]}"
        yield f"- {' or '.join(file.names)}{split}{optional}: {file.of}".rstrip(": ")


def _splits(card: Card) -> Iterator[str]:
    roles = {
        card.train_split: "trained on",
        card.validation_split: "chooses weights and settings",
        card.test_split: "reported",
    }
    for split, size in card.splits.items():
        counts = [
            f"{number:,} {what}"
            for number, what in (
                (size.clips, "clips"),
                (size.texts, "queries"),
                (size.questions, "questions"),
            )
            if number is not None
        ]
        role = f" ({roles[split]})" if split in roles else ""
        yield f"- {split}{role}: {', '.join(counts) or 'size not known'}"


def _protocol(card: Card) -> Iterator[str]:
    yield f"- queries: {card.queries.replace('_', ' ')}"
    if card.retrieval is not None:
        yield from (f"- retrieval: {line}" for line in _retrieval(card.retrieval))
    if card.moments is not None:
        yield from (f"- moments: {line}" for line in _moments(card.moments))
    if card.questions is not None:
        yield from (f"- questions: {line}" for line in _questions(card.questions))


def _retrieval(protocol: RetrievalProtocol) -> Iterator[str]:
    directions = " and ".join(way.replace("_", " ") for way in protocol.directions)
    yield f"{', '.join(protocol.metrics)}; {directions}"
    if "clip_to_text" in protocol.directions:
        yield f"of several captions of a clip: {CAPTIONS[protocol.several_captions]}"
    yield f"ties: {TIES[protocol.ties]}; median of an even number: {MEDIANS[protocol.median]}"


def _moments(protocol: MomentProtocol) -> Iterator[str]:
    where = "in all clips of the split" if protocol.corpus else "in its own clip"
    yield f"{', '.join(protocol.metrics)}; {where}"
    thresholds = ", ".join(f"{value:g}" for value in protocol.iou_thresholds)
    overlap = DENOMINATORS[protocol.iou_denominator]
    yield f"a hit has IoU {protocol.iou_comparison} {thresholds}, {overlap}"
    if protocol.nms_iou is None:
        yield "no suppression of overlapping predictions"
    else:
        yield f"of predictions that overlap by more than {protocol.nms_iou:g} the best one stays"
    if protocol.chunks is None:
        yield f"the best {protocol.num_predictions} predictions of a query count"
    yield f"clips are cut by {protocol.segments}, and not by the moments themselves"


def _questions(protocol: QuestionProtocol) -> Iterator[str]:
    yield f"{', '.join(protocol.metrics)}; of all, and of each type where there are types"
    for group in protocol.groups:
        yield f"{group.name} has the types {', '.join(group.types)}"
    if protocol.vocabulary is not None:
        count, min_count = protocol.vocabulary.most_frequent, protocol.vocabulary.min_count
        which = "all" if count is None else f"the {count:,} most frequent"
        often = f" that occur {min_count} times or more" if min_count > 1 else ""
        yield f"possible answers: {which} of training{often}; others count as wrong"


def _commands(card: Card, asked: str) -> Iterator[str]:
    yield f"mlalign-manifest build {shlex.quote(asked)} --annotations DIR --videos DIR -o DATASET"
    yield "mlalign-extract --manifest DATASET -o CACHE"
    if card.train_split is not None:
        yield from _command("mlalign-align CACHE -o RUN", training_settings(card))
    run = "" if card.train_split is None else " --run RUN"
    yield f"mlalign-evaluate CACHE --card {shlex.quote(asked)}{run} -o REPORT"


def _command(start: str, settings: dict[str, str]) -> Iterator[str]:
    """As a shell takes it, a setting in a line."""
    lines = [start, *(f"  --set {shlex.quote(f'{k}={v}')}" for k, v in settings.items())]
    yield from (f"{line} \\" for line in lines[:-1])
    yield lines[-1]


def training_settings(card: Card) -> dict[str, str]:
    """Which splits `mlalign-align` takes."""
    return {
        "data.train_split": card.train_split or "null",
        "data.validation_split": card.validation_split or "null",
    }


def _references(card: Card) -> Iterator[str]:
    for reference in card.references:
        numbers = "; ".join(f"{name}: {value:g}" for name, value in reference.numbers.items())
        doubt = "" if reference.checked else "; from memory, not checked"
        yield f"- {reference.method}: {numbers} [{reference.source}{doubt}]"


def _paragraph(name: str, text: str) -> list[str]:
    return textwrap.wrap(f"{name}: {text}", WIDTH, subsequent_indent="  ")


def _section(title: str, lines: Iterator[str]) -> list[str]:
    wrapped = [
        part for line in lines for part in textwrap.wrap(line, WIDTH, subsequent_indent="  ")
    ]
    return ["", title, "-" * len(title), *wrapped] if wrapped else []
