"""What a run took and how it came about: seconds per phase, bytes written, libraries, machine,
command."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import shlex
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cache.contract import runs_folder, shard_path
from .cache.disk_files import put_file
from .cache.writer import json_bytes
from .config import ExtractConfig
from .segments.shots import detector_version

if TYPE_CHECKING:
    from .engines.protocol import EngineFacts


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractSummary:
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


class PhaseClock:
    """Adds up the seconds that the phases of a run take."""

    def __init__(self) -> None:
        self.began = datetime.now(UTC)
        self._start = time.monotonic()
        self._seconds: defaultdict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what happens inside to a phase."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._seconds[name] += time.monotonic() - start

    @property
    def total_seconds(self) -> float:
        return time.monotonic() - self._start

    @property
    def phase_seconds(self) -> dict[str, float]:
        return {name: round(value, 3) for name, value in self._seconds.items()}

    def rate(self, count: int, *, phase: str) -> float | None:
        """So many per second of a phase; None when it took no time."""
        seconds = self._seconds.get(phase, 0.0)
        return round(count / seconds, 3) if seconds else None


def bytes_of_shards(cache: Path, names: Iterable[str]) -> int:
    """What shards (names without ending) and their index files take on disk."""
    total = 0
    for name in names:
        for path in (shard_path(cache, f"{name}.h5"), *cache.glob(f"index/*/{name}.parquet")):
            with contextlib.suppress(FileNotFoundError):
                total += path.stat().st_size
    return total


def write_run_stats(cache: Path, clock: PhaseClock, content: Mapping[str, Any]) -> Path:
    """CACHE/runs/<UTC time>-<host>-<pid>.json, with the clock's times in it. Raises DiskError."""
    stamp = clock.began.strftime("%Y%m%dT%H%M%S")
    path = runs_folder(cache) / f"{stamp}-{platform.node()}-{os.getpid()}.json"
    times = {
        "began": clock.began.isoformat(timespec="seconds"),
        "seconds": round(clock.total_seconds, 3),
        "phase_seconds": clock.phase_seconds,
    }
    put_file(path, json_bytes({**times, **content}))
    return path


PACKAGES = ("mlalign", "av", "torch", "open_clip_torch", "pillow", "numpy", "h5py", "pyarrow")


def made_with(config: ExtractConfig, facts: EngineFacts) -> dict[str, Any]:
    """Device, precision, decoder, versions and command of this run, for JSON."""
    return {
        "decoder": config.decoder,
        "engine": config.engine,
        "device": ", ".join(facts.devices),
        "device_name": facts.device_name,
        "precision": facts.precision,
        "command": shlex.join(sys.argv),
        "host": platform.node(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": versions(config),
    }


def versions(config: ExtractConfig) -> dict[str, str]:
    """Name to version of the packages, of ffmpeg's libraries as PyAV has them, of the ffmpeg
    program where that decodes, and of the shot detector where that is at work."""
    import av

    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    for name, numbers in sorted(av.library_versions.items()):
        found[name] = ".".join(map(str, numbers))
    if config.decoder == "ffmpeg":
        from .decode.ffmpeg_check import program_version

        found["ffmpeg"] = program_version()
    if config.shots:
        found["scenedetect"] = detector_version()
    return found
