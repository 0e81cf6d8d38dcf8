"""The settings that make a cache what it is: the user's, those it has, and the backbone's."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any, Final

import pyarrow.compute as pc

from ..data_manifests.cards.scoring_rules import SPANS
from ..data_manifests.core.errors import ManifestError
from ..data_manifests.tables.reader import CARD
from ..data_manifests.tables.schema import Manifest
from .config import ExtractConfig
from .decode.sources import file_sha256
from .engines.protocol import EngineFacts
from .segments.rules import SHOTS, parse_rule

LAYOUT: Final = ("keep_frames", "keep_tokens", "shots")
"""Settings that, with the segment rules, make the layout."""


def adopted(config: ExtractConfig, content: dict[str, Any]) -> ExtractConfig:
    """What the user left open is taken from the existing cache."""
    if config.precision == "auto":
        config = replace(config, precision=content["settings"]["precision"])
    if not config.segments:
        config = replace(config, segments=tuple(content["layout"]["segments"]))
    if config.shots is None:
        has_shots = content["layout"]["shots"] or SHOTS in config.segments
        config = replace(config, shots=has_shots)
    if config.keep_tokens is None:
        config = replace(config, keep_tokens=content["layout"]["keep_tokens"])
    return config


def resolved(config: ExtractConfig, manifest: Manifest) -> ExtractConfig:
    """What the user left open, for a new cache."""
    segments = config.segments or default_segments(manifest)
    shots = SHOTS in segments if config.shots is None else config.shots
    return replace(config, segments=segments, shots=shots, keep_tokens=bool(config.keep_tokens))


def default_segments(manifest: Manifest) -> tuple[str, ...]:
    """The rules of the manifest, else the spans of its texts, where it has any, then uniform:4.

    Raises ManifestError where the manifest names a rule that there is not.
    """
    for rule in manifest.segments:
        try:
            parse_rule(rule)
        except ValueError as error:
            raise ManifestError(f"{CARD} of the dataset {manifest.name}: {error}") from error
    if manifest.segments:
        return tuple(dict.fromkeys(manifest.segments))
    has_spans = pc.any(pc.is_valid(manifest.texts["start_seconds"])).as_py()
    return (SPANS, "uniform:4") if has_spans else ("uniform:4",)


def known_settings(config: ExtractConfig) -> dict[str, Any]:
    """The settings that can be compared before a backbone is loaded, so that a second run can end
    at once."""
    known: dict[str, Any] = {
        "backbone": config.backbone,
        "sampling": config.sampling,
        "fps": config.fps if config.sampling is None else None,
        "image_fps": config.image_fps,
        "dtype": config.dtype,
    }
    if config.tag is not None:
        known["pretrained"] = config.tag
    if config.checkpoint is not None and config.checkpoint.is_file():
        known["weights_sha256"] = file_sha256(config.checkpoint)
    if config.precision != "auto":
        known["precision"] = config.precision
    layout = {name: getattr(config, name) for name in LAYOUT}
    return {**known, "segments": list(config.segments), **layout}


def backbone_settings(facts: EngineFacts) -> dict[str, Any]:
    """Those that are known once it is loaded."""
    return {
        "weights_sha256": facts.weights_sha256,
        "precision": facts.precision,
        "preprocessing": asdict(facts.preprocessing),
        "width": facts.width,
    }


def without_addition(config: ExtractConfig, asked: dict[str, Any]) -> dict[str, Any]:
    """What the cache must have already: that tokens are kept can be added to it."""
    return {name: asked[name] for name in asked if name != "keep_tokens" or not config.keep_tokens}
