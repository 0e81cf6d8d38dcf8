"""Import features of another tool: planned, committed and resumed like an extraction."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from ...data_manifests.core.progress_bar import ProgressBar
from ...data_manifests.tables.schema import Manifest
from ..cache.contract import DiskError, digest, feature_width, read_settings, settings_path
from ..cache.shards import live_rows, read_index
from ..cache.spool import Spool
from ..cache.writer import check_new, commit_shard, open_for_writing
from ..cache_settings import default_segments
from ..decode.clip_reader import ClipFailure
from ..decode.sources import source_facts
from ..encode.clip_shard import Clip, ClipShard
from ..maintenance.resegment import complete_segments
from ..planning.inputs import Inputs, official_counts
from ..planning.plan import Work, plan_clips, read_committed
from ..planning.progress import printable
from ..run_stats import PhaseClock, write_run_stats
from .clips import fill
from .keys import ClipKey, clip_keys, question_keys, text_keys
from .settings import ImportedFeatures, ImportSettings, detect_widths
from .sources import FeatureError
from .summary import ImportSummary
from .texts import import_questions, import_texts, plan_imported

SHARD_CLIPS: Final = 128


def import_features(
    manifest: Manifest,
    cache: Path,
    imported: ImportedFeatures,
    settings: ImportSettings,
    *,
    inputs: Inputs,
) -> ImportSummary:
    """Import the features of a manifest's clips and texts into a cache, where new or changed.

    Raises CacheError when the cache was made otherwise or the features do not make one cache,
    DiskError when it cannot be written. A clip without usable features is a row with its reason.
    """
    clock = PhaseClock()
    run = _Run(cache, manifest, imported, inputs=inputs, settings=settings)
    clips, texts, questions = run.plan()
    with clock.phase("texts"):
        run.import_texts(texts)
        run.import_questions(questions)
    with clock.phase("clips"):
        run.import_clips(clips)
    complete_segments(cache, read_settings(cache)["layout"]["segments"], report=_say)
    live = live_rows(read_index(cache, "clips"), "clips")
    wanted = set(manifest.clips["clip_id"].to_pylist())
    rows = [row for row in live.to_pylist() if row["clip_id"] in wanted]
    statuses = Counter(row["status"] for row in rows)
    used = {place.key for place in run.clip_keys.values()}
    sources = [imported.video, imported.text, imported.questions]
    done = ImportSummary(
        cache=str(cache),
        clips={status: statuses[status] for status in ("ok", "partial", "failed")},
        new_clips=sum(len(work.items) for work in clips),
        new_texts=sum(len(work.items) for work in texts) - len(run.text_failures),
        seconds=clock.total_seconds,
        failures={row["clip_id"]: row["reason"] for row in rows if row["status"] == "failed"},
        unused=[key for key in imported.video.files if key not in used],
        texts_without_features=run.texts_without_features,
        text_failures=run.text_failures,
        num_questions=manifest.questions.num_rows,
        has_questions=imported.questions is not None,
        new_questions=sum(len(work.items) for work in questions) - len(run.question_failures),
        questions_without_features=run.questions_without_features,
        question_failures=run.question_failures,
        problems=[problem for source in sources if source for problem in source.problems],
    )
    if clips or texts or questions:
        _write_stats(cache, clock, done)
    return done


@dataclass(slots=True)
class _Run:
    """A running import."""

    cache: Path
    manifest: Manifest
    imported: ImportedFeatures
    inputs: Inputs = field(kw_only=True)
    settings: ImportSettings = field(kw_only=True)
    widths: dict[str, int] = field(init=False)
    rules: tuple[str, ...] = field(init=False)
    clip_keys: dict[str, ClipKey] = field(init=False)
    text_keys: dict[str, str] = field(init=False)
    question_keys: dict[str, tuple[str | None, ...]] = field(init=False)
    text_failures: dict[str, str] = field(init=False, default_factory=dict)
    question_failures: dict[str, str] = field(init=False, default_factory=dict)

    @property
    def texts_without_features(self) -> list[str]:
        if self.imported.text is None:
            return []
        return [i for i in self.manifest.texts["text_id"].to_pylist() if i not in self.text_keys]

    @property
    def questions_without_features(self) -> list[str]:
        if self.imported.questions is None:
            return []
        ids = self.manifest.questions["question_id"].to_pylist()
        return [i for i in ids if i not in self.question_keys]

    def plan(self) -> tuple[list[Work], list[Work], list[Work]]:
        """Open the cache; the clips, texts and questions that are new or changed."""
        self.clip_keys = clip_keys(self.manifest.clips.to_pylist(), self.imported.video.files)
        text_ids = self.manifest.texts["text_id"].to_pylist()
        text = self.imported.text
        self.text_keys = {} if text is None else text_keys(text_ids, text.files)
        questions = self.imported.questions
        self.question_keys = (
            {} if questions is None else question_keys(self.manifest.questions, questions.files)
        )
        self._open()
        key = read_settings(self.cache)["key"]
        clips = plan_clips(
            self.manifest,
            read_committed(self.cache, "clips", report=_say),
            retry_failed=False,
            shard_size=SHARD_CLIPS,
            key=digest([key, self.rules]),
            source_changed=self._has_changed,
        )
        text_rows = {text_id: (key,) for text_id, key in self.text_keys.items()}
        plan = partial(plan_imported, self.manifest, self.cache, key=key, report=_say)
        texts = plan("texts", text, text_rows)
        return clips, texts, plan("questions", questions, self.question_keys)

    def import_clips(self, works: Sequence[Work]) -> None:
        num_clips = sum(len(work.items) for work in works)
        video = self.imported.video
        with ProgressBar(label="importing", total=num_clips, unit="clips") as bar:
            for work in works:
                shard = ClipShard(
                    width=self.widths["width"],
                    dtype=self.settings.dtype,
                    segment_rules=self.rules,
                    keep_frames=True,
                )
                spool = Spool(self.cache)
                try:
                    for item in work.items:
                        clip = Clip(item, spool)
                        place = self.clip_keys.get(clip.clip_id)
                        fill(
                            clip,
                            video,
                            place,
                            period=self.settings.seconds_per_feature,
                            width=self.widths["width"],
                            dtype=self.settings.dtype,
                        )
                        shard.add(clip, None if place is None else video.files[place.key])
                        if isinstance(clip.end, ClipFailure):
                            bar.print(printable(f"{clip.clip_id}: failed: {clip.end.reason}"))
                        bar.advance()
                    tables = {"clips": shard.clip_rows, "segments": shard.segment_rows}
                    commit_shard(
                        self.cache, "clips", work.name, arrays=shard.arrays(), tables=tables
                    )
                finally:
                    spool.close()

    def import_texts(self, works: Sequence[Work]) -> None:
        if self.imported.text is not None:
            import_texts(
                works,
                self.cache,
                source=self.imported.text,
                keys=self.text_keys,
                width=feature_width(self.widths, "texts"),
                dtype=self.settings.dtype,
                failed=self.text_failures.__setitem__,
            )

    def import_questions(self, works: Sequence[Work]) -> None:
        if self.imported.questions is not None:
            import_questions(
                works,
                self.cache,
                source=self.imported.questions,
                keys=self.question_keys,
                width=feature_width(self.widths, "questions"),
                dtype=self.settings.dtype,
                failed=self.question_failures.__setitem__,
            )

    def _open(self) -> None:
        """Make the cache, or check that it was made the same way."""
        settings = {
            **self.imported.settings(),
            "seconds_per_feature": float(self.settings.seconds_per_feature),
            "dtype": self.settings.dtype,
        }
        rules = self.settings.segments
        if settings_path(self.cache).exists():
            content = read_settings(self.cache)
            rules = rules or tuple(content["layout"]["segments"])
            # A source that has become empty or damaged must not change what the cache is.
            made = content["settings"]
            self.widths = {name: made[name] for name in ("width", "text_width") if name in made}
        else:
            check_new(self.cache)
            rules = rules or default_segments(self.manifest)
            places = [place.key for place in self.clip_keys.values()]
            questions = [
                key for keys in self.question_keys.values() for key in keys if key is not None
            ]
            texts = list(self.text_keys.values())
            self.widths = detect_widths(
                self.imported, places, texts, questions, manifest=self.manifest
            )
        self.rules = rules
        open_for_writing(
            self.cache,
            settings={**settings, **self.widths},
            layout={
                "segments": list(rules),
                "keep_frames": True,
                "keep_tokens": False,
                "shots": False,
            },
            record={
                "videos_root": str(self.manifest.videos_root.resolve()),
                "dataset": self.manifest.name,
                "official": official_counts(self.manifest),
                "inputs": self.inputs.record(),
                **_made(),
            },
        )

    def _has_changed(self, row: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
        """Whether a clip's features are no longer those that were imported; missing ones have not
        changed. Equal size and time of change are believed; otherwise the bytes decide."""
        place = self.clip_keys.get(row["clip_id"])
        if place is None:
            return False
        facts = source_facts(self.imported.video.files[place.key])
        if facts == (before["source_bytes"], before["source_mtime_ns"]):
            return False
        try:
            return bool(self.imported.video.read(place.key).sha256 != before["source_sha256"])
        except FeatureError:
            return True


def _made() -> dict[str, Any]:
    packages = ("mlalign", "numpy", "h5py", "pyarrow")
    return {
        "command": shlex.join(sys.argv),
        "host": platform.node(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


def _write_stats(cache: Path, clock: PhaseClock, done: ImportSummary) -> None:
    """The run's file in CACHE/runs. Without room for it all is done, and nothing has failed."""
    try:
        counts = {"clips": done.clips, "new_clips": done.new_clips, "new_texts": done.new_texts}
        write_run_stats(cache, clock, {"import": counts, **_made()})
    except DiskError as error:
        _say(f"the run's statistics are not kept: {error}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
