"""The public names of the stages: frozen, light to import, documented, and tried from a wheel."""

from __future__ import annotations

import ast
import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMES = {
    "data_manifests": {
        *("Card", "Manifest", "ManifestError", "SettingsError", "UserError"),
        *("card_names", "load_card", "load_settings", "read_manifest", "write_manifest"),
    },
    "extract": {
        *("CacheError", "ExtractConfig", "ExtractSummary", "FeatureStore", "SplitFeatures"),
        "extract",
    },
    "align": {
        *("DataConfig", "HeadConfig", "HeadsConfig", "LossConfig", "OptimiserConfig"),
        *("Run", "RunConfig", "RunError", "TaskConfig", "ValidationConfig"),
        *("fit", "load_run", "register_head", "register_loss"),
    },
    "evaluate": {
        *("Evaluation", "EvaluationConfig", "evaluate", "evaluate_scores"),
        *("rank_metrics", "report"),
    },
}
HEAVY = ("torch", "numpy", "pyarrow", "h5py", "av", "faiss", "click", "yaml", "matplotlib")


@pytest.mark.parametrize("stage", NAMES)
def test_the_public_names_are_frozen(stage: str) -> None:
    """A name that is gone or new here is a change for users: it needs a line in CHANGELOG.md."""
    package = importlib.import_module(f"mlalign.{stage}")
    assert set(package.__all__) == {*NAMES[stage], "__version__"}
    assert set(dir(package)) == set(package.__all__)
    for name in NAMES[stage]:
        assert getattr(package, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing


@pytest.mark.parametrize("stage", NAMES)
def test_type_checkers_see_the_names_from_where_they_come(stage: str) -> None:
    tree = ast.parse((ROOT / stage / "__init__.py").read_text(encoding="utf-8"))
    seen = {
        alias.name: f"mlalign.{stage}.{node.module}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
        if alias.name != "lazy_names"
    }
    assert set(seen) == NAMES[stage]
    package = importlib.import_module(f"mlalign.{stage}")
    for name, module in seen.items():
        assert getattr(package, name) is getattr(importlib.import_module(module), name)


def test_importing_the_stages_imports_nothing_heavy() -> None:
    imports = "".join(f"import mlalign.{stage}\n" for stage in NAMES)
    code = f"import sys\n{imports}print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_on_the_page_of_the_docs() -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    missing = [name for names in NAMES.values() for name in names if f"`{name}`" not in page]
    assert not missing


@pytest.mark.slow
def test_the_example_checks_and_runs_against_the_installed_wheel(
    tmp_path: Path, small_scenes: Path
) -> None:
    """`mypy --strict` and a run, in a new environment with the packages of this one."""
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps"]
    subprocess.run([*command, "-w", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    query = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([python, "-c", query], capture_output=True, text=True, check=True)
    target = Path(site.stdout.strip())
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", target, wheel]
    subprocess.run(install, check=True)
    # Behind the wheel: the other packages. A .pth adds folders, but not the .pth files in them.
    others = [path for path in sys.path if path.endswith("-packages")]
    (target / "others.pth").write_text("".join(f"{path}\n" for path in others))
    example = shutil.copy(ROOT / "examples" / "python_api.py", tmp_path)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*words: object) -> str:
        done = subprocess.run(
            [str(python), *map(str, words)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = run("-c", "import mlalign.align; print(mlalign.align.__file__)")
    assert where.startswith(str(target))
    run("-m", "mypy", "--strict", "--python-executable", python, example)
    assert "R@1" in run(example, small_scenes)
