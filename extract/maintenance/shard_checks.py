"""What the contract promises of one shard: its arrays, and the index rows that point into it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..cache.contract import feature_width, option_counts

BLOCK_ROWS: Final = 65_536
"""Of an array, looked at together: the memory it takes does not grow with the shard."""
STATUSES: Final = ("ok", "partial", "failed")


def wanted_arrays(unit: str, cache: Mapping[str, Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Array of a shard to its type and the shape of one row. cache: what cache.json says.

    Raises KeyError for a unit that the contract does not know.
    """
    dtype = str(cache["settings"]["dtype"])
    features = dtype, (feature_width(cache["settings"], "clips"),)
    texts = dtype, (feature_width(cache["settings"], "texts"),)
    seconds: tuple[str, tuple[int, ...]] = "float64", ()
    frames = {"frames/features": features} if cache["layout"]["keep_frames"] else {}
    tokens = {"tokens/features": texts} if cache["layout"]["keep_tokens"] else {}
    sentences = {"sentences/features": texts}
    arrays: dict[str, dict[str, tuple[str, tuple[int, ...]]]] = {
        "clips": {
            "clips/features": features,
            "segments/features": features,
            "frames/seconds": seconds,
            "frames/sample_seconds": seconds,
            **frames,
        },
        "segments": {"segments/features": features},
        "texts": {"texts/features": texts, **tokens, **sentences},
        "questions": {"questions/features": texts, "options/features": texts},
    }
    return arrays[unit]


def array_problems(
    file: h5py.File, wanted: Mapping[str, tuple[str, tuple[int, ...]]]
) -> Iterator[str]:
    """Arrays that are missing, unknown, of another type or shape, or not finite."""
    found: list[str] = []
    file.visititems(lambda name, item: found.append(name) if hasattr(item, "shape") else None)
    # Texts that were encoded before the cache kept tokens have none, and texts of one sentence no
    # sentences; their rows say so.
    for name in sorted({*wanted} - {*found} - {"tokens/features", "sentences/features"}):
        yield f"lacks the array {name}"
    for name in sorted({*found} - {*wanted}):
        yield f"has an array {name} that the contract does not know"
    for name in sorted({*wanted} & {*found}):
        dtype, row_shape = wanted[name]
        array = file[name]
        if str(array.dtype) != dtype or array.ndim == 0 or array.shape[1:] != row_shape:
            shape = ", ".join(map(str, ("n", *row_shape)))
            yield f"{name}: expected {dtype} ({shape}), got {array.dtype} {array.shape}"
            continue
        starts = range(0, len(array), BLOCK_ROWS)
        if not all(np.isfinite(array[start : start + BLOCK_ROWS]).all() for start in starts):
            yield f"{name} has values that are not finite"


def row_problems(file: h5py.File, rows: Mapping[str, pa.Table]) -> Iterator[str]:
    """Index rows of this shard, by table, that point outside its arrays or at each other's rows."""
    if rows["clips"].num_rows:
        yield from _clip_problems(file, rows["clips"])
    for table in ("segments", "texts", "questions"):
        if rows[table].num_rows:
            yield from _places(file, f"{table}/features", rows[table]["row"])
    if rows["texts"].num_rows:
        yield from _token_problems(file, rows["texts"])
        yield from _sentence_problems(file, rows["texts"])
    if rows["questions"].num_rows:
        yield from _option_problems(file, rows["questions"])


def _clip_problems(file: h5py.File, rows: pa.Table) -> Iterator[str]:
    status = np.asarray(rows["status"].to_pylist(), dtype=object)
    if unknown := set(status) - set(STATUSES):
        yield f"a clip has the status {unknown.pop()!r}"
    failed = rows.filter(pa.array(status == "failed"))
    if failed["row"].null_count < failed.num_rows or failed["reason"].null_count:
        yield "a failed clip has features, or no reason"
    usable = rows.filter(pa.array(status != "failed"))
    yield from _places(file, "clips/features", usable["row"])
    first = pc.fill_null(usable["first_frame_row"], -1).to_numpy()
    count = pc.fill_null(usable["num_frames"], 0).to_numpy()
    sampled = file["frames/sample_seconds"][()]
    lengths = {len(file[f"frames/{name}"]) for name in file["frames"]}
    if len(lengths) > 1:
        yield f"the arrays of frames have different lengths: {sorted(lengths)}"
    order = np.argsort(first, kind="stable")
    ends = (first + count)[order]
    if (first < 0).any() or (count < 1).any() or (ends > min(lengths)).any():
        yield f"the frames of a clip lie outside the {min(lengths)} there are"
    elif (ends[:-1] > first[order][1:]).any():
        yield "two clips share frames"
    elif any((np.diff(sampled[a : a + n]) <= 0).any() for a, n in zip(first, count, strict=True)):
        yield "the frames of a clip are not in the order of their times"


def _token_problems(file: h5py.File, rows: pa.Table) -> Iterator[str]:
    if "tokens" not in file:
        if rows["first_token_row"].null_count < rows.num_rows:
            yield "a text has tokens, and there is no array tokens/features"
        return
    first = pc.fill_null(rows["first_token_row"], -1).to_numpy()
    count = pc.fill_null(rows["num_tokens"], 0).to_numpy()
    length = len(file["tokens/features"])
    if (first < 0).any() or (count < 1).any() or (first + count > length).any():
        yield f"a text has no tokens, or some outside the {length} rows of tokens/features"
        return
    order = np.argsort(first, kind="stable")
    if ((first + count)[order][:-1] > first[order][1:]).any():
        yield "two texts share tokens"


def _sentence_problems(file: h5py.File, rows: pa.Table) -> Iterator[str]:
    count = pc.fill_null(rows["num_sentences"], 0).to_numpy()
    first = pc.fill_null(rows["first_sentence_row"], -1).to_numpy()[count > 0]
    count = count[count > 0]
    length = len(file["sentences/features"]) if "sentences" in file else 0
    if (first < 0).any() or (first + count > length).any():
        yield f"a text has sentences outside the {length} rows of sentences/features"
        return
    order = np.argsort(first, kind="stable")
    if ((first + count)[order][:-1] > first[order][1:]).any():
        yield "two texts share sentences"


def _option_problems(file: h5py.File, rows: pa.Table) -> Iterator[str]:
    first = pc.fill_null(rows["first_option_row"], 0).to_numpy()
    count = option_counts(rows)
    length = len(file["options/features"])
    if (first < 0).any() or (first + count > length).any():
        yield f"the options of a question lie outside the {length} rows of options/features"


def _places(file: h5py.File, array: str, rows: pa.ChunkedArray) -> Iterator[str]:
    """Whether the column `row` names different rows of an array."""
    places = pc.fill_null(rows, -1).to_numpy()
    length = len(file[array])
    outside = int(((places < 0) | (places >= length)).sum())
    if outside:
        yield f"{outside} index rows point outside the {length} rows of {array}"
    elif len(np.unique(places)) < len(places):
        yield f"two index rows point at one row of {array}"
