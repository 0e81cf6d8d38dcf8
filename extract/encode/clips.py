"""Clips through the image towers: decoding processes ahead, batches that mix clips, shards
committed when whole."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...data_manifests.core.file_names import video_file
from ..cache.contract import CacheError
from ..cache.spool import Spool
from ..cache.writer import commit_shard
from ..config import ExtractConfig
from ..decode.clip_reader import Chunk, ClipFailure, ClipTask, DecodeSettings, Message
from ..decode.worker_pool import LocalDecoders
from ..planning.plan import Item, Work
from ..planning.progress import ProgressCounter, ProgressCounts, printable
from ..segments.sampling import Sampling
from .clip_shard import Clip, ClipShard

if TYPE_CHECKING:
    from .encoders import Encoders

STOP_AFTER_CLIPS = 5
"""When the first clips all fail by the same crash, the machine or an installed library is at fault,
not so many files: the run stops, and none of them is kept as failed."""

PAUSE_SECONDS = 0.5
"""When decoding pauses for so long, features that have come meanwhile are put to use."""


def encode_clips(
    works: Iterable[Work],
    cache: Path,
    *,
    videos_root: Path,
    config: ExtractConfig,
    encoders: Encoders,
    counter: ProgressCounter,
    committed: Callable[[str], None] = lambda name: None,
) -> None:
    """Commit the features of all clips; `committed` hears the name of every shard.

    works is iterated in another thread, as decoding goes on.
    Raises CacheError when the disk refuses (what was committed stays) or when the first clips all
    crash alike.
    """
    decoders = LocalDecoders(
        DecodeSettings(
            decoder=config.decoder,
            sampling=Sampling(fps=config.fps, rule=config.sampling),
            image_fps=config.image_fps,
            preprocessing=encoders.backbone.preprocessing,
            limits=config.limits,
            hwaccel=config.hwaccel,
            find_shots=bool(config.shots),
        ),
        num_workers=config.workers,
    )
    run = _Run(
        cache,
        videos_root=videos_root,
        config=config,
        encoders=encoders,
        counter=counter,
        committed=committed,
    )
    messages = decoders.decode_with_pauses(run.tasks(works), pause_seconds=PAUSE_SECONDS)
    try:
        while True:
            with counter.waiting("decoder"):
                event = next(messages, _OVER)
            if isinstance(event, _Over):
                break
            if event is not None:
                task, message = event
                run.receive(task.clip_id, message)
            run.encode_full_batches()
        run.finish()
    finally:
        messages.close()
        run.close()


class _Over:
    """The end of all messages."""


_OVER = _Over()


@dataclass(slots=True, eq=False)
class _OpenShard:
    """A shard's clips until it is committed."""

    work: Work
    spool: Spool
    clips: dict[str, Clip]
    num_missing: int


@dataclass(slots=True, eq=False)
class _Batch:
    """Pictures on their way through a backbone."""

    clips: list[Clip]
    """Of each picture."""
    features: Future[np.ndarray]


class _Run:
    """The clips between decoding and their committed shard."""

    def __init__(
        self,
        cache: Path,
        *,
        videos_root: Path,
        config: ExtractConfig,
        encoders: Encoders,
        counter: ProgressCounter,
        committed: Callable[[str], None],
    ) -> None:
        self._cache = cache
        self._videos_root = videos_root
        self._config = config
        self._encoders = encoders
        self._batch_frames = config.batch_frames or encoders.usual_batch_frames
        self._counter = counter
        self._committed = committed
        self._shard_of: dict[str, _OpenShard] = {}
        self._waiting: list[tuple[Clip, np.ndarray]] = []
        self._in_flight: deque[_Batch] = deque()
        self._crashes: list[str] | None = []
        """Reasons of the first clips, as long as all crashed alike; None: decoding works."""
        self._held: list[_OpenShard] = []
        """Shards of such clips."""

    def tasks(self, works: Iterable[Work]) -> Iterator[ClipTask]:
        """What the decoders are to do. Runs in their thread: it only adds clips of which this one
        has heard nothing yet."""
        for work in works:
            spool = Spool(self._cache)
            clips = {clip.clip_id: clip for clip in (Clip(item, spool) for item in work.items)}
            shard = _OpenShard(work=work, spool=spool, clips=clips, num_missing=len(clips))
            self._shard_of |= dict.fromkeys(clips, shard)
            for item in work.items:
                yield self._task(item)

    def receive(self, clip_id: str, message: Message) -> None:
        """Take in what a decoder says of a clip."""
        clip = self._shard_of[clip_id].clips[clip_id]
        if self._crashes is not None:
            self._watch_first_clips(message, self._crashes)
        if isinstance(message, Chunk):
            clip.num_pictures += len(message.pictures)
            self._waiting += [(clip, picture) for picture in message.pictures]
            clip.samples.append(replace(message, pictures=message.pictures[:0].copy()))
            return
        clip.end = message
        counts = ProgressCounts(clips=1)
        if isinstance(message, ClipFailure):
            counts.failed = 1
            counts.lines.append(f"failed: {printable(clip_id)}: {printable(message.reason)}")
            # What came before the failure is of no use.
            self._waiting = [entry for entry in self._waiting if entry[0] is not clip]
        self._counter.count(counts)
        if clip.is_done:
            self._settle(clip)

    def _watch_first_clips(self, message: Message, crashes: list[str]) -> None:
        """Raises CacheError at the last of STOP_AFTER_CLIPS crashes that are all the same."""
        if isinstance(message, ClipFailure) and message.cause == "crash":
            crashes.append(message.reason)
            if len(set(crashes)) == 1:
                if len(crashes) == STOP_AFTER_CLIPS:
                    raise CacheError(
                        f"the first {STOP_AFTER_CLIPS} clips all failed in the same way, which is "
                        f"hardly their fault: {crashes[0]}. The run stops here and keeps none of "
                        "them as failed; check the installation with one video that plays"
                    )
                return
        self._crashes = None
        for shard in self._held:
            self._commit(shard)
        self._held.clear()

    def encode_full_batches(self) -> None:
        """Send the waiting pictures off, batch by batch, of whichever clips; gather what is
        done."""
        while len(self._waiting) >= self._batch_frames:
            self._encode_batch()
        while self._in_flight and self._in_flight[0].features.done():
            self._gather()

    def finish(self) -> None:
        """Encode and gather all there is."""
        while self._waiting:
            self._encode_batch()
        while self._in_flight:
            self._gather()
        for shard in self._held:  # fewer clips than it takes to blame the machine
            self._commit(shard)

    def close(self) -> None:
        """Let go of what was not committed."""
        for shard in (*self._shard_of.values(), *self._held):
            shard.spool.close()

    def _encode_batch(self) -> None:
        while len(self._in_flight) >= self._encoders.max_in_flight:
            self._gather()
        size = self._batch_frames
        batch, self._waiting = self._waiting[:size], self._waiting[size:]
        # Batches of one shape: a frame's feature must not depend on how many frames come with it.
        pictures = np.zeros((size, *batch[0][1].shape), dtype=np.uint8)
        np.stack([picture for _, picture in batch], out=pictures[: len(batch)])
        features = self._encoders.encode(pictures)
        self._in_flight.append(_Batch(clips=[clip for clip, _ in batch], features=features))

    def _gather(self) -> None:
        """Hand the features of the oldest batch to its clips."""
        batch = self._in_flight.popleft()
        with self._counter.waiting("encoder"):
            features = batch.features.result()
        with np.errstate(over="ignore"):  # an overflow fails the clip, with its reason
            stored = features.astype(self._config.dtype)
        self._counter.count(ProgressCounts(frames=len(batch.clips)))
        for clip, feature in zip(batch.clips, stored, strict=False):
            # A clip that failed meanwhile has no use for it and may be committed already.
            if not isinstance(clip.end, ClipFailure):
                clip.add_feature(feature)
        for clip in {clip.clip_id: clip for clip in batch.clips}.values():
            if clip.is_done and not isinstance(clip.end, ClipFailure):
                self._settle(clip)

    def _settle(self, clip: Clip) -> None:
        """A clip is done, once; commit the shard of which it was the last to be."""
        shard = self._shard_of.pop(clip.clip_id)
        shard.num_missing -= 1
        if shard.num_missing == 0 and self._crashes:
            self._held.append(shard)
        elif shard.num_missing == 0:
            self._commit(shard)

    def _commit(self, shard: _OpenShard) -> None:
        content = ClipShard(
            width=self._encoders.backbone.width,
            dtype=self._config.dtype,
            segment_rules=self._config.segments,
            keep_frames=self._config.keep_frames,
        )
        for item in shard.work.items:
            content.add(shard.clips[item.row["clip_id"]], self._video_file(item))
        commit_shard(
            self._cache,
            "clips",
            shard.work.name,
            arrays=content.arrays(),
            tables={"clips": content.clip_rows, "segments": content.segment_rows},
        )
        shard.spool.close()
        self._committed(shard.work.name)

    def _task(self, item: Item) -> ClipTask:
        return ClipTask(
            clip_id=item.row["clip_id"],
            # Unlike Path.resolve, it leaves a link to itself for check_source to refuse.
            path=Path(os.path.realpath(self._video_file(item))),
            start_seconds=item.row["start_seconds"] or 0.0,
            end_seconds=item.row["end_seconds"],
        )

    def _video_file(self, item: Item) -> Path:
        return video_file(self._videos_root, item.row["video_path"])
