"""What became of every row of the official files: written, left out or refused; and every mend."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NoReturn

from ..core.faults import Faults, Place, excerpt

Outcome = Literal["written", "left_out", "refused"]
NUM_EXAMPLES: Final = 5


@dataclass(frozen=True, slots=True)
class Broken:
    """In place of a row's value that could not be read."""

    problem: str


class RowEnded(Exception):
    """The row has been left out or refused: its handling stops here."""


@dataclass(kw_only=True, slots=True)
class Counted:
    """How often something was done, and the first places."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, example: str) -> None:
        """Once more."""
        self.count += 1
        if len(self.examples) < NUM_EXAMPLES:
            self.examples.append(example)


class RowLog:
    """Counts per file: rows read = written + left out + refused."""

    def __init__(self) -> None:
        self.read: Counter[str] = Counter()
        self.outcomes: dict[Outcome, Counter[str]] = {
            "written": Counter(),
            "left_out": Counter(),
            "refused": Counter(),
        }
        self.left_out: dict[str, Counted] = {}
        """By reason."""
        self.mended: dict[str, Counted] = {}
        """By what was mended; a row may have several mends."""
        self.faults = Faults()
        """Of refused rows and unreadable files: nothing is written when there are any."""

    def rows(self, file: str, items: Iterable[tuple[int, Any]]) -> Iterator[Row]:
        """A row for each pair of a line and what stands there; counted as read."""
        for line, value in items:
            self.read[file] += 1
            yield Row(self, file, line, value)

    def each(self, rows: Iterable[Row], handle: Callable[[Row], object]) -> None:
        """Handle every row; one that was left out or refused does not stop the others."""
        for row in rows:
            try:
                if isinstance(row.value, Broken):
                    row.refuse(row.value.problem)
                handle(row)
            except RowEnded:
                continue
            assert row.outcome is not None, f"{row.place()} was not accounted for"

    def fault(self, file: str, problem: str) -> None:
        """Note what is wrong with a whole file."""
        self.faults.add(Place(file), problem)

    def balance(self) -> None:
        """Assert that every row read has one outcome."""
        for file, count in self.read.items():
            parts = {name: counted[file] for name, counted in self.outcomes.items()}
            assert count == sum(parts.values()), f"{file}: {count} rows read, but {parts}"


class Row:
    """One row of an official file, with typed access: what does not fit is a fault of the row."""

    __slots__ = ("_row_log", "file", "line", "outcome", "value")

    def __init__(self, row_log: RowLog, file: str, line: int, value: Any) -> None:
        self._row_log = row_log
        self.file = file
        self.line = line
        self.value = value
        self.outcome: Outcome | None = None

    def place(self) -> str:
        """FILE:LINE (of a JSON list: the item, from 1)."""
        return f"{self.file}:{self.line}"

    def written(self) -> None:
        """The row is in the tables (several uses of a row count once)."""
        self._end("written")

    def leave_out(self, reason: str, value: Any = None) -> NoReturn:
        """The row is not wanted, or cannot be used as the literature uses it; ends its handling."""
        self._note(self._row_log.left_out, reason, value)
        self._end("left_out")
        raise RowEnded

    def mend(self, what: str, value: Any) -> None:
        """What is plainly meant is taken for what stands there, `value`."""
        self._note(self._row_log.mended, what, value)

    def refuse(self, problem: str, *, key: str | None = None) -> NoReturn:
        """The row is wrong; ends its handling, and later the build."""
        self._row_log.faults.add(Place(self.file, self.line, key), problem)
        self._end("refused")
        raise RowEnded

    def has(self, key: str) -> bool:
        """Whether the row is an object with a value (not null) under the key."""
        return isinstance(self.value, dict) and self.value.get(key) is not None

    def get(self, key: str | int) -> Any:
        """The value under a key (of an object) or at a place (of a line's fields), not null."""
        if isinstance(key, int):
            return self.value[key]
        if not isinstance(self.value, dict):
            self.refuse(f"expected an object, got {excerpt(self.value)}")
        value = self.value.get(key)
        if value is None:
            self.refuse("a value is required, got nothing", key=key)
        return value

    def words(self, key: str | int) -> str:
        """A sentence; blanks around it and line ends in it are mended, an empty one is refused."""
        return self.sentence(self.get(key), key)

    def sentence(self, value: Any, key: str | int) -> str:
        """`value` as a sentence; see `words`."""
        if not isinstance(value, str):
            self.refuse(f"expected text, got {excerpt(value)}", key=str(key))
        text = self.characters(value)
        stripped = " ".join(text.split("\n")).strip() if "\n" in text else text.strip()
        if not stripped:
            self.refuse(f"a text is required, got {excerpt(value)}", key=str(key))
        if stripped != text:
            self.mend("blanks around a text, or line ends in it, taken off", value)
        return stripped

    def characters(self, value: str) -> str:
        """The text without lone surrogates, which JSON can spell but no table holds; mended."""
        text = value.encode("utf-8", "replace").decode("utf-8")
        if text != value:
            self.mend("characters that are no text became question marks", value)
        return text

    def name(self, key: str | int) -> str:
        """An id: text or a whole number."""
        return self.as_name(self.get(key), key)

    def as_name(self, value: Any, key: str | int) -> str:
        """`value`, such as the key of an entry, as an id; see `name`."""
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str) or not value.strip() or not value.isprintable():
            self.refuse(f"expected an id, got {excerpt(value)}", key=str(key))
        if value != value.strip():
            self.mend("blanks around an id taken off", value)
        return value.strip()

    def number(self, key: str | int) -> float:
        """A finite number; one in quotes is mended in JSON (in other files all are text)."""
        return self.as_number(self.get(key), key)

    def as_number(self, value: Any, key: str | int) -> float:
        """`value` as a number; see `number`."""
        number = self.parsed(value, key)
        if isinstance(value, str) and self.file.endswith((".json", ".jsonl")):
            self.mend("numbers in quotes read as numbers", value)
        return number

    def parsed(self, value: Any, key: str | int) -> float:
        """`value` as a number, where text is what it should be."""
        number = _number(value)
        if number is None:
            self.refuse(f"expected a finite number, got {excerpt(value)}", key=str(key))
        return number

    def integer(self, key: str | int) -> int:
        """A whole number; see `number`."""
        number = self.number(key)
        if not number.is_integer() or abs(number) > 2**53:
            self.refuse(f"expected a whole number, got {excerpt(self.get(key))}", key=str(key))
        return int(number)

    def items(self, key: str) -> list[Any]:
        """A list."""
        value = self.get(key)
        if not isinstance(value, list):
            self.refuse(f"expected a list, got {excerpt(value)}", key=key)
        return value

    def sentences(self, key: str) -> list[str]:
        """A list of sentences; see `words`."""
        return [self.sentence(item, key) for item in self.items(key)]

    def pair(self, value: Any, key: str) -> tuple[float, float]:
        """Two numbers."""
        if not isinstance(value, list) or len(value) != 2:
            self.refuse(f"expected two numbers, got {excerpt(value)}", key=key)
        return self.as_number(value[0], key), self.as_number(value[1], key)

    def _note(self, notes: dict[str, Counted], what: str, value: Any) -> None:
        example = "" if value is None else f" {excerpt(value)}"
        notes.setdefault(what, Counted()).add(f"{self.place()}{example}")

    def _end(self, outcome: Outcome) -> None:
        if self.outcome is None:
            self._row_log.outcomes[outcome][self.file] += 1
        elif self.outcome != outcome:
            # Used already, and then found wanting: what counts is that it is reported.
            self._row_log.outcomes[self.outcome][self.file] -= 1
            self._row_log.outcomes[outcome][self.file] += 1
        self.outcome = outcome


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and ("_" in value or not value.isascii()):
        return None  # Python reads 1_000 as a number
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) <= 1e15 else None  # neither infinite nor NaN
