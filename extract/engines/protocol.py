"""What an engine is: it holds the backbones, encodes what is planned, and commits it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..cache.contract import Unit
from ..decode.preprocessing import Preprocessing
from ..planning.plan import Work
from ..planning.progress import ProgressCounts


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineFacts:
    """What an engine's backbones are; all of them are equal but for their device."""

    preprocessing: Preprocessing
    weights_sha256: str
    precision: str
    width: int
    """Of a feature."""
    devices: tuple[str, ...]
    """cpu, cuda:0 ...; one for each backbone."""
    device_name: str
    """What the first device calls itself."""

    @property
    def where(self) -> str:
        """For a person: the precision and the devices."""
        return f"{self.precision} on {', '.join(self.devices)}"


class Engine(Protocol):
    """Encodes what is planned, and commits it shard by shard."""

    @property
    def facts(self) -> EngineFacts: ...

    def encode(
        self, unit: Unit, works: Sequence[Work], cache: Path, *, videos_root: Path
    ) -> ProgressCounts:
        """Commit all works of one unit; what was done and waited for.

        Raises CacheError when the disk refuses; what was committed stays.
        """
        ...
