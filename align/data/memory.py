"""Where the features of a run are: in memory or, when they do not fit, in a file that is mapped."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from ...data_manifests.core.errors import SettingsError
from ...extract.cache.contract import CacheError
from ...extract.cache.store import FeatureStore
from ..config import DataConfig
from ..distributed import is_first_process, wait_for_all
from ..runs.checkpoint import make_run_folder
from .shared_splits import Splits, SplitsFile, share_splits, shared_splits

FEATURES_FILE: Final = ".features-of-run-{machine}"
"""In a run's folder: the features that are mapped. It is deleted as soon as all processes of the
run have mapped it, which keep its pages until they end."""
SHARE_OF_FREE: Final = 0.6
"""Of the free memory that features may fill: the float16 shards that they are gathered from take
half as much again while they are read."""
GIB: Final = 1 << 30


@contextmanager
def _no_empty_folder(path: Path) -> Iterator[None]:
    """Remove the folder when the block fails, if it was not there before and nothing is in it."""
    is_new = not path.exists()
    try:
        yield
    except BaseException:
        if is_new:
            with suppress(OSError):  # not there, or it holds what a training has begun
                path.rmdir()
        raise


@contextmanager
def splits_of_run(
    store: FeatureStore, data: DataConfig, out: Path, *, with_tokens: bool = False
) -> Iterator[Splits]:
    """The splits of a run with its folder at `out`, in memory or mapped.

    with_tokens: with frames and tokens, for the token level; so in all of this file.

    Of several processes on a machine one writes the file that all of them map. Raises CacheError,
    SettingsError for a missing split, RunError where `out` cannot be a folder.
    """
    check_splits(store, data, with_tokens=with_tokens)
    with _no_empty_folder(out):
        machine = os.environ.get("GROUP_RANK", "0")
        is_writer = os.environ.get("LOCAL_RANK", "0") == "0"
        path = out / FEATURES_FILE.format(machine=machine)
        if is_writer:
            _remove(path)  # a killed run left it
            processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
            reason = reason_to_map(store, data, with_tokens=with_tokens, processes=processes)
            if reason is not None:
                if is_first_process():
                    print(f"{out.name}: {reason}", file=sys.stderr, flush=True)
                make_run_folder(out)
                write_splits(store, data, path, with_tokens=with_tokens, in_memory=False)
        wait_for_all()
        try:
            if path.exists():
                splits = shared_splits(path)
            else:
                splits = read_splits(store, data, with_tokens=with_tokens)
            wait_for_all()
        finally:
            if is_writer:
                _remove(path)
        yield splits


def _remove(path: Path) -> None:
    with suppress(OSError):  # not there, or its folder is none
        path.unlink()


def write_splits(
    store: FeatureStore,
    data: DataConfig,
    path: Path,
    *,
    with_tokens: bool = False,
    in_memory: bool,
) -> None:
    """Write the splits so that `shared_splits` maps them. in_memory: whether they fit in memory,
    which is faster where there are many shards."""
    if in_memory:
        share_splits(read_splits(store, data, with_tokens=with_tokens), path)
        return
    with SplitsFile(path) as file:
        file.finish(read_splits(store, data, with_tokens=with_tokens, file=file))


def reason_to_map(
    store: FeatureStore, data: DataConfig, *, with_tokens: bool = False, processes: int = 1
) -> str | None:
    """Why the features are read through a memory map, as a line for the user; None where they are
    in memory.

    processes: on this machine, each with features of its own.
    """
    needed = feature_bytes(store, data, with_tokens=with_tokens)
    if data.memory_gib is not None:
        limit = data.memory_gib * GIB
        allowed = f"data.memory_gib allows {data.memory_gib:g}"
    else:
        free = free_bytes()
        if free is None:
            return None
        limit = SHARE_OF_FREE * free / processes
        allowed = f"{free / GIB:.1f} GiB are free, data.memory_gib sets another limit"
    if needed <= limit:
        return None
    return f"{needed / GIB:.2f} GiB of features are read through a memory map ({allowed})"


def feature_bytes(store: FeatureStore, data: DataConfig, *, with_tokens: bool = False) -> int:
    """Of both splits."""
    return sum(
        store.feature_bytes(
            name,
            segments=data.segments,
            frames_per_clip=data.frames_per_clip if with_tokens else 0,
            with_tokens=with_tokens,
        )
        for name in (data.train_split, data.validation_split)
        if name is not None
    )


def free_bytes() -> int | None:
    """Memory that this process can have without pushing others out, within the limits of its
    control groups (version 1 or 2); None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        (available,) = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError):
        return None
    return min([int(available) * 1024, *_free_in_groups()])


def _free_in_groups(root: Path = Path("/")) -> Iterator[int]:
    """Of each control group that this process is in and that has a limit. root: where /proc and
    /sys are."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group_path = line.split(":", 2)
        if not controllers:
            mount, names = root / "sys/fs/cgroup", ("memory.max", "memory.current")
            cached_name = "inactive_file"
        elif "memory" in controllers.split(","):
            mount = root / "sys/fs/cgroup/memory"
            names = "memory.limit_in_bytes", "memory.usage_in_bytes"
            cached_name = "total_inactive_file"
        else:
            continue
        # In a container the path may be the host's: what exists of it, up to the mount, counts.
        folder = mount / group_path.lstrip("/")
        for group in [folder, *folder.parents]:
            if not group.is_relative_to(mount):
                break
            try:
                limit, used = (int((group / name).read_text()) for name in names)
                stat = dict(
                    line.split() for line in (group / "memory.stat").read_text().splitlines()
                )
                cached = int(stat.get(cached_name, 0))
            except (OSError, ValueError):  # "max", or no such file: no limit here
                continue
            yield max(0, limit - used + cached)


def check_splits(store: FeatureStore, data: DataConfig, *, with_tokens: bool = False) -> None:
    """Raise SettingsError for a split, frames or tokens that the cache does not have."""
    if with_tokens:
        try:
            store.check_kept(frames=True, tokens=True)
        except CacheError as error:
            raise SettingsError(
                f"losses.token_weight is set, which needs frames and tokens, but {error}"
            ) from error
    for name, split, way_out in (
        ("train_split", data.train_split, "one of these"),
        ("validation_split", data.validation_split, "one of these, or null to do without"),
    ):
        if split is not None and split not in store.splits:
            raise SettingsError(
                f"data.{name} is {split!r}, but the cache {store.path} has the splits "
                f"{', '.join(store.splits)}: use --set data.{name}=... with {way_out}"
            )


def read_splits(
    store: FeatureStore,
    data: DataConfig,
    *,
    with_tokens: bool = False,
    file: SplitsFile | None = None,
) -> Splits:
    """The splits to train and to validate on. file: that their features are gathered into; None:
    they are in memory. Raises SettingsError as `check_splits` does."""
    check_splits(store, data, with_tokens=with_tokens)
    train, validation = (
        None
        if name is None
        else store.split(
            name,
            segments=data.segments,
            leave_out_partial=data.partial_clips == "leave_out",
            frames_per_clip=data.frames_per_clip if with_tokens else 0,
            with_tokens=with_tokens,
            allocate=None if file is None else file.allocate,
        )
        for name in (data.train_split, data.validation_split)
    )
    assert train is not None
    return train, validation
