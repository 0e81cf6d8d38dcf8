"""Reads one table (Parquet, JSON Lines or CSV) into its Arrow schema, noting what does not fit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..core.faults import Faults, Place
from .text_tables import Columns, kind_name, note_unknown_columns, read_csv, read_jsonl


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
            read = read_csv if path.suffix.lower() == ".csv" else read_jsonl
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


def _parquet_columns(path: Path, schema: pa.Schema, faults: Faults) -> Columns:
    try:
        # An open file: pyarrow takes a path with a colon in it for an address, and makes a column
        # of a folder called split=train.
        with path.open("rb") as file:
            table = pq.read_table(file)
        table.validate(full=True)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise OSError(f"not a sound Parquet file ({str(error).splitlines()[0]})") from error
    lines = np.arange(1, table.num_rows + 1)
    note_unknown_columns(table.column_names, schema, faults, file=path.name, line=None)
    columns = {}
    for field in schema:
        if field.name in table.column_names:
            values = table.column(field.name).combine_chunks()
            column = _cast(values, field, faults, file=path.name, lines=lines)
            if column is not None:
                columns[field.name] = column
    return columns, lines


def _cast(
    column: pa.Array, field: pa.Field, faults: Faults, *, file: str, lines: np.ndarray
) -> pa.Array | None:
    """The column in the field's type, or None and a fault when it means something else."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_int64(field.type) and pa.types.is_floating(column.type):
        # pandas keeps whole numbers with gaps as floats.
        whole = np.asarray(pc.fill_null(pc.equal(pc.floor(column), column), True))
        whole &= np.asarray(pc.fill_null(pc.less(pc.abs(column), 2.0**53), True))
        rows = np.nonzero(~whole)[0]
        cells = zip(rows.tolist(), column.take(rows).to_pylist(), strict=True)
        faults.add_cells(
            cells, table=file, column=field.name, problem="expected a whole number", lines=lines
        )
        column = pc.if_else(whole, column, None)
    try:
        if _is_kin(column.type, field.type):
            return column.cast(field.type)
    except pa.ArrowInvalid:
        pass
    faults.add(
        Place(file, None, field.name),
        f"expected {kind_name(field.type)}, the column is {column.type}",
    )
    return None


def _is_kin(actual: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether every value of one type means the same in the other (Arrow also casts 1 to "1")."""
    types = pa.types
    if types.is_null(actual):
        return True
    if types.is_string(wanted):
        return bool(
            types.is_string(actual) or types.is_large_string(actual) or types.is_string_view(actual)
        )
    if types.is_list(wanted):
        is_list = (
            types.is_list(actual) or types.is_large_list(actual) or types.is_fixed_size_list(actual)
        )
        return is_list and _is_kin(actual.value_type, wanted.value_type)
    return bool(types.is_floating(actual) or types.is_integer(actual))
