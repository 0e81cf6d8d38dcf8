"""A worker on a Ray cluster: a backbone, and processes that decode for it. It runs the local
engine's code, fed from a queue."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayActorError

from ..cache.contract import CacheError, Unit, read_settings
from ..config import ExtractConfig
from ..decode.ffmpeg_check import check_program
from ..planning.plan import Work
from ..planning.progress import ProgressCounter, ProgressCounts, reported_progress
from .local import encode_unit, facts_of
from .protocol import EngineFacts

if TYPE_CHECKING:
    from ..encode.encoders import Encoders


@dataclass(frozen=True, kw_only=True, slots=True)
class RayJob:
    """What all workers are to do."""

    unit: Unit
    cache: Path
    key: str
    """Of the cache."""
    videos_root: Path
    facts: EngineFacts
    """What every worker's backbone must be."""


class RayWorker:
    """Made an actor by `engines.ray`. Ray may lose it at any time and start it anew elsewhere,
    which loads the backbone again."""

    def __init__(self, number: int) -> None:
        """number: among the workers of a run."""
        self._number = number
        self._loaded: Encoders | None = None

    def facts(self, config: ExtractConfig, *, with_text: bool) -> EngineFacts:
        """What its backbone is. Raises BackboneError."""
        return facts_of(self._encoders(config, with_text=with_text))

    def run(self, job: RayJob, queue: Any, config: ExtractConfig, *, with_text: bool) -> None:
        """Take works from the queue, the actor of a `ShardQueue`, until it has none; commit them.

        Raises CacheError when this machine sees other files or has other weights than the rest, or
        when the disk refuses.
        """
        _check_shared(job)
        if config.decoder == "ffmpeg":
            check_program(config.hwaccel)
        encoders = self._encoders(config, with_text=with_text)
        _check_equal(facts_of(encoders), job.facts)
        counter = ProgressCounter()

        def report(counts: ProgressCounts) -> None:
            with contextlib.suppress(RayActorError):  # the run is over: nobody asks any more
                ray.get(queue.report.remote(counts))

        with reported_progress(counter, report):
            encode_unit(
                job.unit,
                self._works(queue),
                job.cache,
                videos_root=job.videos_root,
                config=config,
                encoders=encoders,
                counter=counter,
            )

    def _works(self, queue: Any) -> Iterator[Work]:
        with contextlib.suppress(RayActorError):
            while (work := ray.get(queue.take.remote(self._number))) is not None:
                yield work

    def _encoders(self, config: ExtractConfig, *, with_text: bool) -> Encoders:
        if self._loaded is None:
            import torch

            from ..encode.encoders import load_encoders

            torch.set_num_threads(config.workers)  # its share of the machine
            self._loaded = load_encoders(config, with_text=with_text)
        return self._loaded


def _check_shared(job: RayJob) -> None:
    here, way_out = platform.node(), "with --engine ray, all machines must share these files"
    try:
        key = read_settings(job.cache)["key"]
    except CacheError as error:
        raise CacheError(f"{here} does not see the cache {job.cache}; {way_out}") from error
    if key != job.key:
        raise CacheError(f"{here} sees another cache at {job.cache}; {way_out}")
    if not job.videos_root.is_dir():
        raise CacheError(f"{here} does not see the videos in {job.videos_root}; {way_out}")


def _check_equal(ours: EngineFacts, wanted: EngineFacts) -> None:
    for name in ("weights_sha256", "precision", "preprocessing", "width"):
        if getattr(ours, name) != getattr(wanted, name):
            raise CacheError(
                f"the backbone of {platform.node()} is not that of the others: {name} is "
                f"{getattr(ours, name)} there and {getattr(wanted, name)} here; all machines need "
                "the same weights and versions"
            )
