"""From a manifest to a cache: check, plan what is missing, encode texts, encode clips, sum up."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..data_manifests.core.settings import settings_dict
from ..data_manifests.tables.schema import Manifest
from .cache.contract import DiskError, digest, read_settings, settings_path
from .cache.disk_files import put_file
from .cache.shards import live_rows, read_index
from .cache.writer import check_new, check_same, clear_leftovers, json_bytes, open_for_writing
from .cache_settings import (
    LAYOUT,
    adopted,
    backbone_settings,
    known_settings,
    resolved,
    without_addition,
)
from .config import TINY, ExtractConfig
from .decode.ffmpeg_check import check_program
from .encode.texts import cut_line, tokens_to_come
from .engines.protocol import Engine, open_engine
from .maintenance.resegment import complete_segments
from .planning.inputs import Inputs, JobPart, official_counts
from .planning.plan import Committed, Work, plan_clips, plan_rows, read_committed
from .planning.progress import ProgressCounts
from .planning.recipe import Recipe, check_recipe, other_versions
from .run_stats import ExtractSummary, PhaseClock, bytes_of_shards, made_with, write_run_stats
from .segments.shots import check_installed

SHARD_TEXTS = 4096
SHARD_TEXTS_WITH_TOKENS = 512
"""A shard's tokens are in memory together: 77 of each text, 1024 wide, take 80 MB as float16."""


def extract_manifest(
    manifest: Manifest,
    cache: Path,
    config: ExtractConfig,
    *,
    retry_failed: bool = False,
    part: JobPart | None = None,
    recipe: Recipe | None = None,
    inputs: Inputs | None = None,
) -> ExtractSummary:
    """Put the features of a manifest's clips, texts and questions into a cache, where missing.

    retry_failed: also clips that failed before and have not changed since. part: only that part of
    the manifest; the summary speaks of it alone. recipe: the cache must come out with its key.
    inputs: where the manifest comes from, for the record.
    Raises CacheError when the cache was made otherwise, RecipeError when it would not be the
    recipe's, DiskError when it cannot be written, BackboneError when the weights cannot be had. A
    clip that fails is a row with its reason, never an exception.
    """
    clock = PhaseClock()
    exists = settings_path(cache).exists()
    config = _settled(manifest, cache, config, recipe)
    if part is not None:  # the default rules were chosen by the whole
        manifest = part.of(manifest)
    with clock.phase("plan"):
        plan = _plan(manifest, cache, config, retry_failed=retry_failed)
    if config.shots and plan.clips:
        check_installed()
    if config.decoder == "ffmpeg" and config.engine == "local" and plan.clips:
        check_program(config.hwaccel)
    encoded = ProgressCounts()
    made: dict[str, Any] = {}
    if plan.has_work or not exists:
        with contextlib.ExitStack() as opened:
            with clock.phase("load"):
                with_text = bool(plan.texts or plan.questions)
                engine = opened.enter_context(open_engine(config, with_text=with_text, say=_say))
                _say(f"backbone {_backbone_name(config)}, {engine.facts.where}")
            made = made_with(config, engine.facts)
            record = _record(manifest, config, inputs, made)
            key = _open(cache, config, engine, recipe, record)
            if not exists:  # the names of the work contain the key, which was not known before
                plan = _plan(manifest, cache, config, retry_failed=retry_failed, key=key)
            encoded = _encode(engine, plan, cache, config, manifest, clock)
    if config.keep_frames:
        # By the rules now in force: resegment may have changed them meanwhile.
        rules = read_settings(cache)["layout"]["segments"]
        complete_segments(cache, rules, report=_say)
    summary = _summary(cache, manifest, plan, encoded, clock)
    if plan.has_work:  # a run that finds nothing to do leaves the cache as it is
        facts = {"shard": part and str(part), "config": settings_dict(config), **made}
        facts["waited_seconds"] = encoded.waited
        _write_stats(cache, clock, plan, summary, facts)
    return summary


def _settled(
    manifest: Manifest, cache: Path, config: ExtractConfig, recipe: Recipe | None
) -> ExtractConfig:
    """The settings with what an existing cache, or the manifest, decides. Raises CacheError and
    RecipeError where a cache that is there does not fit them."""
    if not settings_path(cache).exists():
        check_new(cache)
        return resolved(config, manifest)
    config = adopted(config, read_settings(cache))
    check_same(cache, without_addition(config, known_settings(config)))
    clear_leftovers(cache)
    if recipe is not None:
        check_recipe(recipe, read_settings(cache))
    return config


def _open(
    cache: Path,
    config: ExtractConfig,
    engine: Engine,
    recipe: Recipe | None,
    record: Mapping[str, Any],
) -> str:
    """Make the cache, or check that it was made with these settings and this backbone; its key."""
    settings = {**known_settings(config), **backbone_settings(engine.facts)}
    layout = {name: settings.pop(name) for name in ("segments", *LAYOUT)}
    if recipe is not None:
        check_recipe(recipe, {"settings": settings, "layout": layout})
        _say_other_versions(recipe, record["versions"])
    if settings_path(cache).exists() and config.keep_tokens:
        check_same(cache, without_addition(config, {**settings, **layout}))
        _begin_to_keep_tokens(cache)
    return open_for_writing(cache, settings=settings, layout=layout, record=record)


def _encode(
    engine: Engine,
    plan: _Plan,
    cache: Path,
    config: ExtractConfig,
    manifest: Manifest,
    clock: PhaseClock,
) -> ProgressCounts:
    """Texts and questions first, then clips; what was done of the clips."""
    encode = partial(engine.encode, cache=cache, videos_root=manifest.videos_root)
    with clock.phase("texts"):
        if plan.texts and (line := cut_line(plan.texts, config=config)) is not None:
            _say(line)
        if config.keep_tokens and plan.texts:
            _say(tokens_to_come(plan.texts, config=config, width=engine.facts.width))
        encode("texts", plan.texts)
        encode("questions", plan.questions)
    with clock.phase("clips"):
        return encode("clips", plan.clips)


def _summary(
    cache: Path, manifest: Manifest, plan: _Plan, encoded: ProgressCounts, clock: PhaseClock
) -> ExtractSummary:
    committed = plan.committed_clips
    if plan.clips:  # from the index alone: every shard was checked when this run was planned
        live = live_rows(read_index(cache, "clips"), "clips")
        committed = {row["clip_id"]: row for row in live.to_pylist()}
    rows = [committed[clip_id] for clip_id in manifest.clips["clip_id"].to_pylist()]
    statuses = Counter(row["status"] for row in rows)
    return ExtractSummary(
        cache=str(cache),
        clips={status: statuses[status] for status in ("ok", "partial", "failed")},
        new_clips=sum(len(work.items) for work in plan.clips),
        new_frames=encoded.frames,
        new_texts=sum(len(work.items) for work in (*plan.texts, *plan.questions)),
        seconds=clock.total_seconds,
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

    @property
    def shards(self) -> list[str]:
        """Names of what is to be committed."""
        return [work.name for work in (*self.clips, *self.texts, *self.questions)]


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
            manifest,
            clips,
            retry_failed=retry_failed,
            shard_size=config.shard_clips,
            key=digest([key, config.segments]),  # a clip shard has segments, too
        ),
        texts=plan_rows(
            manifest.texts,
            "texts",
            texts,
            shard_size=SHARD_TEXTS_WITH_TOKENS if config.keep_tokens else SHARD_TEXTS,
            key=key,
            with_tokens=bool(config.keep_tokens),
        ),
        questions=plan_rows(
            manifest.questions, "questions", questions, shard_size=SHARD_TEXTS, key=key
        ),
        committed_clips=clips,
    )


def _begin_to_keep_tokens(cache: Path) -> None:
    """From now on the cache has tokens, and texts without them are to be encoded again."""
    content = read_settings(cache)
    changed = {**content, "layout": {**content["layout"], "keep_tokens": True}}
    if "config" in content:
        changed["config"] = {**content["config"], "keep_tokens": True}
    if changed != content:
        put_file(settings_path(cache), json_bytes(changed))


def _record(
    manifest: Manifest, config: ExtractConfig, inputs: Inputs | None, made: dict[str, Any]
) -> dict[str, Any]:
    """What a reader of the cache wants to know of how it was made, beside what makes the key."""
    checkpoint = config.checkpoint
    return {
        "videos_root": str(manifest.videos_root.resolve()),
        "dataset": manifest.name,
        "official": official_counts(manifest),
        "inputs": inputs and inputs.record(),
        "config": settings_dict(config),
        "checkpoint": checkpoint and str(checkpoint.resolve()),
        **made,
    }


def _write_stats(
    cache: Path, clock: PhaseClock, plan: _Plan, summary: ExtractSummary, facts: dict[str, Any]
) -> None:
    """The run's file in CACHE/runs. Without room for it all is done, and nothing has failed."""
    content = {
        "frames_per_second": clock.rate(summary.new_frames, phase="clips"),
        "bytes_written": bytes_of_shards(cache, plan.shards),
        "summary": asdict(summary),
        **facts,
    }
    try:
        write_run_stats(cache, clock, content)
    except DiskError as error:
        _say(f"the run's statistics are not kept: {error}")


def _say_other_versions(recipe: Recipe, versions: dict[str, str]) -> None:
    """Other versions may change the last digits of features: worth a line, not an error."""
    if others := other_versions(recipe, versions):
        _say(f"other versions than the recipe's: {', '.join(others)}")


def _backbone_name(config: ExtractConfig) -> str:
    """For a person: the model, and where its weights are from."""
    weights = "random weights: for trying out, not for results" if config.backbone == TINY else ""
    return f"{config.backbone} ({weights or config.checkpoint or config.tag})"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
