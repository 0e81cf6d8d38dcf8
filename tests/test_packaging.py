"""The house: where code may live, what may import what, and how light a command's --help is."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAGES = ("data_manifests", "extract", "align", "evaluate")
COMMANDS = {
    "mlalign-manifest": "mlalign.data_manifests.cli",
    "mlalign-extract": "mlalign.extract.cli",
    "mlalign-align": "mlalign.align.cli",
    "mlalign-evaluate": "mlalign.evaluate.cli",
    "mlalign-search": "mlalign.evaluate.search.cli",
}
READ_SIDE = {"cache.contract", "cache.split_features", "cache.store", "cache.ragged"}
ALLOWED = {  # stage -> earlier stage -> its modules that may be used
    "data_manifests": {},
    "extract": {"data_manifests": None},
    "align": {"data_manifests": None, "extract": READ_SIDE},
    "evaluate": {
        "data_manifests": None,
        "extract": READ_SIDE | {"encode.query_encoder"},  # free-text search
        "align": {
            "data.moment_items",
            "data.question_segments",
            "loss_config",
            "model.model",
            "model.moment_head",
            "model.scene_clock",
            "model.token_interaction",
            "runs.checkpoint",
        },
    },
}
PRIVATE = {"cli", "config", "pipeline", "trainer"}


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def stage_imports(path: Path) -> set[tuple[str, str]]:
    """(stage, module) of every import of another stage in one file."""
    found = set()
    depth = len(path.relative_to(ROOT).parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            if node.level == depth and node.module:
                stage, _, module = node.module.partition(".")
                found |= {(stage, module)} if module else {(stage, a.name) for a in node.names}
            assert not (node.module or "").startswith("mlalign"), f"{path}: import relatively"
        if isinstance(node, ast.Import):
            assert not any(a.name.startswith("mlalign") for a in node.names), f"{path}: relatively"
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_imports_go_one_way(stage):
    for path in sorted((ROOT / stage).rglob("*.py")):
        for other, module in stage_imports(path):
            allowed = ALLOWED[stage]
            assert other in allowed, f"{path} imports {other}: against the direction"
            modules = allowed[other]
            assert modules is None or module in modules, f"{path} imports {other}.{module}"
            assert module.split(".")[-1] not in PRIVATE, (
                f"{path} imports {other}.{module}, which is private"
            )


def test_every_folder_with_code_is_a_package_of_the_wheel():
    folders = {
        ".".join(("mlalign", *path.parent.relative_to(ROOT).parts))
        for stage in STAGES
        for path in (ROOT / stage).rglob("*.py")
    }
    assert folders == set(project()["tool"]["setuptools"]["packages"])


def test_every_command_is_known_here():
    scripts = project()["project"]["scripts"]
    assert scripts == {name: f"{module}:program" for name, module in COMMANDS.items()}


@pytest.mark.parametrize("module", COMMANDS.values())
def test_help_imports_nothing_heavy(module):
    code = (
        "import sys\n"
        f"from {module} import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit as end:\n    assert end.code == 0, end.code\n"
        "heavy = {'torch', 'open_clip', 'h5py', 'faiss', 'av', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_cannot_be_imported_under_its_bare_name(stage):
    done = subprocess.run(
        [sys.executable, "-c", f"import {stage}"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert f"this folder is mlalign.{stage}" in done.stderr


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_stages(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, ROOT]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    target = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", target, wheel]
    subprocess.run(command, check=True)
    for stage in STAGES:
        here = {p.relative_to(ROOT) for p in (ROOT / stage).rglob("*") if p.is_file()}
        here = {p for p in here if "__pycache__" not in p.parts}
        there = {p.relative_to(target / "mlalign") for p in (target / "mlalign" / stage).rglob("*")}
        assert here <= there
    # The installed copy works away from the repository, its data file with it.
    code = "import mlalign.extract.config as c; print(c.__file__)"
    environment = {"PYTHONPATH": str(target)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
