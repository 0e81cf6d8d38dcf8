"""Predictions and annotations as files: read strictly, every fault of a file in one error. Of the
annotations also what tables have no place for: annotators, saliency scores."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from ...data_manifests.cards.card import Card, ImporterName
from ...data_manifests.core.errors import UserError
from ...data_manifests.core.faults import excerpt

MAX_LISTED_FAULTS: Final = 200
"""Faults that are spelled out; of more the number is said."""


class PredictionError(UserError):
    """A prediction or annotation file that cannot be scored: all its faults in one message."""


class FileFaults:
    """The faults of one file, in the order found."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: list[str] = []
        self._num_unlisted = 0

    def add(self, line: str) -> None:
        """Note a fault."""
        if len(self._lines) < MAX_LISTED_FAULTS:
            self._lines.append(line)
        else:
            self._num_unlisted += 1

    def add_unlisted(self, count: int) -> None:
        """Note faults of which only the number is said: those after MAX_LISTED_FAULTS others."""
        self._num_unlisted += count

    def raise_if_any(self) -> None:
        """Raise one PredictionError with all of them."""
        count = len(self._lines) + self._num_unlisted
        if not count:
            return
        heading = f"{count:,} fault{'s' if count > 1 else ''} in {self.path}:"
        more = [f"and {self._num_unlisted:,} more"] if self._num_unlisted else []
        raise PredictionError("\n  ".join([heading, *self._lines, *more]))

    def index(self, records: Iterable[Any], key: str) -> dict[str, dict[str, Any]]:
        """Records by the text of their id; notes records without one, and duplicates."""
        by_id: dict[str, dict[str, Any]] = {}
        for number, record in enumerate(records, start=1):
            value = record.get(key) if isinstance(record, dict) else None
            if not isinstance(value, (str, int)) or isinstance(value, bool):
                self.add(f"record {number}: expected an object with {key}, got {excerpt(record)}")
            elif str(value) in by_id:
                self.add(f"record {number}: {key} {value} is there twice")
            else:
                by_id[str(value)] = record
        return by_id

    def match(self, predicted: Iterable[str], expected: Iterable[str], *, what: str) -> list[str]:
        """The expected ids that are predicted, in order; notes missing and unknown ones."""
        there, wanted = set(predicted), list(expected)
        for name in wanted:
            if name not in there:
                self.add(f"{what} {name}: missing")
        for name in sorted(there - set(wanted)):
            self.add(f"{what} {name}: unknown, the annotations have no such id")
        return [name for name in wanted if name in there]

    def numbers(self, value: Any, *, where: str, width: int | None = None) -> np.ndarray:
        """A list of finite numbers, or of lists of `width` of them or more (cut to `width`).

        What is cut may be anything but NaN or infinite: a score of a model that has gone wrong.
        Returns float64 (n,) or (n, width), empty where there was a fault.
        """
        shape = (0,) if width is None else (0, width)
        if not isinstance(value, list):
            self.add(f"{where}: expected a list, got {excerpt(value)}")
            return np.zeros(shape)
        rows = [[item] for item in value] if width is None else value
        wanted = "a finite number" if width is None else f"{width} finite numbers"
        is_right = True
        for number, row in enumerate(rows, start=1):
            num_wanted = 1 if width is None else width
            is_right_row = isinstance(row, list) and len(row) >= num_wanted
            if (
                not is_right_row
                or not all(map(is_finite, row[:num_wanted]))
                or any(map(_is_not_finite, row))
            ):
                shown_value = row[0] if width is None else row
                self.add(f"{where}, item {number}: expected {wanted}, got {excerpt(shown_value)}")
                is_right = False
        if not is_right or not value:
            return np.zeros(shape)
        cut = value if width is None else [row[:width] for row in value]
        return np.array(cut, dtype=np.float64)

    def add_wrong_option(self, value: Any, *, where: str, num_options: int) -> None:
        """Note a value that is no option."""
        wanted = f"an option's index from 0 to {num_options - 1}"
        self.add(f"{where}: expected {wanted}, got {excerpt(value)}")


def read_json(path: Path, *, faults: FileFaults | None = None) -> Any:
    """The content of a JSON file, or the list of the lines of a .jsonl file.

    faults: takes note of keys that an object has twice, of which the last one's value counts; None
    for official files, which are taken as their scorers take them.
    """
    text = _read_text(path)
    if path.suffix != ".jsonl":
        try:
            return _parse(text, "", faults)
        except (ValueError, RecursionError) as error:
            raise PredictionError(f"{path}: expected JSON: {error}") from error
    unreadable, records = FileFaults(path), []
    # Not splitlines, which splits at the separators that a text in JSON may hold as they are, too.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                records.append(_parse(line, f"line {number}: ", faults))
            except (ValueError, RecursionError) as error:
                unreadable.add(f"line {number}: expected JSON: {error}")
    unreadable.raise_if_any()
    return records


def read_annotations(
    path: Path, key: str, *, numbered_with: str | None = None
) -> dict[str, dict[str, Any]]:
    """The records of an official file by the text of their id; PredictionError without any.

    numbered_with: a record that has this and no id has its number in the file, from 0.
    """
    faults = FileFaults(path)
    records = records_of(read_json(path), path)
    if numbered_with is not None:
        records = [
            {key: number, **record}
            if isinstance(record, dict) and numbered_with in record
            else record
            for number, record in enumerate(records)
        ]
    annotations = faults.index(records, key)
    faults.raise_if_any()
    if not annotations:
        raise PredictionError(f"{path}: expected annotations, got an empty list")
    return annotations


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, without the empty one after its last line end."""
    return _read_text(path).removesuffix("\n").split("\n")


def read_csv(path: Path, columns: Iterable[str]) -> list[dict[str, Any]]:
    """The rows of a CSV file with a header that has at least these columns, none of them short."""
    names = list(columns)
    reader = csv.DictReader(io.StringIO(_read_text(path, newline=""), newline=""))
    try:
        rows = list(reader)
    except csv.Error as error:
        raise PredictionError(f"{path}: expected CSV: {error}") from error
    absent = [name for name in names if name not in (reader.fieldnames or ())]
    if absent:
        raise PredictionError(f"{path}: expected a header with {', '.join(absent)}")
    if not rows:
        raise PredictionError(f"{path}: expected annotations, got a header alone")
    faults = FileFaults(path)
    for number, row in enumerate(rows, start=1):
        if any(row[name] is None for name in names):
            faults.add(f"record {number}: expected {', '.join(names)}, got {excerpt(row)}")
    faults.raise_if_any()
    return rows


def records_of(content: Any, path: Path) -> list[Any]:
    """The content, when it is a list."""
    if not isinstance(content, list):
        raise PredictionError(f"{path}: expected a list of records, got {excerpt(content)}")
    return content


def answers_of(
    content: Any, faults: FileFaults, *, key: str, fields: Iterable[str]
) -> dict[str, Any]:
    """Id -> answer, from {id: answer}, {id: {field: answer}} or a list of {key: id, field: answer}.

    The first of `fields` that any record has is the answer of all, since another one may be the
    truth that a file carries along; None where a record lacks it.
    """
    if isinstance(content, Mapping):
        records = {str(name): value for name, value in content.items()}
    elif isinstance(content, list):
        records = faults.index(content, key)
    else:
        raise PredictionError(
            f"{faults.path}: expected an object or a list, got {excerpt(content)}"
        )
    several = [record for record in records.values() if isinstance(record, Mapping)]
    present = [field for field in fields if any(field in record for record in several)]
    field = present[0] if present else None
    return {
        name: record.get(field) if isinstance(record, Mapping) else record
        for name, record in records.items()
    }


def is_option(value: Any, *, num_options: int) -> bool:
    """Whether a value is the index of one of the options; true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < num_options


def is_finite(value: Any) -> bool:
    """Whether a value of JSON is a number, and no NaN or infinity."""
    # Whole numbers may be too large for a float, which math.isfinite would not survive.
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and abs(value) <= sys.float_info.max


def _is_not_finite(value: Any) -> bool:
    """Whether a value is NaN or infinite."""
    return isinstance(value, float) and not math.isfinite(value)


def _read_text(path: Path, *, newline: str | None = None) -> str:
    try:
        with path.open(encoding="utf-8-sig", newline=newline) as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise PredictionError(f"{path}: expected UTF-8 text: {error}") from error
    except FileNotFoundError as error:
        raise PredictionError(f"{path}: no such file") from error


def _parse(text: str, where: str, faults: FileFaults | None) -> Any:
    """JSON; notes keys that an object has twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if faults is not None and len(content) < len(pairs):
            seen = set()
            for key, _ in pairs:
                if key in seen:
                    faults.add(f"{where}{excerpt(key)} is there twice in one object")
                seen.add(key)
        return content

    return json.loads(text, object_pairs_hook=unique)


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
