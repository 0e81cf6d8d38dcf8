"""A sweep: many runs on one cache, side by side in processes that share its features."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import torch

from ..data_manifests.errors import UserError
from ..data_manifests.settings import load_settings, settings_dict
from ..extract.store import FeatureStore
from .checkpoint import CONFIG_FILE, RUN_FILE, RunError
from .config import DataConfig, RunConfig
from .shared_splits import Splits, share_splits, shared_splits
from .sweep_config import Member
from .trainer import align_on, read_splits

ATTEMPTS: Final = 2
"""Of a member whose process ended; with another that ends, who did it is not known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemberResult:
    """What became of a member."""

    member: Member
    summary: Mapping[str, Any] | None
    """Content of its run.json; None where it failed."""
    failure: str | None
    """Why it failed."""
    is_new: bool
    """Whether it was trained now; False for one that was there already."""


def run_sweep(
    cache: Path, members: Sequence[Member], out: Path, *, jobs: int | None
) -> list[MemberResult]:
    """Train the members into OUT/ROW-seedN; the results in their order.

    Finished runs are kept, unfinished ones finished. A member that fails does not end the others.
    jobs: processes side by side, each with its share of the cores; None: as many as there are
    cores, or one on a GPU. Raises UserError before anything is trained: CacheError, SettingsError
    for a missing split, RunError where a folder holds a run of other settings or another cache.
    """
    store = FeatureStore.open(cache)
    out.mkdir(parents=True, exist_ok=True)
    results = {}
    for member in members:
        summary = _finished(out / member.folder, member, cache_key=store.key)
        if summary is not None:
            results[member.folder] = MemberResult(
                member=member, summary=summary, failure=None, is_new=False
            )
    missing = [member for member in members if member.folder not in results]
    if missing:
        cores = os.cpu_count() or 1
        jobs = min(jobs or (1 if _uses_gpu(missing) else cores), len(missing))
        with tempfile.TemporaryDirectory(prefix=".features-", dir=out) as folder:
            shared = _share(store, missing, Path(folder))
            threads = max(1, cores // jobs)
            for result in _train(missing, shared, out, jobs=jobs, threads=threads):
                results[result.member.folder] = result
                _say(result, done=len(results), total=len(members))
    return [results[member.folder] for member in members]


def _share(store: FeatureStore, members: Sequence[Member], folder: Path) -> dict[DataConfig, Path]:
    """A file of the splits for each way that members choose theirs."""
    shared: dict[DataConfig, Path] = {}
    for member in members:
        data = member.config.data
        if data not in shared:
            shared[data] = folder / f"splits-{len(shared)}"
            share_splits(read_splits(store, data), shared[data])
    return shared


def _train(
    members: Sequence[Member],
    shared: Mapping[DataConfig, Path],
    out: Path,
    *,
    jobs: int,
    threads: int,
) -> Iterator[MemberResult]:
    """Results as they come; a process that ends takes no other member with it."""
    left = {member.folder: member for member in members}
    attempts = dict.fromkeys(left, 0)
    while left:
        # After a process has ended, one member at a time: then it is known whose it was.
        alone = max(attempts[name] for name in left) > 0
        workers = 1 if alone else jobs
        with ProcessPoolExecutor(
            workers, mp_context=get_context("spawn"), initializer=_start, initargs=(threads,)
        ) as pool:
            names = list(left)[:1] if alone else list(left)
            futures: dict[Future[MemberResult], str] = {
                pool.submit(_train_one, left[name], shared[left[name].config.data], out): name
                for name in names
            }
            waiting = set(futures)
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    name = futures[future]
                    try:
                        result = future.result()
                    except BrokenProcessPool:
                        attempts[name] += 1
                        if attempts[name] < ATTEMPTS:
                            continue
                        failure = "its process ended (killed, or out of memory)"
                        result = MemberResult(
                            member=left[name], summary=None, failure=failure, is_new=True
                        )
                    del left[name]
                    yield result


_splits: dict[Path, Splits] = {}
"""Of this worker process, by file: mapped once."""


def _start(threads: int) -> None:
    """What a worker process begins with."""
    torch.set_num_threads(threads)


def _train_one(member: Member, shared: Path, out: Path) -> MemberResult:
    """In a worker process."""
    failure = summary = None
    try:
        if shared not in _splits:
            _splits[shared] = shared_splits(shared)
        train, validation = _splits[shared]
        run = out / member.folder
        align_on(run, member.config, train=train, validation=validation, quiet=True)
        summary = _content(run)
    except (UserError, OSError) as error:
        failure = str(error)
    except Exception as error:  # whatever it is, the other members go on
        failure = f"{type(error).__name__}: {error}"
    return MemberResult(member=member, summary=summary, failure=failure, is_new=True)


def _finished(run: Path, member: Member, *, cache_key: str) -> dict[str, Any] | None:
    """run.json of a finished run of these settings; None when there is none yet."""
    if not (run / RUN_FILE).exists():
        return None
    content = _content(run)
    kept = settings_dict(load_settings(RunConfig, run / CONFIG_FILE))
    if kept != settings_dict(member.config) or content["cache_key"] != cache_key:
        raise RunError(
            f"{run} holds a finished run of other settings or of another cache: choose another "
            f"folder with -o, or delete it"
        )
    return content


def _content(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / RUN_FILE).read_text(encoding="utf-8"))
    return content


def _uses_gpu(members: Sequence[Member]) -> bool:
    return torch.cuda.is_available() and any(m.config.device != "cpu" for m in members)


def _say(result: MemberResult, *, done: int, total: int) -> None:
    if result.summary is None:
        said = f"failed: {result.failure}"
    else:
        numbers = [f"{n} {100 * value:.1f} %" for n, value in result.summary["metrics"].items()]
        said = f"{', '.join(numbers)}, {result.summary['wall_seconds']:.1f} s"
    print(f"{done} of {total}: {result.member.folder}: {said}", file=sys.stderr, flush=True)
