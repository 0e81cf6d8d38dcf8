"""One clip from file to preprocessed pictures: what a decoding process does, chunk by chunk."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ..config import DecoderLimits, DecoderName, HardwareName
from ..segments.sampling import Sampling
from ..segments.shots import ShotDetector
from .preprocessing import Preprocessing
from .protocol import DecodeError, DecodeResult, Heartbeat, no_heartbeat, open_decoder
from .sources import check_source, source_sha256

CHUNK_PICTURES = 16
"""Pictures per message: enough to make messages rare, few enough to keep the encoder fed evenly."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipTask:
    """What a decoding process needs to know of a clip."""

    clip_id: str
    path: Path
    start_seconds: float
    end_seconds: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeSettings:
    """What is the same for all clips of a run."""

    decoder: DecoderName
    sampling: Sampling
    preprocessing: Preprocessing
    limits: DecoderLimits
    hwaccel: HardwareName | None = None
    find_shots: bool = False
    image_fps: float | None = None
    """Of clips that are folders of images."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """Some of a clip's pictures, in order. A picture that is shown at several instants comes
    once."""

    pictures: np.ndarray
    """(n, height, width, 3) uint8, resized and cropped, not normalised; may be empty."""
    sample_seconds: np.ndarray
    """(m,) float64."""
    seconds: np.ndarray
    """(m,) float64, when the frame shown at that instant came up."""
    picture_index: np.ndarray
    """(m,) int64, which of all the clip's pictures is shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipEnd:
    """The clip is decoded to its end."""

    result: DecodeResult
    source_sha256: str
    shot_seconds: tuple[float, ...] | None = None
    """When its second, third ... shot begins; None when they were not looked for."""


Stage = Literal["open", "decode", "worker", "encode"]
"""Where a clip failed: before its first frame, after it, with the decoding process (it crashed,
stalled or took too much memory), or with its features."""


Cause = Literal["file", "limit", "crash"]
"""What a failure is blamed on: the file, a limit of the settings, or a decoding process that broke
off or met an error that nobody foresaw, where the machine may be at fault."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipFailure:
    """The clip gives no features."""

    reason: str
    stage: Stage
    cause: Cause = "file"


Message = Chunk | ClipEnd | ClipFailure


def read_clip(
    task: ClipTask, settings: DecodeSettings, *, heartbeat: Heartbeat = no_heartbeat
) -> Iterator[Message]:
    """Chunks and then a ClipEnd, or, at any point, a ClipFailure as the last message.

    heartbeat: told of progress between them, by another thread as well.
    """
    stage: Stage = "open"
    try:
        check_source(task.path, image_fps=settings.image_fps)
        sha256 = source_sha256(task.path, heartbeat=heartbeat)
        decoder = open_decoder(
            settings.decoder,
            task.path,
            sampling=settings.sampling,
            image_fps=settings.image_fps,
            start=task.start_seconds,
            end=task.end_seconds,
            limits=settings.limits,
            hwaccel=settings.hwaccel,
            heartbeat=heartbeat,
        )
        collector = _Collector()
        shots = ShotDetector() if settings.find_shots else None
        num_samples = 0
        for sample in decoder:
            stage = "decode"
            heartbeat()
            num_samples += 1
            if num_samples > settings.limits.max_samples:
                limit = settings.limits.max_samples
                raise DecodeError(f"more than {limit} frames are sampled (limits.max_samples)")
            if sample.seconds != collector.last_seconds:
                shown = sample.picture()
                if shots is not None:
                    shots.add(shown, sample_seconds=sample.sample_seconds)
                picture = settings.preprocessing.apply(shown)
                collector.add_picture(picture, seconds=sample.seconds)
            collector.add_sample(sample.sample_seconds)
            if collector.is_full:
                yield collector.take()
        yield collector.take()
        yield ClipEnd(
            result=decoder.result(),
            source_sha256=sha256,
            shot_seconds=shots.shot_seconds if shots is not None else None,
        )
    except DecodeError as error:
        yield ClipFailure(reason=str(error), stage=stage)
    except MemoryError:
        limit_gib = settings.limits.memory_gib
        reason = f"decoding takes over {limit_gib:g} GiB (limits.memory_gib)"
        yield ClipFailure(reason=reason, stage="worker", cause="limit")
    except OSError as error:
        yield ClipFailure(reason=error.strerror or str(error), stage=stage)
    except Exception as error:  # a fault of ours, or a library of another version
        yield ClipFailure(reason=_unexpected(error), stage="worker", cause="crash")


def _unexpected(error: Exception) -> str:
    """The error and the line of code that it comes from."""
    *_, place = traceback.extract_tb(error.__traceback__)
    where = f"{Path(place.filename).name}:{place.lineno}"
    return f"unexpected {type(error).__name__} at {where}: {error}"


class _Collector:
    """Gathers samples into the next chunk."""

    def __init__(self) -> None:
        self.last_seconds: float | None = None
        self._num_pictures = 0
        self._pictures: list[np.ndarray] = []
        self._samples: list[tuple[float, float, int]] = []

    @property
    def is_full(self) -> bool:
        return len(self._pictures) >= CHUNK_PICTURES or len(self._samples) >= 4096

    def add_picture(self, picture: np.ndarray, *, seconds: float) -> None:
        self._pictures.append(picture)
        self._num_pictures += 1
        self.last_seconds = seconds

    def add_sample(self, sample_seconds: float) -> None:
        assert self.last_seconds is not None, "a sample before its picture"
        self._samples.append((sample_seconds, self.last_seconds, self._num_pictures - 1))

    def take(self) -> Chunk:
        table = np.array(self._samples, dtype=np.float64).reshape(-1, 3)
        pictures = np.stack(self._pictures) if self._pictures else np.empty((0, 0, 0, 3), np.uint8)
        self._pictures, self._samples = [], []
        return Chunk(
            pictures=pictures,
            sample_seconds=table[:, 0],
            seconds=table[:, 1],
            picture_index=table[:, 2].astype(np.int64),
        )
