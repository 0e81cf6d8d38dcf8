"""Which file of a folder is the video of a clip: by name, as datasets are found on real disks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from ..core.errors import ManifestError
from ..core.file_names import VIDEO_EXTENSIONS
from ..tables.videos import find_videos


def match_videos(root: Path, names: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Clip id -> path below `root` of its video; clips whose video is not there are left out.

    names: for each clip the names that its video may have, best first, with or without extension.
    A file matches in whatever folder it lies and whatever its extension, with or without "v_" in
    front. Other case matches, too, but never a file that another clip's name has exactly: YouTube
    has videos whose ids differ in case alone. Of files of one name the one in the fewest folders
    is taken. A folder of frame images is a video, too, where no file has the name. Raises
    ManifestError when the folder does not exist or has no videos.
    """
    if not root.is_dir():
        raise ManifestError(f"the folder of the videos does not exist: {root}")
    paths = find_videos(root, image_folders=True).table["video_path"].to_pylist()
    paths.sort(key=lambda path: (not _is_video(path), path.count("/"), path))
    exact, folded = _by_name(paths, str), _by_name(paths, str.casefold)
    matches = {
        clip_id: _first(exact, _spellings(candidates)) for clip_id, candidates in names.items()
    }
    taken = set(matches.values())
    for clip_id, candidates in names.items():
        if matches[clip_id] is None:
            other = _first(folded, (name.casefold() for name in _spellings(candidates)))
            matches[clip_id] = None if other in taken else other
    return {clip_id: path for clip_id, path in matches.items() if path is not None}


def bare_name(name: str) -> str:
    """The name without the extension of a video; dots that are part of it stay."""
    return PurePosixPath(name).stem if _is_video(name) else name


def default_path(names: Sequence[str]) -> str:
    """Where the video is expected to lie when nobody has looked: NAME.mp4, or as it is called."""
    return names[0] if bare_name(names[0]) != names[0] else f"{names[0]}.mp4"


def _is_video(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in VIDEO_EXTENSIONS


def _by_name(paths: Iterable[str], fold: Callable[[str], str]) -> dict[str, str]:
    """Path of each name, with extension and without; the first path of a name."""
    by_name: dict[str, str] = {}
    for path in paths:
        name = PurePosixPath(path).name
        for key in (name, bare_name(name)):
            by_name.setdefault(fold(key), path)
    return by_name


def _first(paths: Mapping[str, str], names: Iterable[str]) -> str | None:
    return next((paths[name] for name in names if name in paths), None)


def _spellings(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        for stem in dict.fromkeys((name, bare_name(name))):
            yield from (stem, f"v_{stem}")
            if stem.startswith("v_"):
                yield stem.removeprefix("v_")
