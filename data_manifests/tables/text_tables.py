"""Reads the columns of a JSON Lines or CSV file, noting the lines that do not fit."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..core.faults import Faults, Place, excerpt

Columns = tuple[dict[str, pa.Array], np.ndarray]
"""Columns by name, each in the type of its field, and (num_rows,) int64 line of each row."""


def decoded_text(path: Path, faults: Faults) -> str:
    """The file as text, or nothing and a fault; bytes that are not UTF-8 are one of their line."""
    try:
        data = path.read_bytes()
    except OSError as error:
        faults.add(Place(path.name), f"cannot be read: {error.strerror}")
        return ""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        faults.add(Place(path.name, line), "not UTF-8 text; save the file as UTF-8")
        return ""


def read_jsonl(path: Path, schema: pa.Schema, faults: Faults) -> Columns:
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    seen: set[str] = set()
    # Not splitlines(): it also breaks at characters that JSON allows inside a string.
    for line, text in enumerate(decoded_text(path, faults).split("\n"), start=1):
        text = text.strip()
        if not text:
            continue
        try:
            row = json.loads(text, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            faults.add(Place(path.name, line), f"not valid JSON ({reason}), got {excerpt(text)}")
            continue
        if not isinstance(row, dict):
            faults.add(Place(path.name, line), f"expected an object {{...}}, got {excerpt(text)}")
            continue
        rows.append(row)
        lines.append(line)
        if not seen.issuperset(row):
            new = [name for name in row if name not in seen]
            note_unknown_columns(new, schema, faults, file=path.name, line=line)
            seen.update(new)
    numbers = np.array(lines, dtype=np.int64)
    columns = {}
    for field in schema:
        if field.name in seen:
            values = [row.get(field.name) for row in rows]
            columns[field.name] = _array(values, field, faults, file=path.name, lines=numbers)
    return columns, numbers


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError("a key is given twice")
    return row


def read_csv(path: Path, schema: pa.Schema, faults: Faults) -> Columns:
    text = decoded_text(path, faults)
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    header: list[str] = []
    rows: list[list[str]] = []
    lines: list[int] = []
    end = 0
    while True:
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            faults.add(Place(path.name, end + 1), f"not valid CSV: {error}")
            break
        line, end = end + 1, reader.line_num
        if not row:
            continue
        if not header:
            header = [name.strip() for name in row]
            note_unknown_columns(header, schema, faults, file=path.name, line=line)
            for name in {name for name in header if header.count(name) > 1}:
                faults.add(Place(path.name, line, name), "this column is given twice")
        elif len(row) != len(header):
            problem = f"expected {len(header)} values, as in the first line, got {len(row)}"
            faults.add(Place(path.name, line), problem)
        else:
            rows.append(row)
            lines.append(line)
    numbers = np.array(lines, dtype=np.int64)
    columns = {}
    for field in schema:
        if field.name in header:
            index = header.index(field.name)
            values = [_csv_value(row[index], field.type) for row in rows]
            columns[field.name] = _array(values, field, faults, file=path.name, lines=numbers)
    return columns, numbers


def _csv_value(text: str, kind: pa.DataType) -> Any:
    """The value of a cell; what is not of the kind stays text, and is then a fault."""
    if not text.strip():
        return None
    if pa.types.is_floating(kind) and "_" not in text:  # Python reads 1_000 as a number
        try:
            return float(text)
        except ValueError:
            return text
    return text


def _array(
    values: list[Any], field: pa.Field, faults: Faults, *, file: str, lines: np.ndarray
) -> pa.Array:
    """The values as an Arrow array; those of a wrong type are faults, and null."""
    kinds: dict[str, set[type]] = {
        "string": {str, type(None)},
        "double": {int, float, type(None)},
        "int64": {int, type(None)},
    }
    try:
        if set(map(type, values)) <= kinds.get(str(field.type), set()):
            return pa.array(values, field.type)
    except (pa.ArrowInvalid, OverflowError, UnicodeEncodeError):
        pass  # some value does not fit after all: find which
    fitting = [_fits(value, field.type) for value in values]
    wrong = ((row, values[row]) for row, fits in enumerate(fitting) if not fits)
    problem = f"expected {kind_name(field.type)}"
    faults.add_cells(wrong, table=file, column=field.name, problem=problem, lines=lines)
    kept = [value if fits else None for value, fits in zip(values, fitting, strict=True)]
    return pa.array(kept, field.type)


def _fits(value: Any, kind: pa.DataType) -> bool:
    if value is None:
        return True
    if isinstance(value, bool):
        return False
    if pa.types.is_list(kind):
        return isinstance(value, list) and all(
            item is not None and _fits(item, kind.value_type) for item in value
        )
    if isinstance(value, str) != pa.types.is_string(kind):
        return False
    if pa.types.is_int64(kind) and isinstance(value, float) and not value.is_integer():
        return False
    try:
        pa.scalar(value, kind)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError, TypeError):
        return False
    return True


def kind_name(kind: pa.DataType) -> str:
    """What a column holds, in words."""
    if pa.types.is_list(kind):
        return "a list of text"
    if pa.types.is_int64(kind):
        return "a whole number"
    return "text" if pa.types.is_string(kind) else "a number"


def note_unknown_columns(
    names: Sequence[str], schema: pa.Schema, faults: Faults, *, file: str, line: int | None
) -> None:
    """A fault for each column that the schema does not have."""
    for name in names:
        if name not in schema.names:
            faults.add(
                Place(file, line, name), f"unknown column; there are: {', '.join(schema.names)}"
            )
