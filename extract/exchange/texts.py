"""Text features of other tools: one vector per text, question and option, into shards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...data_manifests.tables.schema import Manifest
from ..cache.contract import ID_COLUMNS, Unit
from ..cache.writer import commit_shard
from ..decode.sources import source_facts
from ..planning.plan import Work, plan_rows, read_committed
from .clips import checked_rows
from .sources import FeatureError, FeatureSource

SHARD_ROWS: Final = 4096


def plan_imported(
    manifest: Manifest,
    cache: Path,
    unit: Unit,
    source: FeatureSource | None,
    keys: Mapping[str, Sequence[str | None]],
    *,
    key: str,
    report: Callable[[str], None],
) -> list[Work]:
    """The texts or questions that are new or changed, of those that have keys in the source.

    keys: of each id, all its keys; a None has no features.   key: of the cache.
    """
    if source is None:
        return []
    table: pa.Table = getattr(manifest, unit)
    ids = ID_COLUMNS[unit]
    table = table.filter(pc.is_in(table[ids], pa.array(keys, pa.string())))
    # Part of a row's digest, so that a changed file is read again; not kept.
    facts = {path: source_facts(path) for path in set(source.files.values())}
    files = [
        str([facts[source.files[name]] for name in keys[row_id] if name is not None])
        for row_id in table[ids].to_pylist()
    ]
    table = table.append_column("source", pa.array(files, pa.string()))
    committed = read_committed(cache, unit, report=report)
    return plan_rows(table, unit, committed, shard_size=SHARD_ROWS, key=key)


def text_vector(values: np.ndarray, *, width: int | None) -> np.ndarray:
    """(width,) float32 of a text's features: (width,) is taken as it is, of (words, width) the mean
    over the words, in float64: TVR's files have no vector of the sentence. Raises FeatureError.
    """
    rows = values[None] if values.ndim == 1 else values
    mean: np.ndarray = checked_rows(rows, width=width).mean(axis=0, dtype=np.float64)
    return mean.astype(np.float32)


def import_texts(
    works: Iterable[Work],
    cache: Path,
    *,
    source: FeatureSource,
    keys: Mapping[str, str],
    width: int,
    dtype: str,
    failed: Callable[[str, str], None],
) -> None:
    """Commit the texts of all works; `failed` hears the id of each without usable features, which
    gets no row, and the reason.

    keys: text id to its key in the source. Raises DiskError.
    """
    for work in works:
        rows: list[dict[str, Any]] = []
        vectors = [np.empty((0, width), dtype=dtype)]
        for item in work.items:
            text_id = item.row["text_id"]
            try:
                vectors.append(_stored([keys[text_id]], source, width=width, dtype=dtype))
            except FeatureError as error:
                failed(text_id, str(error))
                continue
            rows.append(item.index_row(len(rows)))
        if rows:
            arrays = {"texts/features": np.concatenate(vectors)}
            commit_shard(cache, "texts", work.name, arrays=arrays, tables={"texts": rows})


def import_questions(
    works: Iterable[Work],
    cache: Path,
    *,
    source: FeatureSource,
    keys: Mapping[str, Sequence[str | None]],
    width: int,
    dtype: str,
    failed: Callable[[str, str], None],
) -> None:
    """Commit the questions of all works with their options; see `import_texts`.

    keys: question id to the keys of its question and of its options (`question_keys`).
    """
    for work in works:
        rows: list[dict[str, Any]] = []
        questions = [np.empty((0, width), dtype=dtype)]
        options = [np.empty((0, width), dtype=dtype)]
        num_options = 0
        for item in work.items:
            question_id = item.row["question_id"]
            try:
                vectors = _stored(keys[question_id], source, width=width, dtype=dtype)
            except FeatureError as error:
                failed(question_id, str(error))
                continue
            rows.append({**item.index_row(len(rows)), "first_option_row": num_options})
            questions.append(vectors[:1])
            options.append(vectors[1:])
            num_options += len(vectors) - 1
        if rows:
            arrays = {
                "questions/features": np.concatenate(questions),
                "options/features": np.concatenate(options),
            }
            commit_shard(cache, "questions", work.name, arrays=arrays, tables={"questions": rows})


def _stored(
    keys: Sequence[str | None], source: FeatureSource, *, width: int, dtype: str
) -> np.ndarray:
    """(len(keys), width): the vector of each key, of None zeros. Raises FeatureError."""
    vectors = np.zeros((len(keys), width), dtype=dtype)
    for row, key in enumerate(keys):
        if key is None:
            continue
        try:
            vector = text_vector(source.read(key).values, width=width)
            with np.errstate(over="ignore"):
                vectors[row] = vector.astype(dtype)
            if not np.isfinite(vectors[row]).all():
                raise FeatureError(f"not finite in {dtype} (dtype=float32 has more room)")
        except FeatureError as error:
            raise FeatureError(f"the features {key!r}: {error}") from error
    return vectors
