"""Reads official files as users download them: JSON, JSON Lines, CSV, lists, pickled captions."""

from __future__ import annotations

import csv
import io
import json
import pickle
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ..cards.card import Card, OfficialFile
from ..core.errors import ManifestError
from ..core.faults import Place, excerpt
from ..tables.text_tables import decoded_text
from .row_log import Broken, Row, RowLog

UNREADABLE: Final = (ValueError, RecursionError)


class OfficialFiles:
    """The files of a card in a folder, read through a row_log that counts every row."""

    def __init__(self, card: Card, folder: Path, row_log: RowLog) -> None:
        """Raises ManifestError when files are missing without which nothing can be built."""
        if not folder.is_dir():
            raise ManifestError(f"the folder of the annotations does not exist: {folder}")
        self._row_log = row_log
        self.paths = locate_files(card.files, folder)
        """The files that are there, by the card's word for each."""
        self.splits, self.absent = _splits(card, self.paths)
        """The splits that can be built, and for each other one the names of the missing files."""
        if not self.splits:
            names = "; ".join(
                f"{split}: {', '.join(files)}" for split, files in self.absent.items()
            )
            raise ManifestError(
                f"{folder} lacks official files of {card.name}: {names}{_elsewhere(card, folder)}"
            )

    def has(self, word: str) -> bool:
        """Whether the file is there."""
        return word in self.paths

    def json(self, word: str) -> Any:
        """The content of a JSON file; None, and a fault, when it is none."""
        path = self.paths[word]
        text = decoded_text(path, self._row_log.faults)
        if not text:
            self._fault(path, "expected JSON, the file is empty")
            return None
        try:
            return _parsed(text)
        except json.JSONDecodeError as error:
            # An item's number is what faults of JSON show, so the line is said in words.
            self._fault(path, f"not valid JSON (line {error.lineno}: {error.msg})")
        except UNREADABLE as error:
            self._fault(path, f"not valid JSON ({error})")
        return None

    def items(self, word: str) -> Iterator[Row]:
        """A row for each item of a JSON list."""
        return self.rows(word, self.listed(word, self.json(word)))

    def listed(self, word: str, content: Any) -> list[tuple[int, Any]]:
        """The items of a list, numbered from 1; nothing, and a fault, where it is none."""
        if not isinstance(content, list):
            self._unexpected(word, "a list of records", content)
            return []
        return list(enumerate(content, start=1))

    def entries(self, word: str) -> list[tuple[str, Any]]:
        """Name and value of each entry of a JSON object; not counted as rows."""
        content = self.json(word)
        if not isinstance(content, dict):
            self._unexpected(word, "an object", content)
            return []
        return list(content.items())

    def json_lines(self, word: str) -> Iterator[Row]:
        """A row for each line; lines that are blank are skipped, others than objects refused."""
        path = self.paths[word]
        lines = decoded_text(path, self._row_log.faults).split("\n")
        for row in self.rows(word, _numbered(lines)):
            try:
                row.value = _parsed(row.value)
            except UNREADABLE as error:
                reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
                row.value = Broken(f"not valid JSON ({reason}), got {excerpt(row.value)}")
            yield row

    def lines(self, word: str) -> Iterator[Row]:
        """A row for each line that is not blank, as text without its line end."""
        text = decoded_text(self.paths[word], self._row_log.faults)
        return self.rows(word, _numbered(text.split("\n")))

    def fields(
        self, word: str, *, widths: Sequence[int], delimiter: str = ",", quoted: bool = True
    ) -> Iterator[Row]:
        """A row of fields for each line of a table without header, of one of the widths.

        quoted: whether quotes around a field, and doubled ones in it, are those of CSV.
        """
        for row in self.rows(word, self._table(word, delimiter, quoted=quoted)):
            if not isinstance(row.value, Broken) and len(row.value) not in widths:
                expected = " or ".join(map(str, widths))
                row.value = Broken(
                    f"expected {expected} values in the line, got {len(row.value)}: "
                    f"{excerpt(delimiter.join(row.value))}"
                )
            yield row

    def records(self, word: str, columns: Sequence[str]) -> Iterator[Row]:
        """A row for each line of a CSV with a header that has at least these columns."""
        path = self.paths[word]
        lines = list(self._table(word, ",", quoted=True))
        if not lines:
            self._fault(path, f"expected a header with {', '.join(columns)}, the file is empty")
            return iter(())
        line, header = lines[0]
        absent = [name for name in columns if isinstance(header, Broken) or name not in header]
        if absent:
            problem = f"expected a header with {', '.join(columns)}; without {', '.join(absent)}"
            self._row_log.faults.add(Place(path.name, line), problem)
            return iter(())
        named = ((number, _record(header, values)) for number, values in lines[1:])
        return self.rows(word, named)

    def pickled(self, word: str) -> Any:
        """The content of a pickle of dicts, lists, texts and numbers; nothing else is loaded."""
        path = self.paths[word]
        try:
            return _PlainUnpickler(io.BytesIO(path.read_bytes()), encoding="utf-8").load()
        except Exception as error:  # a broken pickle raises whatever its bytes spell
            self._fault(path, f"not a pickle of captions ({type(error).__name__}: {error})")
        return None

    def rows(self, word: str, items: Iterable[tuple[int, Any]]) -> Iterator[Row]:
        """A counted row for each numbered item of the file."""
        return self._row_log.rows(self.paths[word].name, items)

    def _table(self, word: str, delimiter: str, *, quoted: bool) -> Iterator[tuple[int, Any]]:
        text = decoded_text(self.paths[word], self._row_log.faults)
        reader = csv.reader(
            io.StringIO(text, newline=""),
            delimiter=delimiter,
            quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
            strict=quoted,
        )
        end = 0
        while True:
            line = end + 1
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield line, Broken(f"not valid CSV: {error}")
                end = reader.line_num
                continue
            end = reader.line_num
            if any(value.strip() for value in values):
                yield line, values

    def _unexpected(self, word: str, wanted: str, content: Any) -> None:
        if content is not None:
            self._fault(self.paths[word], f"expected {wanted}, got {excerpt(content)}")

    def _fault(self, path: Path, problem: str) -> None:
        self._row_log.fault(path.name, problem)


def locate_files(files: Mapping[str, OfficialFile], folder: Path) -> dict[str, Path]:
    """The files that are in the folder, under the first of their names that is there."""
    paths = {}
    for word, file in files.items():
        there = [folder / name for name in file.names if (folder / name).exists()]
        if there:
            paths[word] = there[0]
    return paths


def _is_there(word: str, split: str, card: Card, paths: Mapping[str, Path]) -> bool:
    """Whether the file is there, or what stands for it in the split, or it may be missing."""
    file = card.files[word]
    others = [other for other in file.instead if card.files[other].split in (None, split)]
    is_replaced = bool(others) and all(other in paths for other in others)
    return not file.needed or word in paths or is_replaced


def _elsewhere(card: Card, folder: Path) -> str:
    """Which folders below, one deep, have some of the files."""
    below = [path for path in sorted(folder.iterdir()) if path.is_dir()]
    folders = [str(path) for path in below if locate_files(card.files, path)]
    return f" (some are in {', '.join(folders)})" if folders else ""


class _PlainUnpickler(pickle._Unpickler):
    """Without classes and functions; in Python, since the C one takes memory that a file claims."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it wants to load {module}.{name}")


def _record(header: Sequence[str], values: Any) -> Any:
    if isinstance(values, Broken):
        return values
    if len(values) != len(header):
        return Broken(f"expected {len(header)} values, as in the header, got {len(values)}")
    return dict(zip((name.strip() for name in header), values, strict=True))


def _numbered(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield number, line.rstrip("\r")


def _parsed(text: str) -> Any:
    return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_distinct_entries)


def _distinct_entries(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object; JSON takes the last of two entries of one name, and the first would be lost."""
    entries = dict(pairs)
    if len(entries) < len(pairs):
        twice = next(
            name for name, count in Counter(name for name, _ in pairs).items() if count > 1
        )
        raise ValueError(f"{excerpt(twice)} is there twice in one object")
    return entries


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _splits(
    card: Card, paths: Mapping[str, Path]
) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """The card's splits whose files are there, and of the others the names of what is missing."""
    there, absent = [], {}
    for split in card.splits:
        missing = tuple(
            file.names[0]
            for word, file in card.files.items()
            if file.split in (None, split) and not _is_there(word, split, card, paths)
        )
        if missing:
            absent[split] = missing
        else:
            there.append(split)
    return tuple(there), absent
