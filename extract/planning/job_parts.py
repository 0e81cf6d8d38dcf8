"""One extraction as n jobs that know nothing of each other: which clips are whose."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from typing import Self

import pyarrow as pa

from ...data_manifests.core.errors import UserError
from ...data_manifests.tables.schema import Manifest


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
