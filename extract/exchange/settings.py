"""Inputs of an import: features, how to interpret them, and their width."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from ...data_manifests.core.file_names import name_text
from ...data_manifests.tables.schema import Manifest
from ..cache.contract import CacheError
from ..segments.rules import SHOTS, parse_rule
from .clips import checked_rows
from .sources import FeatureError, FeatureSource
from .summary import first_names
from .texts import text_vector

SAMPLED_ITEMS: Final = 16
"""Number of readable items sampled; the width is the most common one among them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportSettings:
    """How to interpret imported features. Raises ValueError for impossible settings."""

    seconds_per_feature: Fraction
    """From one row to the next; 1 / fps, exact."""
    segments: tuple[str, ...] = ()
    """Rules that cut clips; empty: spans where the manifest has them, then uniform:4."""
    dtype: str = "float16"
    """Of the stored features."""

    def __post_init__(self) -> None:
        if not 0 < self.seconds_per_feature < 100_000:
            raise ValueError(f"expected a rate > 0, got one row per {self.seconds_per_feature} s")
        for rule in self.segments:
            parse_rule(rule)
        if SHOTS in self.segments:
            raise ValueError("segments shots: shots are found in pictures, which are not here")
        if len(set(self.segments)) < len(self.segments):
            raise ValueError(f"segments names a rule twice: {', '.join(self.segments)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportedFeatures:
    """Where the features come from."""

    video: FeatureSource
    video_path: Path
    text: FeatureSource | None = None
    text_path: Path | None = None
    questions: FeatureSource | None = None
    questions_path: Path | None = None

    def settings(self) -> dict[str, Any]:
        """Settings that change the numbers."""
        settings = {
            "backbone": f"imported: {self.video.format}",
            "source": name_text(os.path.abspath(self.video_path)),
            "text_source": self.text_path and name_text(os.path.abspath(self.text_path)),
            "precision": "as imported",
        }
        if self.questions_path is not None:  # without, caches have the key that they always had
            settings["question_source"] = name_text(os.path.abspath(self.questions_path))
        return settings


def detect_widths(
    imported: ImportedFeatures,
    clip_keys: Sequence[str],
    text_keys: Sequence[str],
    question_keys: Sequence[str],
    *,
    manifest: Manifest,
) -> dict[str, int]:
    """The settings width and, where texts (or else questions) have another one, text_width.

    The keys: of what the manifest has, in its order. Raises CacheError when no feature
    of a clip can be read.
    """
    video = _width(imported.video, clip_keys, is_text=False)
    if video is None:
        raise CacheError(
            f"{imported.video_path} has no usable features of any clip of the manifest: "
            f"it names them {first_names(list(imported.video.files))}, the clips are "
            f"{first_names(manifest.clips['clip_id'].to_pylist())}"
        )
    for source, keys in ((imported.text, text_keys), (imported.questions, question_keys)):
        text = None if source is None else _width(source, keys, is_text=True)
        if text is not None:
            return {"width": video, **({"text_width": text} if text != video else {})}
    return {"width": video}


def _width(source: FeatureSource, keys: Sequence[str], *, is_text: bool) -> int | None:
    """The width that most of the first readable features have."""
    widths: Counter[int] = Counter()
    for key in keys:
        try:
            values = source.read(key).values
            rows = text_vector(values, width=None)[None] if is_text else values
            widths[checked_rows(rows, width=None).shape[1]] += 1
        except FeatureError:
            continue
        if widths.total() == SAMPLED_ITEMS:
            break
    return widths.most_common(1)[0][0] if widths else None
