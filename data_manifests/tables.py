"""Reads one table (Parquet, JSON Lines or CSV) into its Arrow schema, noting what does not fit."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .faults import Faults, Place, shown


@dataclass(frozen=True, kw_only=True, slots=True)
class TableRows:
    """A table in its schema, not yet checked: what was missing or of a wrong type is null."""

    file: str
    """Name of the file it came from, as faults show it."""
    table: pa.Table
    """All columns of the schema, in its order."""
    lines: np.ndarray
    """(num_rows,) int64, 1-based row (Parquet) or line of the file, as faults show it."""
    missing: tuple[str, ...] = ()
    """Columns of the schema that the file lacks or holds in a wrong type: all null here."""

    @classmethod
    def of(cls, table: pa.Table, *, file: str, missing: tuple[str, ...] = ()) -> TableRows:
        """A table that is already in its schema, numbered from 1."""
        lines = np.arange(1, table.num_rows + 1)
        return cls(file=file, table=table, lines=lines, missing=missing)


def read_table(path: Path, schema: pa.Schema, faults: Faults, *, optional: set[str]) -> TableRows:
    """The table in `path`, by its ending: .parquet, .jsonl or .csv.

    optional: columns that may be left out. Unknown columns, missing ones, unreadable rows and
    values of a wrong type go to `faults`.
    """
    try:
        if path.suffix.lower() == ".parquet":
            columns, lines = _parquet_columns(path, schema, faults)
        else:
            read = _read_csv if path.suffix.lower() == ".csv" else _read_jsonl
            columns, lines = read(path, schema, faults)
    except OSError as error:
        faults.add(Place(path.name), f"cannot be read: {error.strerror or error}")
        columns, lines = {}, np.zeros(0, dtype=np.int64)
        optional = set(schema.names)
    missing = tuple(name for name in schema.names if name not in columns)
    for name in missing:
        if name not in optional and len(lines):
            faults.add(Place(path.name, None, name), "this column is required, but is missing")
    arrays = [columns.get(f.name, pa.nulls(len(lines), f.type)) for f in schema]
    table = pa.table(arrays, schema=pa.schema([f.with_nullable(True) for f in schema]))
    return TableRows(file=path.name, table=table, lines=lines, missing=missing)


def _unknown_columns(
    names: Sequence[str], schema: pa.Schema, faults: Faults, *, file: str, line: int | None
) -> None:
    for name in names:
        if name not in schema.names:
            faults.add(
                Place(file, line, name), f"unknown column; there are: {', '.join(schema.names)}"
            )


def _parquet_columns(
    path: Path, schema: pa.Schema, faults: Faults
) -> tuple[dict[str, pa.Array], np.ndarray]:
    try:
        # partitioning=None: a folder called split=train above must not become a column.
        table = pq.read_table(path, partitioning=None)
        table.validate(full=True)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise OSError(f"not a sound Parquet file ({str(error).splitlines()[0]})") from error
    lines = np.arange(1, table.num_rows + 1)
    _unknown_columns(table.column_names, schema, faults, file=path.name, line=None)
    columns = {}
    for field in schema:
        if field.name in table.column_names:
            found = table.column(field.name).combine_chunks()
            column = _cast(found, field, faults, file=path.name, lines=lines)
            if column is not None:
                columns[field.name] = column
    return columns, lines


def _cast(
    found: pa.Array, field: pa.Field, faults: Faults, *, file: str, lines: np.ndarray
) -> pa.Array | None:
    """The column in the field's type, or None and a fault when it means something else."""
    if pa.types.is_dictionary(found.type):
        found = found.dictionary_decode()
    if pa.types.is_int64(field.type) and pa.types.is_floating(found.type):
        # pandas keeps whole numbers with gaps as floats.
        whole = np.asarray(pc.fill_null(pc.equal(pc.floor(found), found), True))
        whole &= np.asarray(pc.fill_null(pc.less(pc.abs(found), 2.0**53), True))
        rows = np.nonzero(~whole)[0]
        cells = zip(rows.tolist(), found.take(rows).to_pylist(), strict=True)
        faults.add_cells(
            cells, table=file, column=field.name, problem="expected a whole number", lines=lines
        )
        found = pc.if_else(whole, found, None)
    try:
        if _is_kin(found.type, field.type):
            return found.cast(field.type)
    except pa.ArrowInvalid:
        pass
    faults.add(
        Place(file, None, field.name), f"expected {_kind(field.type)}, the column is {found.type}"
    )
    return None


def _is_kin(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether every value of one type means the same in the other (Arrow also casts 1 to "1")."""
    types = pa.types
    if types.is_null(found):
        return True
    if types.is_string(wanted):
        return bool(
            types.is_string(found) or types.is_large_string(found) or types.is_string_view(found)
        )
    if types.is_list(wanted):
        is_list = (
            types.is_list(found) or types.is_large_list(found) or types.is_fixed_size_list(found)
        )
        return is_list and _is_kin(found.value_type, wanted.value_type)
    return bool(types.is_floating(found) or types.is_integer(found))


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


def _read_jsonl(
    path: Path, schema: pa.Schema, faults: Faults
) -> tuple[dict[str, pa.Array], np.ndarray]:
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
            faults.add(Place(path.name, line), f"not valid JSON ({reason}), got {shown(text)}")
            continue
        if not isinstance(row, dict):
            faults.add(Place(path.name, line), f"expected an object {{...}}, got {shown(text)}")
            continue
        rows.append(row)
        lines.append(line)
        if not seen.issuperset(row):
            new = [name for name in row if name not in seen]
            _unknown_columns(new, schema, faults, file=path.name, line=line)
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


def _read_csv(
    path: Path, schema: pa.Schema, faults: Faults
) -> tuple[dict[str, pa.Array], np.ndarray]:
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
            _unknown_columns(header, schema, faults, file=path.name, line=line)
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
    problem = f"expected {_kind(field.type)}"
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


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return "a list of text"
    if pa.types.is_int64(kind):
        return "a whole number"
    return "text" if pa.types.is_string(kind) else "a number"
