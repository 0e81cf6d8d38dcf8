"""The video file of each clip of a split, and where in it the clip starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...data_manifests.core.file_names import text_name, video_file
from ...extract.cache.store import FeatureStore


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipVideos:
    """Video files and start times of N clips."""

    videos: list[Path]
    """(N,) the file, below the folder of videos that the cache remembers; it may be gone."""
    start_seconds: np.ndarray
    """(N,) float64, where in it the clip starts."""


def clip_videos(store: FeatureStore, clip_ids: list[str]) -> ClipVideos:
    """Those of some clips of the cache."""
    table = store.clips.select(["clip_id", "video_path", "start_seconds"]).to_pydict()
    row = {clip_id: place for place, clip_id in enumerate(table["clip_id"])}
    rows = [row[clip_id] for clip_id in clip_ids]
    root = Path(text_name(store.record["videos_root"]))
    return ClipVideos(
        videos=[video_file(root, table["video_path"][place]) for place in rows],
        start_seconds=np.array([table["start_seconds"][place] or 0.0 for place in rows]),
    )
