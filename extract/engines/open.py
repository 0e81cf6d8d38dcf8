"""Which engine is meant: this machine, or a Ray cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import assert_never

from ..config import ExtractConfig
from .protocol import Engine


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
