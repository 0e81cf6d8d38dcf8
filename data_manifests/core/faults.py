"""Collects every fault of a dataset, so that they are reported together and in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Final

from .errors import ManifestError

NUM_SHOWN: Final = 50
VALUE_LENGTH: Final = 60


@dataclass(frozen=True, slots=True)
class Place:
    """A cell, a row, a column or the whole of a table."""

    table: str
    """Name of the file: texts.parquet, captions.csv."""
    row: int | None = None
    """1-based row of a Parquet table or line of a text file."""
    column: str | None = None

    def text(self) -> str:
        row = [] if self.row is None else [row_name(self.table, self.row)]
        column = [] if self.column is None else [f"column {_bare(self.column)}"]
        return ", ".join([_bare(self.table), *row, *column])


class Faults:
    """The faults found so far: at most one for each place, the first one found."""

    def __init__(self) -> None:
        self._problems: dict[Place, str] = {}
        self._order: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._problems)

    def add(self, place: Place, problem: str) -> None:
        """Note a problem, unless this place has one already."""
        self._order.setdefault(place.table, len(self._order))
        self._problems.setdefault(place, problem)

    def add_cells(
        self,
        cells: Iterable[tuple[int, Any]],
        *,
        table: str,
        column: str,
        problem: str | Callable[[int], str],
        lines: Any,
    ) -> None:
        """Note a problem of several cells of a column.

        cells: 0-based row and value.   problem: the text, or a function from the row to it.
        lines: from 0-based row to the number that is shown.
        """
        for row, value in cells:
            said = problem if isinstance(problem, str) else problem(row)
            self.add(Place(table, int(lines[row]), column), f"{said}, got {excerpt(value)}")

    def raise_if_any(self, source: Path) -> None:
        """Raise one ManifestError with all faults, tables and rows in order."""
        if not self._problems:
            return
        places = sorted(self._problems, key=lambda p: (self._order[p.table], p.row or 0))
        count = f"{len(places):,} fault{'s' if len(places) > 1 else ''} in {source}:"
        lines = [f"{place.text()}: {self._problems[place]}" for place in places[:NUM_SHOWN]]
        if len(places) > NUM_SHOWN:
            lines.append(f"and {len(places) - NUM_SHOWN:,} more")
        raise ManifestError("\n  ".join([count, *lines]))


def row_name(table: str, row: int) -> str:
    """What a reader calls the row: of a Parquet table a row, of JSON an item, of text a line."""
    words = {".parquet": "row", ".json": "item", ".pkl": "item"}
    return f"{words.get(PurePath(table).suffix, 'line')} {row}"


def excerpt(value: Any) -> str:
    """A value for a message: shortened, with control characters escaped."""
    if value is None:
        return "nothing"
    # Cut before repr as well: a value may be megabytes long.
    text = repr(value[: 2 * VALUE_LENGTH] if isinstance(value, str) else value)
    return text if len(text) <= VALUE_LENGTH else f"{text[: VALUE_LENGTH - 3]}..."


def _bare(name: str) -> str:
    return name if name.isprintable() and len(name) <= VALUE_LENGTH else excerpt(name)
