"""The run folder: what a training leaves on disk, and how it is read again.

config.yaml        all settings; run.json has those that the data decided
metrics.jsonl      a JSON line per step and per validation
events/            the same for TensorBoard
state.pt           between two epochs, until the run is finished: what it goes on from
answers.json       the vocabulary of open-ended questions, where they are trained
heads.safetensors  the best weights        last.safetensors   those after the last step
run.json           cache key, versions, best numbers; written last, so it marks a finished run
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TextIO

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...data_manifests.core.atomic_write import atomic_write
from ...data_manifests.core.errors import SettingsError, UserError
from ...data_manifests.core.settings import load_settings, save_settings
from ..config import RunConfig
from ..model.model import AlignmentModel, build_model
from ..own_parts import PartError
from .summary import RunSummary

CONFIG_FILE = "config.yaml"
METRICS_FILE = "metrics.jsonl"
ANSWERS_FILE = "answers.json"
BEST_FILE = "heads.safetensors"
LAST_FILE = "last.safetensors"
RUN_FILE = "run.json"
FORMAT = 2


class RunError(UserError):
    """A run folder that cannot be read, or must not be written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A finished run, read from disk."""

    path: Path
    """The run folder."""
    config: RunConfig
    """The settings, with those that its data decided."""
    model: AlignmentModel
    """With the best weights, in eval mode, on the CPU."""
    cache_key: str
    """Of the cache it was trained on."""
    segment_rule: str
    """Which rule cut the segments it was trained on."""
    metrics: dict[str, float]
    """Of these weights on the validation split, in [0, 1]."""

    def encode_videos(
        self, clips: np.ndarray, segments: np.ndarray, segment_offsets: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """(N, D) clip and (S, D) segment features -> (N, W) and (S, W) float32 unit vectors of the
        global and the segment level.

        segment_offsets: (N + 1,) int64: clip i has segments [offsets[i], offsets[i + 1]), at least
        one; as in SplitFeatures. Raises UserError for other shapes.
        """
        counts = _counts(segment_offsets, len(clips), len(segments), "clips", "segments")
        with torch.no_grad():
            encoded = self.model.encode_videos(
                _features(clips, self.model.dim_video),
                _features(segments, self.model.dim_video),
                torch.from_numpy(counts),
            )
        return encoded[0].numpy(), encoded[1].numpy()

    def encode_texts(
        self,
        texts: np.ndarray,
        *,
        level: Literal["global", "segment"] = "global",
        sentences: np.ndarray | None = None,
        sentence_offsets: np.ndarray | None = None,
    ) -> np.ndarray:
        """(T, D) text features -> (T, W) float32 unit vectors, to compare with clips (level global)
        or with segments (segment); the dot product of two vectors is their score.

        sentences: for the global level, (R, D) features of the sentences of the texts, text t
        having [sentence_offsets[t], sentence_offsets[t + 1]), at least one; None: every text is one
        sentence. Raises UserError for other shapes.
        """
        features = _features(texts, self.model.dim_text)
        with torch.no_grad():
            if level == "segment":
                return self.model.encode_sentences(features).numpy()
            if (sentences is None) != (sentence_offsets is None):
                raise UserError("expected sentences and sentence_offsets together, got only one")
            if sentences is None or sentence_offsets is None:
                parts, counts = features, np.ones(len(features), dtype=np.int64)
            else:
                parts = _features(sentences, self.model.dim_text)
                counts = _counts(sentence_offsets, len(features), len(parts), "texts", "sentences")
            wholes, _ = self.model.encode_texts(features, parts, torch.from_numpy(counts))
            return wholes.numpy()


def _counts(
    offsets: np.ndarray, num_items: int, num_parts: int, items: str, parts: str
) -> np.ndarray:
    """(n,) int64, parts of each item; UserError where they do not fit or an item has none."""
    counts: np.ndarray = np.diff(np.asarray(offsets, dtype=np.int64))
    if len(counts) != num_items or counts.sum() != num_parts or (counts < 1).any():
        raise UserError(
            f"expected offsets of {num_items} {items} and {num_parts} {parts}, one or more each; "
            f"got {len(counts)} {items} and {counts.sum()} {parts}"
        )
    return counts


def _features(values: np.ndarray, width: int) -> Tensor:
    """(n, width) float32; UserError for other shapes."""
    if np.ndim(values) != 2 or np.shape(values)[1] != width:
        raise UserError(f"expected features of shape (n, {width}), got {np.shape(values)}")
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def refuse_finished_run(path: Path) -> None:
    """Raise RunError when the folder holds a finished run, which nothing may overwrite."""
    if (path / RUN_FILE).exists():
        raise RunError(
            f"{path} already holds a finished run: choose another folder with -o, or delete it"
        )


def make_run_folder(path: Path) -> None:
    """Make the folder unless it is there; raises RunError when `path` cannot be one."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise RunError(f"{path} cannot be a run folder: a file is in its way") from error


@contextmanager
def begin_run(path: Path, config: RunConfig, *, metrics_bytes: int = 0) -> Iterator[TextIO]:
    """Start a run folder, or go on with one; yields its open metrics file.

    metrics_bytes: of an unfinished run's metrics, how much is kept. Raises RunError when a finished
    run is there or `path` cannot be a folder.
    """
    refuse_finished_run(path)
    make_run_folder(path)
    for name in (BEST_FILE, LAST_FILE):
        (path / name).unlink(missing_ok=True)
    save_settings(config, path / CONFIG_FILE)
    with (path / METRICS_FILE).open("a", encoding="utf-8") as metrics_file:
        metrics_file.truncate(metrics_bytes)
        yield metrics_file


def finish_run(
    path: Path,
    *,
    model: AlignmentModel,
    last_weights: Mapping[str, Tensor],
    summary: RunSummary,
) -> None:
    """Write the weights and, last, run.json; each file is there whole or not at all."""
    if model.answers:
        vocabulary = json.dumps(model.answers, ensure_ascii=False, indent=0) + "\n"
        atomic_write(path / ANSWERS_FILE, vocabulary)
    save_weights(model.state_dict(), path / BEST_FILE)
    save_weights(last_weights, path / LAST_FILE)
    content = {
        "format": FORMAT,
        **{name: value for name, value in summary.to_json().items() if name != "path"},
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("mlalign", "numpy", "safetensors", "torch")},
        },
    }
    text = json.dumps(content, indent=2) + "\n"
    atomic_write(path / RUN_FILE, text)


def load_run(path: str | Path) -> Run:
    """Read a finished run; raises RunError when it is missing, unfinished or damaged, or has a head
    of your own that cannot be found."""
    path = Path(path)
    if not path.is_dir():
        raise RunError(f"no run folder at {path}")
    if not (path / RUN_FILE).is_file():
        unfinished = (path / CONFIG_FILE).exists()
        raise RunError(
            f"{path} holds an unfinished run ({RUN_FILE} is missing): train it again"
            if unfinished
            else f"{path} is not a run folder: it has no {RUN_FILE}"
        )
    try:
        content: dict[str, Any] = json.loads((path / RUN_FILE).read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise RunError(
                f"{path} has run format {content['format']}, this mlalign reads {FORMAT}"
            )
        config = load_settings(RunConfig, path / CONFIG_FILE, content["decided"])
        widths = [int(content[name]) for name in ("feature_width", "text_feature_width")]
        answers: list[str] = []
        if config.tasks.answer_weight > 0:
            answers = json.loads((path / ANSWERS_FILE).read_text(encoding="utf-8"))
        model = build_model(config, dim_video=widths[0], dim_text=widths[1], answers=answers)
        model.load_state_dict(load_file(path / BEST_FILE))
        return Run(
            path=path,
            config=config,
            model=model.eval(),
            cache_key=str(content["cache_key"]),
            segment_rule=str(content["segment_rule"]),
            metrics={str(name): float(value) for name, value in content["metrics"].items()},
        )
    except PartError as error:
        raise RunError(f"the run {path} cannot be loaded: {error}") from error
    except (
        OSError,
        SettingsError,
        safetensors.SafetensorError,
        RuntimeError,  # load_state_dict: names or shapes that do not fit
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ) as error:
        raise RunError(
            f"the run {path} is damaged ({type(error).__name__}: {error}): train it again"
        ) from error


def save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors, whole or not at all."""
    contiguous = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    atomic_write(path, lambda temporary: save_file(contiguous, temporary))
