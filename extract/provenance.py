"""What a cache and a run tell of how they came about: libraries, machine, command."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import sys
from typing import TYPE_CHECKING, Any

from .config import ExtractConfig
from .segments.shots import detector_version

if TYPE_CHECKING:
    from .engines.protocol import EngineFacts

PACKAGES = ("mlalign", "av", "torch", "open_clip_torch", "pillow", "numpy", "h5py", "pyarrow")


def made_with(config: ExtractConfig, facts: EngineFacts) -> dict[str, Any]:
    """Device, precision, decoder, versions and command of this run, for JSON."""
    return {
        "decoder": config.decoder,
        "engine": config.engine,
        "device": ", ".join(facts.devices),
        "device_name": facts.device_name,
        "precision": facts.precision,
        "command": shlex.join(sys.argv),
        "host": platform.node(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": versions(config),
    }


def versions(config: ExtractConfig) -> dict[str, str]:
    """Name to version of the packages, of ffmpeg's libraries as PyAV has them, of the ffmpeg
    program where that decodes, and of the shot detector where that is at work."""
    import av

    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    for name, numbers in sorted(av.library_versions.items()):
        found[name] = ".".join(map(str, numbers))
    if config.decoder == "ffmpeg":
        from .decode.ffmpeg_check import program_version

        found["ffmpeg"] = program_version()
    if config.shots:
        found["scenedetect"] = detector_version()
    return found
