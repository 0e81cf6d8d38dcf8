"""A sweep: many runs on one cache, in processes that share its features in memory."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import torch

from ...data_manifests.core.cores import num_cores, process_pool
from ...data_manifests.core.folder_lock import folder_lock
from ...data_manifests.core.settings import load_settings, settings_dict
from ...extract.cache.store import FeatureStore
from ..config import DataConfig, RunConfig
from ..data.memory import check_splits, reason_to_map, write_splits
from ..runs.checkpoint import CONFIG_FILE, RUN_FILE, RunError
from .config import Member
from .worker import (
    MemberResult,
    finished_result,
    run_content,
    start_worker,
    train_member,
)

ATTEMPTS: Final = 2
"""Attempts at a member whose process died. The first may have died because of another member."""
LOCK_FILE: Final = ".sweep.lock"
FEATURES_FOLDER: Final = ".features"
"""Of files of features, which all runs of the sweep map."""


def run_sweep(
    cache: Path,
    members: Sequence[Member],
    out: Path,
    *,
    jobs: int | None,
) -> list[MemberResult]:
    """Train the members into OUT/ROW-seedN; the results in their order.

    Finished runs are kept, unfinished ones finished. A member that fails does not end the others.
    jobs: processes in parallel, each with its share of the cores; each trains one member after the
    other. None: one per core, or one on a GPU. Raises UserError before anything is trained:
    CacheError, SettingsError for a missing split, RunError where a folder holds a run of other
    settings or another cache, or where another sweep is at work.
    """
    store = FeatureStore.open(cache)
    out.mkdir(parents=True, exist_ok=True)
    busy = RunError(
        f"another sweep is at work in {out}: wait for it, or choose another folder with -o"
    )
    with folder_lock(out / LOCK_FILE, busy=busy):
        return _run_members(store, members, out, jobs=jobs)


def _run_members(
    store: FeatureStore,
    members: Sequence[Member],
    out: Path,
    *,
    jobs: int | None,
) -> list[MemberResult]:
    results = {}
    for member in members:
        summary = _finished(out / member.folder, member, cache_key=store.key)
        if summary is not None:
            results[member.folder] = MemberResult(
                member=member, summary=summary, failure=None, is_new=False
            )
    missing = [member for member in members if member.folder not in results]
    if missing:
        cores = num_cores()
        # Of all members, not of those that are missing: a sweep that goes on has the threads, on
        # which the last digits depend, that it had before.
        jobs = min(jobs or (1 if _uses_gpu(members) else cores), len(members))
        threads = max(1, cores // jobs)
        folder = out / FEATURES_FOLDER
        shutil.rmtree(folder, ignore_errors=True)  # a killed sweep left it
        folder.mkdir()
        try:
            shared = _share(store, missing, folder)
            for result in _train(missing, shared, out, jobs=jobs, threads=threads):
                results[result.member.folder] = result
                _print_result(result, done=len(results), total=len(members))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return [results[member.folder] for member in members]


def _share(store: FeatureStore, members: Sequence[Member], folder: Path) -> dict[DataConfig, Path]:
    """A file of the splits for each way that members choose theirs."""
    shared: dict[DataConfig, Path] = {}
    for member in members:
        data = member.config.data
        if data not in shared:
            shared[data] = folder / f"splits-{len(shared)}"
            with_tokens = any(
                other.config.losses.token_weight > 0
                for other in members
                if other.config.data == data
            )
            check_splits(store, data, with_tokens=with_tokens)
            reason = reason_to_map(store, data, with_tokens=with_tokens)
            if reason is not None:
                print(reason, file=sys.stderr, flush=True)
            write_splits(
                store,
                data,
                shared[data],
                with_tokens=with_tokens,
                in_memory=reason is None,
            )
    return shared


def _train(
    members: Sequence[Member],
    shared: Mapping[DataConfig, Path],
    out: Path,
    *,
    jobs: int,
    threads: int,
) -> Iterator[MemberResult]:
    """Results as they come; a process that dies takes no other member with it."""
    left = {member.folder: member for member in members}
    attempts = dict.fromkeys(left, 0)
    context = get_context("spawn")
    while left:
        # After a process has died, the members that it may have trained, one at a time: then it
        # is known which of them it was.
        suspects = [member for name, member in left.items() if attempts[name] > 0]
        batch = suspects[:1] or list(left.values())
        is_alive, held = context.Pipe(duplex=False)
        with (
            process_pool(
                min(jobs, len(batch)),
                initializer=start_worker,
                initargs=(threads, is_alive),
            ) as pool,
            is_alive,
            held,  # closed first: on Ctrl-C no member that waits begins
        ):
            futures: dict[Future[MemberResult], Member] = {
                pool.submit(train_member, member, shared[member.config.data], out): member
                for member in batch
            }
            waiting = set(futures)
            ended: list[str] = []
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    member = futures[future]
                    try:
                        result = future.result()
                    except BrokenProcessPool:
                        if not (out / member.folder / RUN_FILE).exists():
                            ended.append(member.folder)
                            continue
                        result = finished_result(member, out)
                    del left[member.folder]
                    yield result
        for name in [name for name in ended if (out / name / CONFIG_FILE).exists()] or ended:
            attempts[name] += 1
            if attempts[name] == ATTEMPTS:
                failure = "its process ended (killed, or out of memory)"
                yield MemberResult(
                    member=left.pop(name), summary=None, failure=failure, is_new=True
                )


def _finished(run: Path, member: Member, *, cache_key: str) -> dict[str, Any] | None:
    """run.json of a finished run of these settings; None when there is none yet."""
    if not (run / RUN_FILE).exists():
        return None
    content = run_content(run)
    kept = settings_dict(load_settings(RunConfig, run / CONFIG_FILE))
    if kept != settings_dict(member.config) or content["cache_key"] != cache_key:
        raise RunError(
            f"{run} holds a finished run of other settings or of another cache: choose another "
            f"folder with -o, or delete it"
        )
    return content


def _uses_gpu(members: Sequence[Member]) -> bool:
    return torch.cuda.is_available() and any(m.config.device != "cpu" for m in members)


def _print_result(result: MemberResult, *, done: int, total: int) -> None:
    if result.summary is None:
        outcome = f"failed: {result.failure}"
    else:
        numbers = [f"{n} {100 * value:.1f} %" for n, value in result.summary["metrics"].items()]
        outcome = ", ".join([*numbers, f"{result.summary['wall_seconds']:.1f} s"])
    print(f"{done} of {total}: {result.member.folder}: {outcome}", file=sys.stderr, flush=True)
