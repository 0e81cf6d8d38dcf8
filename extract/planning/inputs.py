"""What a run is asked to extract, its part among several jobs, and how a cache remembers it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from ...data_manifests.core.errors import ManifestError, UserError
from ...data_manifests.core.file_names import text_name
from ...data_manifests.tables.reader import combine, read_manifest
from ...data_manifests.tables.schema import Manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """The VIDEOS and --manifest of a command."""

    videos: tuple[Path, ...] = ()
    """Folders, files, lists, tables or manifest folders; beside a manifest, at most one folder: its
    videos root."""
    manifest: Path | None = None
    """A dataset's manifest."""
    image_folders: bool = False
    """Whether folders of images are clips."""

    def __post_init__(self) -> None:
        if self.manifest is not None and len(self.videos) > 1:
            raise ManifestError("with --manifest, VIDEOS is one folder: its videos root")

    def __bool__(self) -> bool:
        return self.manifest is not None or bool(self.videos)

    def __str__(self) -> str:
        return ", ".join(map(str, self.videos if self.manifest is None else (self.manifest,)))

    def read(self) -> Manifest:
        """The dataset. Raises ManifestError when it is not there or has faults."""
        if self.manifest is not None:
            root = self.videos[0] if self.videos else None
            return read_manifest(self.manifest, videos_root=root)
        if not self.videos:
            raise ManifestError("say which VIDEOS (a folder, files, a list), or give --manifest")
        return combine(
            [read_manifest(path, image_folders=self.image_folders) for path in self.videos]
        )

    def record(self) -> dict[str, Any]:
        """For cache.json (`json_bytes` makes texts of names): absolute paths."""
        manifest = None if self.manifest is None else os.path.abspath(self.manifest)
        return {
            "videos": [os.path.abspath(path) for path in self.videos],
            "manifest": manifest,
            "image_folders": self.image_folders,
        }

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Self:
        """Of cache.json's ``inputs``; empty when there are none."""
        found = record.get("inputs") or {"videos": [], "manifest": None}
        manifest = found["manifest"]
        return cls(
            videos=tuple(Path(text_name(path)) for path in found["videos"]),
            manifest=None if manifest is None else Path(text_name(manifest)),
            image_folders=found.get("image_folders", False),
        )


def official_counts(manifest: Manifest) -> dict[str, dict[str, int]]:
    """For cache.json: how much a benchmark's official files have, by split; empty for others."""
    return {split: asdict(counts) for split, counts in manifest.official.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class JobPart:
    """Job `index` of `count`. A clip is of exactly one job; its texts and questions go with it."""

    index: int
    """From 1 to count."""
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """From "2/8". Raises UserError for what is not a job of so many."""
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text.strip())
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise UserError(
                f"--shard {text}: expected I/N with 1 <= I <= N, such as 2/8 for the second of "
                "eight jobs"
            )
        return cls(index=int(found[1]), count=int(found[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def has(self, clip_id: str) -> bool:
        """Whether the clip is this job's: by a digest of its id, the same on every machine."""
        number = int.from_bytes(hashlib.sha256(clip_id.encode()).digest()[:8])
        return number % self.count == self.index - 1

    def of(self, manifest: Manifest) -> Manifest:
        """This job's clips, with their texts and questions; may be empty."""
        return replace(
            manifest,
            clips=self._own(manifest.clips),
            texts=self._own(manifest.texts),
            questions=self._own(manifest.questions),
        )

    def _own(self, table: pa.Table) -> pa.Table:
        is_own = [self.has(clip_id) for clip_id in table["clip_id"].to_pylist()]
        return table.filter(pa.array(is_own, pa.bool_()))
