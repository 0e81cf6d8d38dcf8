"""Clips under way, and the shard they become: arrays and index rows as the contract has them."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..cache.spool import Spool, SpooledMatrix
from ..cache.writer import ArrayMatrix, Matrix
from ..decode.clip_reader import Chunk, ClipEnd, ClipFailure, Stage
from ..decode.sources import source_facts
from ..planning.plan import Item
from ..segments.cutting import CutFacts, SegmentRows, pool


@dataclass(slots=True, eq=False)
class Clip:
    """What has arrived of a clip so far."""

    item: Item
    spool: Spool
    """Has the features of its shard's pictures, in the stored type."""
    rows: array[int] = field(default_factory=lambda: array("q"))
    """Of the spool: the features of its pictures, in order."""
    is_finite: bool = True
    """Whether all of them are."""
    samples: list[Chunk] = field(default_factory=list)
    """What was sampled when; the pictures are dropped once they are encoded."""
    num_pictures: int = 0
    """Received; as many features will be there."""
    end: ClipEnd | ClipFailure | None = None

    @property
    def clip_id(self) -> str:
        return str(self.item.row["clip_id"])

    @property
    def is_done(self) -> bool:
        if isinstance(self.end, ClipFailure):
            return True
        return self.end is not None and len(self.rows) == self.num_pictures

    def add_feature(self, feature: np.ndarray) -> None:
        """(width,), of its next picture. Raises DiskError."""
        self.is_finite = self.is_finite and bool(np.isfinite(feature).all())
        self.rows.append(self.spool.append(feature))


class ClipShard:
    """Gathers done clips, one after the other."""

    def __init__(self, *, width: int, dtype: str, segment_rules: Sequence[str], keep_frames: bool):
        """width: of a feature; dtype: of the stored ones."""
        self._width = width
        self._dtype = dtype
        self._rules = segment_rules
        self._keep_frames = keep_frames
        self._clip_features: list[np.ndarray] = []
        self._frame_features: list[Matrix] = []
        self._times: list[np.ndarray] = []
        self._num_frames = 0
        self.clip_rows: list[dict[str, Any]] = []
        self._segments = SegmentRows(width=width, dtype=dtype)

    @property
    def segment_rows(self) -> list[dict[str, Any]]:
        return self._segments.rows

    def add(self, clip: Clip, source: Path | None) -> None:
        """Pool a clip's frames and make its rows; a failed clip gets a row alone. source: the file
        that it came from, if there is one."""
        row: dict[str, Any] = {**_source_facts(source), "num_frames": 0, "num_segments": 0}
        row["text_spans"] = clip.item.spans
        assert clip.end is not None, f"{clip.clip_id} is not done"
        if isinstance(clip.end, ClipFailure):
            self._add_failed(clip, row, reason=clip.end.reason, stage=clip.end.stage)
            return
        if not clip.is_finite:
            reason = f"its features are not finite in {self._dtype} (dtype=float32 has more room)"
            self._add_failed(clip, row, reason=reason, stage="encode")
            return
        index = np.concatenate([chunk.picture_index for chunk in clip.samples])
        numbers = np.asarray(clip.rows)[index]
        frames = SpooledMatrix(clip.spool, numbers, width=self._width, dtype=self._dtype)
        sampled = np.concatenate([chunk.sample_seconds for chunk in clip.samples])
        shown = np.concatenate([chunk.seconds for chunk in clip.samples])
        result, shots = clip.end.result, clip.end.shot_seconds
        facts = CutFacts(
            clip_id=clip.clip_id,
            duration_seconds=result.duration_seconds,
            text_spans=clip.item.spans,
            shot_seconds=shots or (),
        )
        try:
            spans = {rule: facts.spans(rule) for rule in self._rules}
        except ValueError as error:
            self._add_failed(clip, row, reason=str(error), stage="encode")
            return
        for rule in self._rules:
            self._segments.add(
                clip.clip_id, rule, spans[rule], frames=frames, sample_seconds=sampled
            )
        row |= {
            "status": "ok" if result.problem is None else "partial",
            "reason": result.problem,
            "num_frames": len(index),
            "first_frame_row": self._num_frames,
            "num_segments": sum(map(len, spans.values())),
            "duration_seconds": result.duration_seconds,
            **({} if result.probe is None else asdict(result.probe)),
            "source_sha256": clip.end.source_sha256,
            "shot_seconds": shots,
        }
        self.clip_rows.append({**clip.item.index_row(len(self._clip_features)), **row})
        self._clip_features.append(pool(frames, [slice(0, len(index))]))
        self._frame_features.append(frames)
        self._times.append(np.stack([shown, sampled]))
        self._num_frames += len(index)

    def arrays(self) -> dict[str, np.ndarray | Sequence[Matrix]]:
        """Dataset path to array, or to the parts of an array, as `contract` has them."""
        empty = np.empty((0, self._width), dtype=self._dtype)
        times = np.concatenate([np.empty((2, 0)), *self._times], axis=1)
        arrays: dict[str, np.ndarray | Sequence[Matrix]] = {
            "clips/features": np.concatenate([empty, *self._clip_features]),
            "segments/features": self._segments.features,
            "frames/seconds": times[0],
            "frames/sample_seconds": times[1],
        }
        if self._keep_frames:
            arrays["frames/features"] = [ArrayMatrix(empty), *self._frame_features]
        return arrays

    def _add_failed(self, clip: Clip, row: dict[str, Any], *, reason: str, stage: Stage) -> None:
        failure = {"status": "failed", "reason": reason, "stage": stage}
        self.clip_rows.append({**clip.item.index_row(None), **row, **failure})


def _source_facts(path: Path | None) -> dict[str, int]:
    """By which a later run sees that a video was replaced."""
    facts = None if path is None else source_facts(path)
    if facts is None:
        return {}
    num_bytes, mtime_ns = facts
    return {"source_bytes": num_bytes, "source_mtime_ns": mtime_ns}
