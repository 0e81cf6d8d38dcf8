"""Cards for a reader: all of them as a table, one as a page."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, Final

from .cards import Card, SplitSize
from .settings import settings_dict

WIDTH: Final = 100
PROTOCOLS: Final = ("retrieval", "moments", "questions")


def card_table(cards: Sequence[Card]) -> list[str]:
    """A line for each card: its name, its tasks, the sizes of its splits."""
    rows = [["name", "task", "clips, then texts or questions, of each split"]]
    for card in cards:
        sizes = [f"{split} {_sizes(size)}" for split, size in card.splits.items()]
        rows.append([card.name, ", ".join(card.tasks).replace("_", " "), "; ".join(sizes)])
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return [f"{name:{widths[0]}}  {task:{widths[1]}}  {sizes}" for name, task, sizes in rows]


def card_page(card: Card) -> list[str]:
    """The lines of a page that says all that the card says."""
    return [
        card.title,
        "=" * len(card.title),
        f"name: {card.name}    tasks: {', '.join(card.tasks).replace('_', ' ')}",
        "",
        *_paragraph("where", card.where),
        *_paragraph("licence", card.licence),
        *_paragraph("may be passed on", "yes" if card.redistributable else "no"),
        *_section("Official files", _files(card)),
        *_section("Splits", _splits(card)),
        *_section("Protocol", _protocol(card)),
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
    for group in PROTOCOLS:
        protocol = getattr(card, group)
        if protocol is not None:
            for name, value in settings_dict(protocol).items():
                yield f"- {group}, {name.replace('_', ' ')}: {_said(value)}"


def _references(card: Card) -> Iterator[str]:
    for reference in card.references:
        numbers = ", ".join(f"{name} {value:g}" for name, value in reference.numbers.items())
        doubt = "" if reference.checked else "; from memory, not checked"
        yield f"- {reference.method}: {numbers} [{reference.source}{doubt}]"


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {_said(item)}" for name, item in value.items())
    if isinstance(value, list):
        separator = "; " if any(isinstance(item, dict) for item in value) else ", "
        return separator.join(map(_said, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value).replace("_", " ")


def _paragraph(name: str, text: str) -> list[str]:
    return textwrap.wrap(f"{name}: {text}", WIDTH, subsequent_indent="  ")


def _section(title: str, lines: Iterator[str]) -> list[str]:
    wrapped = [
        part for line in lines for part in textwrap.wrap(line, WIDTH, subsequent_indent="  ")
    ]
    return ["", title, "-" * len(title), *wrapped] if wrapped else []
