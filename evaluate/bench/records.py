"""What is there already of a benchmark: each result with a record of what it was made of.

    OUT/steps/PATH.json   of the result OUT/PATH: {made_by, made_from, version, result}
    OUT/steps/PATH.log    what the command that made it said

A result is done when it is whole and its record says that it was made by the same command or
settings, from the same data, by the same version, and has not changed since.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal

from ...align.runs.checkpoint import RUN_FILE
from ...data_manifests.core.atomic_write import atomic_write
from ...extract.cache.contract import CacheError, read_settings, settings_path
from ..reports.results_json import RESULTS_FILE

STEPS: Final = "steps"
REPLACED: Final = "replaced"

Kind = Literal["manifest", "cache", "run", "report"]
State = Literal["new", "done", "begun", "changed", "other"]
"""begun: by the same command, and not finished; changed: finished, but it is no longer what it was;
other: made in another way."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Product:
    """A result that a step makes."""

    path: str
    """Its folder, below the benchmark's."""
    kind: Kind
    """What it is."""
    made_by: Any
    """The command's words, or the settings: JSON."""
    made_from: Mapping[str, str | None]
    """Identity of everything that it is made from."""

    @property
    def making(self) -> dict[str, Any]:
        """What its record must say."""
        made = {"made_by": self.made_by, "made_from": dict(self.made_from)}
        making: dict[str, Any] = json.loads(json.dumps({**made, "version": version("mlalign")}))
        return making


def state_of(out: Path, product: Product) -> State:
    """What is there of a product."""
    try:
        record = json.loads(_record(out, product).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "other" if (out / product.path).exists() else "new"
    if {name: record.get(name) for name in product.making} != product.making:
        return "other" if (out / product.path).exists() else "new"
    current = identity(out, product)
    # A run commits itself; of the others only the end of their command says that they are whole.
    if current is not None and (current == record["result"] or product.kind == "run"):
        return "done"
    return "begun" if record["result"] is None else "changed"


def begin(out: Path, product: Product) -> None:
    """Note what is going to be made."""
    _write_record(out, product, result=None)


def finish(out: Path, product: Product) -> None:
    """Note that it is whole."""
    _write_record(out, product, result=identity(out, product))


def set_aside(out: Path, product: Product) -> Path:
    """Move what was made in another way to OUT/replaced: nothing is ever mixed, or lost."""
    number = 1
    while (target := out / REPLACED / f"{product.path}-{number}").exists():
        number += 1
    target.parent.mkdir(parents=True, exist_ok=True)
    (out / product.path).rename(target)
    return target


def log_path(out: Path, path: str) -> Path:
    """Where the log of a step lies."""
    return out / STEPS / f"{path}.log"


def identity(out: Path, product: Product) -> str | None:
    """Digest of a whole result's content; None where there is none."""
    folder = out / product.path
    match product.kind:
        case "manifest":
            files = [folder / "dataset.yaml", *sorted(folder.glob("*.parquet"))]
        case "cache":
            files = [settings_path(folder), *sorted((folder / "index").rglob("*.parquet"))]
        case "run":
            files = [folder / RUN_FILE]
        case "report":
            files = [folder / RESULTS_FILE]
    if not files[0].is_file():
        return None
    try:
        return _digest(
            part
            for file in files
            for part in (file.relative_to(folder).as_posix().encode(), _content(file, product.kind))
        )
    except CacheError:  # damaged: extraction says so
        return None


def listing_identity(path: Path | None) -> str | None:
    """Digest of the names, sizes and times of the files at a path; None where there is nothing."""
    if path is None or not path.exists():
        return None
    if path.is_file():
        return _digest([_stat_line(path, path.name)])
    lines = [
        _stat_line(Path(parent) / name, os.path.relpath(os.path.join(parent, name), path))
        for parent, _, names in os.walk(path)
        for name in names
    ]
    return _digest(sorted(lines))


def value_identity(value: Any) -> str:
    """Digest of what JSON can hold."""
    return _digest([json.dumps(value, sort_keys=True).encode()])


def _content(file: Path, kind: Kind) -> bytes:
    if kind != "cache" or file.suffix != ".json":
        return file.read_bytes()
    made = read_settings(file.parent)  # the rest of it tells of the command, not of the features
    return json.dumps([made["key"], made["layout"]], sort_keys=True).encode()


def _stat_line(path: Path, name: str) -> bytes:
    try:
        stat = path.stat()
    except OSError:  # a link to nothing
        return os.fsencode(name)
    return os.fsencode(f"{name} {stat.st_size} {stat.st_mtime_ns}")


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)}:".encode() + part)
    return digest.hexdigest()


def _record(out: Path, product: Product) -> Path:
    return out / STEPS / f"{product.path}.json"


def _write_record(out: Path, product: Product, *, result: str | None) -> None:
    path = _record(out, product)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**product.making, "result": result}, indent=1) + "\n"
    atomic_write(path, text)
