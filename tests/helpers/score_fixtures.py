"""The command that scores a file of predictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from mlalign.evaluate.cli import main


def write(path: Path, content: Any) -> Path:
    lines = "\n".join(map(json.dumps, content)) if path.suffix == ".jsonl" else json.dumps(content)
    path.write_text(content if isinstance(content, str) else lines)
    return path


def run(dataset: str, predictions: Path, annotations: Path, *more: str) -> Result:
    files = ["--predictions", str(predictions), "--annotations", str(annotations)]
    return CliRunner().invoke(main, ["score", dataset, *files, "--json", *more])


def scored(dataset: str, predictions: Path, annotations: Path, *more: str) -> Any:
    result = run(dataset, predictions, annotations, *more)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def highlight(qid: int, windows: Any) -> dict[str, Any]:
    clips = {"relevant_clip_ids": [1, 2], "saliency_scores": [[4, 2, 2], [2, 3, 0]]}
    return {"qid": qid, "duration": 10, "relevant_windows": windows, **clips}
