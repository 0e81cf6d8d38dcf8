"""Clips through the image tower: decoding processes ahead, batches that mix clips, shards committed
when whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..data_manifests.schema import Manifest
from .clip_shard import Clip, ClipShard
from .config import ExtractConfig
from .engines import LocalDecoders
from .frames import Chunk, ClipFailure, ClipTask, DecodeSettings, Message
from .planning import Item, Work
from .progress import Progress, printable
from .writer import commit_shard

if TYPE_CHECKING:
    from .backbone import Backbone


def encode_clips(
    works: Sequence[Work],
    cache: Path,
    *,
    manifest: Manifest,
    config: ExtractConfig,
    backbone: Backbone,
) -> int:
    """Commit the features of all clips; the number of pictures that went through the tower.

    Raises CacheError when the disk refuses; what was committed stays.
    """
    items = [item for work in works for item in work.items]
    if not items:
        return 0
    decoders = LocalDecoders(
        DecodeSettings(
            decoder=config.decoder,
            fps=config.fps,
            preprocessing=backbone.preprocessing,
            limits=config.limits,
        ),
        num_workers=min(config.workers, len(items)),
    )
    run = _Run(works, cache, manifest=manifest, config=config, backbone=backbone)
    with Progress(num_clips=len(items), title="extracting") as progress:
        for task, message in decoders.decode(_task(manifest, item) for item in items):
            run.receive(task.clip_id, message, progress)
            while run.num_waiting_pictures >= config.batch_frames:
                run.encode_batch()
                progress.add_frames(config.batch_frames, num_waiting=decoders.num_waiting)
        while run.num_waiting_pictures:
            run.encode_batch()
    return run.num_encoded


def _task(manifest: Manifest, item: Item) -> ClipTask:
    return ClipTask(
        clip_id=item.row["clip_id"],
        path=manifest.video_file(item.row["video_path"]).resolve(),
        start_seconds=item.row["start_seconds"] or 0.0,
        end_seconds=item.row["end_seconds"],
    )


class _Run:
    """The clips between decoding and their committed shard."""

    def __init__(
        self,
        works: Sequence[Work],
        cache: Path,
        *,
        manifest: Manifest,
        config: ExtractConfig,
        backbone: Backbone,
    ) -> None:
        self._cache = cache
        self._manifest = manifest
        self._config = config
        self._backbone = backbone
        self._clips = {clip.clip_id: clip for work in works for clip in map(Clip, work.items)}
        self._work_of = {item.row["clip_id"]: work for work in works for item in work.items}
        self._num_missing = {work.name: len(work.items) for work in works}
        self._batch: list[tuple[Clip, np.ndarray]] = []
        self.num_encoded = 0

    @property
    def num_waiting_pictures(self) -> int:
        return len(self._batch)

    def receive(self, clip_id: str, message: Message, progress: Progress) -> None:
        """Take in what a decoder says of a clip."""
        clip = self._clips[clip_id]
        if isinstance(message, Chunk):
            clip.num_pictures += len(message.pictures)
            self._batch += [(clip, picture) for picture in message.pictures]
            clip.samples.append(replace(message, pictures=message.pictures[:0].copy()))
            return
        clip.end = message
        progress.add_clip(failed=isinstance(message, ClipFailure))
        if isinstance(message, ClipFailure):
            progress.say(f"failed: {printable(clip_id)}: {printable(message.reason)}")
            # What came before the failure is of no use.
            self._batch = [(other, picture) for other, picture in self._batch if other is not clip]
        self._settle([clip])

    def encode_batch(self) -> None:
        """One batch of the waiting pictures, of whichever clips."""
        size = self._config.batch_frames
        batch, self._batch = self._batch[:size], self._batch[size:]
        pictures = np.stack([picture for _, picture in batch])
        # Batches of one shape: a frame's feature must not depend on how many frames come with it.
        blank = np.zeros((size - len(batch), *pictures.shape[1:]), dtype=np.uint8)
        features = self._backbone.encode_pictures(np.concatenate([pictures, blank]))
        with np.errstate(over="ignore"):  # an overflow fails the clip, with its reason
            stored = features.astype(self._config.dtype)
        for (clip, _), feature in zip(batch, stored, strict=False):
            clip.features.append(feature)
        self.num_encoded += len(batch)
        self._settle({clip.clip_id: clip for clip, _ in batch}.values())

    def _settle(self, clips: Iterable[Clip]) -> None:
        """Commit the shards of which these clips were the last to be done."""
        for clip in clips:
            if not clip.is_done:
                continue
            work = self._work_of[clip.clip_id]
            self._num_missing[work.name] -= 1
            if self._num_missing[work.name] == 0:
                self._commit(work)

    def _commit(self, work: Work) -> None:
        shard = ClipShard(
            width=self._backbone.width,
            dtype=self._config.dtype,
            segment_rules=self._config.segments,
            keep_frames=self._config.keep_frames,
        )
        for item in work.items:
            clip = self._clips.pop(item.row["clip_id"])
            shard.add(clip, self._manifest.video_file(item.row["video_path"]))
        commit_shard(
            self._cache,
            "clips",
            work.name,
            arrays=shard.arrays(),
            tables={"clips": shard.clip_rows, "segments": shard.segment_rows},
        )
