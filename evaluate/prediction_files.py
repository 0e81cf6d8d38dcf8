"""Predictions and annotations as files: read strictly, every fault of a file in one error."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..data_manifests.errors import UserError
from ..data_manifests.faults import shown

NUM_SHOWN: Final = 200
"""Faults that are spelled out; of more the number is said."""


class PredictionError(UserError):
    """A prediction or annotation file that cannot be scored: all its faults in one message."""


class FileFaults:
    """The faults of one file, in the order found."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: list[str] = []

    def add(self, line: str) -> None:
        """Note a fault."""
        self._lines.append(line)

    def raise_if_any(self) -> None:
        """Raise one PredictionError with all of them."""
        if not self._lines:
            return
        count = f"{len(self._lines):,} fault{'s' if len(self._lines) > 1 else ''} in {self.path}:"
        rest = len(self._lines) - NUM_SHOWN
        more = [f"and {rest:,} more"] if rest > 0 else []
        raise PredictionError("\n  ".join([count, *self._lines[:NUM_SHOWN], *more]))

    def index(self, records: Iterable[Any], key: str) -> dict[str, dict[str, Any]]:
        """Records by the text of their id; notes records without one, and duplicates."""
        found: dict[str, dict[str, Any]] = {}
        for number, record in enumerate(records, start=1):
            value = record.get(key) if isinstance(record, dict) else None
            if not isinstance(value, (str, int)) or isinstance(value, bool):
                self.add(f"record {number}: expected an object with {key}, got {shown(record)}")
            elif str(value) in found:
                self.add(f"record {number}: {key} {value} is there twice")
            else:
                found[str(value)] = record
        return found

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

        Returns float64 (n,) or (n, width), empty where there was a fault.
        """
        shape = (0,) if width is None else (0, width)
        if not isinstance(value, list):
            self.add(f"{where}: expected a list, got {shown(value)}")
            return np.zeros(shape)
        rows = [[item] for item in value] if width is None else value
        wanted = "a finite number" if width is None else f"{width} finite numbers"
        is_right = True
        for number, row in enumerate(rows, start=1):
            least = 1 if width is None else width
            if not (isinstance(row, list) and len(row) >= least and all(map(_finite, row[:least]))):
                said = row[0] if width is None else row
                self.add(f"{where}, item {number}: expected {wanted}, got {shown(said)}")
                is_right = False
        if not is_right or not value:
            return np.zeros(shape)
        cut = value if width is None else [row[:width] for row in value]
        return np.array(cut, dtype=np.float64)


def read_json(path: Path) -> Any:
    """The content of a JSON file, or the list of the lines of a .jsonl file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise PredictionError(f"{path}: expected UTF-8 text: {error}") from error
    except FileNotFoundError as error:
        raise PredictionError(f"{path}: no such file") from error
    if path.suffix != ".jsonl":
        try:
            return json.loads(text)
        except ValueError as error:
            raise PredictionError(f"{path}: expected JSON: {error}") from error
    faults, records = FileFaults(path), []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                records.append(json.loads(line))
            except ValueError as error:
                faults.add(f"line {number}: expected JSON: {error}")
    faults.raise_if_any()
    return records


def read_csv(path: Path, columns: Iterable[str]) -> list[dict[str, Any]]:
    """The rows of a CSV file with a header that has at least these columns."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        absent = [name for name in columns if name not in (reader.fieldnames or ())]
        if absent:
            raise PredictionError(f"{path}: expected a header with {', '.join(absent)}")
        return list(reader)


def records_of(content: Any, path: Path) -> list[Any]:
    """The content, when it is a list."""
    if not isinstance(content, list):
        raise PredictionError(f"{path}: expected a list of records, got {shown(content)}")
    return content


def answers_of(
    content: Any, faults: FileFaults, *, key: str, fields: Iterable[str]
) -> dict[str, Any]:
    """Id -> answer, from {id: answer}, {id: {field: answer}} or a list of {key: id, field: answer}.

    The first of `fields` that a record has is its answer; None where it has none of them.
    """
    if isinstance(content, Mapping):
        records = {str(name): value for name, value in content.items()}
    elif isinstance(content, list):
        records = faults.index(content, key)
    else:
        raise PredictionError(f"{faults.path}: expected an object or a list, got {shown(content)}")
    names, answers = list(fields), {}
    for name, record in records.items():
        if isinstance(record, Mapping):
            present = [field for field in names if field in record]
            record = record[present[0]] if present else None
        answers[name] = record
    return answers


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
