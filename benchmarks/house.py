"""Counts of the code in a commit: files and lines per folder, the largest file and function.

python benchmarks/house.py            # HEAD
python benchmarks/house.py COMMIT
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from pathlib import PurePosixPath

STAGES = ("data_manifests", "extract", "align", "evaluate")


def main() -> None:
    commit = sys.argv[1] if len(sys.argv) > 1 else "HEAD"
    sources = read_sources(commit)
    files: Counter[str] = Counter()
    lines: Counter[str] = Counter()
    sizes: dict[str, int] = {}
    functions: dict[str, int] = {}
    for name, source in sources.items():
        path = PurePosixPath(name)
        lines[str(path.parent)] += source.count("\n")
        if path.name == "__init__.py":
            continue
        files[str(path.parent)] += 1
        sizes[name] = source.count("\n")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                functions[f"{name}: {node.name}"] = node.end_lineno - node.lineno + 1
    print(f"{'folder':<36} {'files':>6} {'lines':>7}    (files without __init__.py)")
    for folder in sorted(lines):
        print(f"{folder:<36} {files[folder]:6} {lines[folder]:7}")
    print(f"{'all stages':<36} {sum(files.values()):6} {sum(lines.values()):7}")
    for what, measured in (("file", sizes), ("function", functions)):
        largest = max(measured, key=lambda name: measured[name])
        print(f"largest {what}: {largest} ({measured[largest]} lines)")


def read_sources(commit: str) -> dict[str, str]:
    """Path to content of every Python file of the stages."""
    listing = git("ls-tree", "-r", "--name-only", commit, *STAGES)
    names = [name for name in listing.splitlines() if name.endswith(".py")]
    return {name: git("show", f"{commit}:{name}") for name in names}


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
