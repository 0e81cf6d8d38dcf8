"""What an engine is (it holds the backbones, encodes what is planned, and commits it), and which
one is meant: this machine, or a Ray cluster.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, assert_never

from ..cache.contract import Unit
from ..config import ExtractConfig
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


@contextlib.contextmanager
def open_engine(
    config: ExtractConfig, *, with_text: bool, say: Callable[[str], None]
) -> Iterator[Engine]:
    """The engine that the settings name, its backbones loaded; they are dropped at the end.

    with_text: texts are to be encoded, too. say: shows a line to the user.
    Raises BackboneError when the weights or the device cannot be had, EngineError when Ray cannot.
    """
    match config.engine:
        case "local":
            from .local import LocalEngine

            with LocalEngine(config, with_text=with_text, say=say) as engine:
                yield engine
        case "ray":
            from .ray import RayEngine

            with RayEngine(config, with_text=with_text, say=say) as ray_engine:
                yield ray_engine
        case _:
            assert_never(config.engine)
