"""`extract` for Python programs: videos as on the command line, into a cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .config import ExtractConfig
from .pipeline import extract_manifest
from .planning.inputs import Inputs
from .run_stats import ExtractSummary


def extract(
    videos: str | Path | Sequence[str | Path],
    cache: str | Path,
    config: ExtractConfig | None = None,
    *,
    manifest: str | Path | None = None,
    retry_failed: bool = False,
) -> ExtractSummary:
    """Extract features of videos and texts into a cache; what it has already is not done again.

    videos: one or several of a folder, a video file, a list (.txt), a table of videos and texts
    (.csv, .jsonl) or a manifest folder. With a manifest: the folder that its video paths start
    from, or () where the manifest names it.
    cache: the cache folder; created if missing. A killed extraction is finished by the same call.
    config: None takes the settings of `ExtractConfig()`.
    retry_failed: try again the clips that failed in an earlier call.

    A clip that fails does not raise: its reason is in the `failures` of the summary. Progress goes
    to stderr. Decoding processes are started with the method "spawn", so a script that calls this
    needs `if __name__ == "__main__":`.
    Raises ManifestError (the inputs cannot be used), CacheError (the cache has other settings, or
    cannot be written; no weights), SettingsError.
    """
    paths = [videos] if isinstance(videos, str | Path) else videos
    settings = ExtractConfig() if config is None else config
    inputs = Inputs(
        videos=tuple(Path(path) for path in paths),
        manifest=None if manifest is None else Path(manifest),
        image_folders=settings.image_fps is not None,
    )
    return extract_manifest(
        inputs.read(), Path(cache), settings, retry_failed=retry_failed, inputs=inputs
    )
