"""From a manifest to a cache: check, plan what is missing, encode texts, encode clips, sum up."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from ..data_manifests.schema import Manifest
from .config import TINY, ExtractConfig
from .contract import read_settings, settings_path
from .encode_clips import encode_clips
from .encode_texts import encode_questions, encode_texts
from .frames import source_sha256
from .planning import Committed, Work, plan_clips, plan_rows, read_committed
from .writer import check_new, check_same, open_for_writing

if TYPE_CHECKING:
    from .backbone import Backbone

SHARD_TEXTS = 4096
RECORDED = ("mlalign", "av", "torch", "open_clip_torch", "pillow", "numpy", "h5py", "pyarrow")


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What a run did, and what the cache now has of the manifest's clips."""

    cache: str
    clips: dict[str, int]
    """Clips of the manifest in the cache by status: ok, partial, failed."""
    new_clips: int
    new_frames: int
    new_texts: int
    """Texts and questions."""
    seconds: float
    failures: dict[str, str]
    """clip_id to reason, of every failed clip of the manifest."""

    def line(self) -> str:
        """One line for a person."""
        rate = f" ({self.new_frames / self.seconds:.1f} frames/s)" if self.new_frames else ""
        return (
            f"{sum(self.clips.values())} clips: {self.clips['ok']} ok, "
            f"{self.clips['partial']} partial, {self.clips['failed']} failed; "
            f"new: {self.new_clips} clips, {self.new_frames} frames, {self.new_texts} texts "
            f"in {self.seconds:.1f} s{rate} -> {self.cache}"
        )


def extract(
    manifest: Manifest, cache: Path, config: ExtractConfig, *, retry_failed: bool = False
) -> Summary:
    """Put the features of a manifest's clips, texts and questions into a cache, where missing.

    retry_failed: also clips that failed before and have not changed since.
    Raises CacheError when the cache was made otherwise or cannot be written, BackboneError when the
    weights cannot be had. A clip that fails is a row with its reason, never an exception.
    """
    began = time.monotonic()
    exists = settings_path(cache).exists()
    if exists:
        config = _adopt(config, read_settings(cache))
        check_same(cache, _known_settings(config))
    else:
        check_new(cache)
        config = _with_segments(config, manifest)
    plan = _plan(manifest, cache, config, retry_failed=retry_failed)
    new_frames = 0
    if plan.has_work or not exists:
        backbone = _load(config, with_text=bool(plan.texts or plan.questions))
        settings = {**_known_settings(config), **_backbone_settings(backbone)}
        layout = {name: settings.pop(name) for name in ("segments", "keep_frames")}
        record = _record(manifest, config, backbone)
        key = open_for_writing(cache, settings=settings, layout=layout, record=record)
        if not exists:  # the names of the work contain the key, which was not known before
            plan = _plan(manifest, cache, config, retry_failed=retry_failed, key=key)
        encode_texts(plan.texts, cache, config=config, backbone=backbone)
        encode_questions(plan.questions, cache, config=config, backbone=backbone)
        new_frames = encode_clips(
            plan.clips, cache, manifest=manifest, config=config, backbone=backbone
        )
    committed = read_committed(cache, "clips") if plan.clips else plan.committed_clips
    rows = [committed[clip_id] for clip_id in manifest.clips["clip_id"].to_pylist()]
    statuses = Counter(row["status"] for row in rows)
    return Summary(
        cache=str(cache),
        clips={status: statuses[status] for status in ("ok", "partial", "failed")},
        new_clips=sum(len(work.items) for work in plan.clips),
        new_frames=new_frames,
        new_texts=sum(len(work.items) for work in (*plan.texts, *plan.questions)),
        seconds=time.monotonic() - began,
        failures={row["clip_id"]: row["reason"] for row in rows if row["status"] == "failed"},
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    clips: list[Work]
    texts: list[Work]
    questions: list[Work]
    committed_clips: Committed

    @property
    def has_work(self) -> bool:
        return bool(self.clips or self.texts or self.questions)


def _plan(
    manifest: Manifest,
    cache: Path,
    config: ExtractConfig,
    *,
    retry_failed: bool,
    key: str | None = None,
) -> _Plan:
    if key is None:
        key = read_settings(cache)["key"] if settings_path(cache).exists() else ""
    clips = read_committed(cache, "clips", report=_say)
    texts = read_committed(cache, "texts", report=_say)
    questions = read_committed(cache, "questions", report=_say)
    return _Plan(
        clips=plan_clips(
            manifest, clips, retry_failed=retry_failed, shard_size=config.shard_clips, key=key
        ),
        texts=plan_rows(manifest.texts, "texts", texts, shard_size=SHARD_TEXTS, key=key),
        questions=plan_rows(
            manifest.questions, "questions", questions, shard_size=SHARD_TEXTS, key=key
        ),
        committed_clips=clips,
    )


def _adopt(config: ExtractConfig, content: dict[str, Any]) -> ExtractConfig:
    """What the user left open is taken from the existing cache."""
    if config.precision == "auto":
        config = replace(config, precision=content["settings"]["precision"])
    if not config.segments:
        config = replace(config, segments=tuple(content["layout"]["segments"]))
    return config


def _with_segments(config: ExtractConfig, manifest: Manifest) -> ExtractConfig:
    """The default rules for a new cache: the spans of the manifest's texts, where it has any, then
    uniform:4."""
    if config.segments:
        return config
    has_spans = pc.any(pc.is_valid(manifest.texts["start_seconds"])).as_py()
    return replace(config, segments=("spans", "uniform:4") if has_spans else ("uniform:4",))


def _known_settings(config: ExtractConfig) -> dict[str, Any]:
    """The settings that can be compared before a backbone is loaded, so that a second run can end
    at once."""
    known: dict[str, Any] = {"backbone": config.backbone, "fps": config.fps, "dtype": config.dtype}
    if config.tag is not None:
        known["pretrained"] = config.tag
    if config.checkpoint is not None and config.checkpoint.is_file():
        known["weights_sha256"] = source_sha256(config.checkpoint)
    if config.precision != "auto":
        known["precision"] = config.precision
    return {**known, "segments": list(config.segments), "keep_frames": config.keep_frames}


def _backbone_settings(backbone: Backbone) -> dict[str, Any]:
    return {
        "weights_sha256": backbone.weights_sha256,
        "precision": backbone.precision,
        "preprocessing": asdict(backbone.preprocessing),
        "width": backbone.width,
    }


def _record(manifest: Manifest, config: ExtractConfig, backbone: Backbone) -> dict[str, Any]:
    """What a reader of the cache wants to know of how it was made, beside what makes the key."""
    return {
        "videos_root": str(manifest.videos_root.resolve()),
        "dataset": manifest.name,
        "decoder": config.decoder,
        "device": str(backbone.device),
        "command": shlex.join(sys.argv),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in RECORDED},
    }


def _load(config: ExtractConfig, *, with_text: bool) -> Backbone:
    from .backbone import load_backbone

    backbone = load_backbone(
        config.backbone,
        tag=config.tag,
        checkpoint=config.checkpoint,
        precision=config.precision,
        device=config.device,
        with_text=with_text,
    )
    weights = "random weights: for trying out, not for results" if config.backbone == TINY else ""
    source = weights or str(config.checkpoint or config.tag)
    _say(f"backbone {config.backbone} ({source}), {backbone.precision} on {backbone.device}")
    return backbone


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
