"""The wings of the stages: what each may import, and that folders and files stay small."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MOST_FILES, MOST_LINES = 17, 300
WINGS = {  # stage -> wing -> what it may import of its stage: wings, and files on top of the stage
    "data_manifests": {
        "core": "",
        "cards": "core",
        "tables": "core",
        "annotations": "core cards tables",
        "scenes": "core tables",
        "importers": "core cards annotations",
        "building": "core cards tables annotations importers",
    },
    "extract": {
        "cache": "",
        "segments": "cache",
        "decode": "cache segments config",
        "planning": "cache segments config decode",
        "encode": "cache segments config decode planning",
        "maintenance": "cache segments planning",
        "engines": "cache config decode planning encode",
        "exchange": "cache segments decode planning encode maintenance cache_settings run_stats",
    },
    "align": {
        "model": "head_config loss_config config own_parts",
        "runs": "config model own_parts",
        "data": "loss_config config runs distributed",
        "objective": "loss_config config model data own_parts",
        "validation": "loss_config config model runs data objective",
        "sweep": "config runs data trainer",
    },
    "evaluate": {
        "scores": "config",
        "inputs": "config",
        "indexes": "config scores",
        "official": "scores",
        "tasks": "config scores indexes official",
        "statistics": "config scores indexes tasks",
        "predictions": "config scores inputs official tasks",
        "reports": "config scores inputs tasks statistics evaluation",
        "bench": "inputs statistics reports",
        "search": "config scores inputs indexes tasks reports",
    },
}


def code_files(stage: str) -> list[Path]:
    return sorted(path for path in (ROOT / stage).rglob("*.py") if path.name != "__init__.py")


def place_of(path: Path) -> str:
    """The wing of a file; a file on top of its stage is a place of its own."""
    parts = path.relative_to(ROOT).with_suffix("").parts[1:]
    return ".".join(parts[:-1] or parts)


def imported_places(path: Path, stage: str) -> set[str]:
    """The places of the same stage that a file imports, type checking and functions included."""
    package = path.relative_to(ROOT).parent.parts
    places = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = package[: len(package) - node.level + 1]
        target = ROOT.joinpath(*base, *(node.module or "").split("."))
        for alias in node.names:
            is_module = (target / f"{alias.name}.py").exists()
            module = target / alias.name if is_module else target
            if module.with_suffix(".py").exists() and module.relative_to(ROOT).parts[0] == stage:
                places.add(place_of(module.with_suffix(".py")))
    return places - {place_of(path)}


@pytest.mark.parametrize("stage", WINGS)
def test_a_wing_imports_what_the_table_allows(stage: str) -> None:
    used: dict[str, set[str]] = {wing: set() for wing in WINGS[stage]}
    for path in code_files(stage):
        if path.parent == ROOT / stage:
            continue
        place = place_of(path)
        assert place in used, f"{path.parent} is not in the table"
        allowed = set(WINGS[stage][place].split())
        unknown = imported_places(path, stage) - allowed
        assert not unknown, f"{path} imports {sorted(unknown)}: {place} may not"
        used[place] |= imported_places(path, stage)
    unused = {wing: set(WINGS[stage][wing].split()) - found for wing, found in used.items()}
    assert not any(unused.values()), f"allowed, but not used: {unused}"


@pytest.mark.parametrize("stage", WINGS)
def test_the_wings_of_a_stage_have_one_direction(stage: str) -> None:
    graph: dict[str, set[str]] = {}
    for path in code_files(stage):
        graph.setdefault(place_of(path), set()).update(imported_places(path, stage))
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize("stage", WINGS)
def test_folders_and_files_stay_small(stage: str) -> None:
    files = code_files(stage)
    for folder in {path.parent for path in files}:
        number = sum(path.parent == folder for path in files)
        assert number <= MOST_FILES, f"{folder} has {number} files of code"
    lines = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in files
    }
    assert {name: number for name, number in lines.items() if number > MOST_LINES} == {}


@pytest.mark.parametrize("stage", WINGS)
def test_every_wing_says_what_it_is_for(stage: str) -> None:
    for folder in {path.parent for path in code_files(stage)} - {ROOT / stage}:
        text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
        assert text and "\n\n" not in text, folder
