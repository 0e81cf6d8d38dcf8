"""The engine on a Ray cluster: workers hold the backbones; this process hands out shards and takes
back what a lost worker had in hand."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self, cast

from ...data_manifests.core.errors import UserError
from ..cache.contract import CacheError, Unit, read_settings
from ..config import ExtractConfig, Precision
from ..planning.plan import Work
from ..planning.progress import ProgressCounts
from .local import shown_progress
from .protocol import EngineFacts
from .ray_queue import MAX_ATTEMPTS, QueueStatus, ShardQueue

try:
    import ray
    from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ImportError as error:
    raise CacheError("--engine ray needs Ray: pip install 'mlalign[ray]'") from error

from .ray_worker import RayJob, RayWorker

MAX_RESTARTS = 5
"""Of one worker; then the run goes on without it."""
PATIENCE_SECONDS = 30.0
"""When the cluster has no room for a worker, the user is told so after this time."""


class EngineError(CacheError):
    """The cluster could not do all of the work. What was committed is safe."""

    exit_code: ClassVar[int] = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Seat:
    """Where a worker belongs, and what it gets there."""

    node_id: str
    num_cpus: int
    num_gpus: int


def plan_seats(nodes: Sequence[Mapping[str, Any]], *, worker_cpus: int, device: str) -> list[Seat]:
    """The workers that a cluster takes.

    nodes: as of ray.nodes(). worker_cpus: of a worker on a machine without GPUs, or all that it
    has. device: auto (GPUs if there is one in the cluster), cuda or cpu.
    Raises EngineError when there is no seat.
    """
    alive = [node for node in nodes if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    use_gpus = device != "cpu" and any(node["Resources"].get("GPU", 0) >= 1 for node in alive)
    if not alive or (device == "cuda" and not use_gpus):
        asked = "GPU" if device == "cuda" else "machine with a processor to spare"
        raise EngineError(f"the Ray cluster has no {asked}")
    seats = []
    for node in alive:
        cpus, gpus = int(node["Resources"]["CPU"]), int(node["Resources"].get("GPU", 0))
        count = gpus if use_gpus else max(cpus // worker_cpus, 1)
        share = max(cpus // count, 1) if use_gpus and count else min(worker_cpus, cpus)
        seat = Seat(node_id=node["NodeID"], num_cpus=share, num_gpus=int(use_gpus))
        seats += [seat] * count
    return seats


class RayEngine:
    """See `protocol.Engine`. Raises EngineError when the cluster fails it."""

    def __init__(
        self, config: ExtractConfig, *, with_text: bool, say: Callable[[str], None]
    ) -> None:
        if config.device not in ("auto", "cpu", "cuda"):
            raise CacheError(
                f"with --engine ray, --device is auto, cpu or cuda, got {config.device}: Ray says "
                "which GPU is whose"
            )
        self._config = config
        self._with_text = with_text
        self._say = say
        self._is_ours = not ray.is_initialized()
        self._opened = contextlib.ExitStack()
        self._workers: list[Any] = []

    def __enter__(self) -> Self:
        # Ray prints news of the cluster to stdout, which is for our summary alone.
        self._opened.enter_context(contextlib.redirect_stdout(sys.stderr))
        try:
            if self._is_ours:
                _join(self._config.ray.address)
            self._seats = plan_seats(
                ray.nodes(), worker_cpus=self._config.ray.worker_cpus, device=self._config.device
            )
            self._workers = [_start(number, seat) for number, seat in enumerate(self._seats)]
            self.facts = self._first_facts()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            ray.kill(worker)
        if self._is_ours:
            ray.shutdown()
        self._opened.close()

    def encode(
        self, unit: Unit, works: Sequence[Work], cache: Path, *, videos_root: Path
    ) -> ProgressCounts:
        """See `protocol.Engine.encode`. A shard whose workers were lost again and again is left
        out, and named in an EngineError once all others are committed."""
        if not works:
            return ProgressCounts()
        cache = cache.resolve()
        job = RayJob(
            unit=unit,
            cache=cache,
            key=read_settings(cache)["key"],
            videos_root=videos_root.resolve(),
            facts=self.facts,
        )
        num_clips = sum(len(work.items) for work in works) if unit == "clips" else 0
        queue = ray.remote(ShardQueue).options(num_cpus=0).remote(unit, works, cache)
        try:
            with shown_progress(num_clips, self.facts) as progress:
                given_up = self._hand_out(job, queue, progress.add)
        except RayError as error:
            raise _translated(error) from error
        finally:
            ray.kill(queue)
        if given_up:
            rows = [item.row for work in works if work.name in given_up for item in work.items]
            raise EngineError(
                f"{len(rows)} {unit} in {len(given_up)} shards were given up: each shard lost its "
                f"worker {MAX_ATTEMPTS} times (out of memory?); the other {unit} are committed"
            )
        return progress.total

    def _hand_out(
        self, job: RayJob, queue: Any, show: Callable[[ProgressCounts], None]
    ) -> list[str]:
        """Until every shard is committed or given up; the names of the latter."""
        running = {self._run(number, job, queue): number for number in range(len(self._workers))}
        restarts = [0] * len(self._workers)
        while True:
            ended, _ = ray.wait(list(running), timeout=1.0) if running else ([], [])
            for run in ended:
                number = running.pop(run)
                try:
                    ray.get(run)
                except RayActorError:
                    num_lost = ray.get(queue.release.remote(number))
                    restarts[number] += 1
                    self._say(
                        f"Ray worker {number} was lost; its unfinished shards ({num_lost}) are "
                        "done again"
                    )
            status: QueueStatus = ray.get(queue.status.remote())
            show(status.counts)
            if not status.num_left:
                return status.given_up
            idle = set(range(len(self._workers))) - set(running.values())
            able = [number for number in sorted(idle) if restarts[number] <= MAX_RESTARTS]
            if not running and not able:
                raise EngineError(
                    f"all {len(self._workers)} Ray workers are lost; {status.num_left} shards are "
                    "missing, what was committed is safe: run the same command again to go on"
                )
            for number in able[: status.num_free]:
                running[self._run(number, job, queue)] = number

    def _run(self, number: int, job: RayJob, queue: Any) -> Any:
        """Start a worker on the queue; Ray brings it up again first where it was lost."""
        precision = cast(Precision, self.facts.precision)
        config = replace(self._config_of(number), precision=precision)
        return self._workers[number].run.remote(job, queue, config, with_text=self._with_text)

    def _first_facts(self) -> EngineFacts:
        """The first worker's, which the others must share: hardware settles what `auto` means."""
        asked = self._workers[0].facts.remote(self._config_of(0), with_text=self._with_text)
        try:
            while True:
                try:
                    facts: EngineFacts = ray.get(asked, timeout=PATIENCE_SECONDS)
                    break
                except GetTimeoutError:
                    seat = self._seats[0]
                    self._say(
                        f"waiting for a Ray worker with {seat.num_cpus} processors and "
                        f"{seat.num_gpus} GPUs to come up"
                    )
        except RayError as error:
            raise _translated(error) from error
        return replace(facts, devices=(f"{len(self._seats)} Ray workers, {facts.devices[0]} each",))

    def _config_of(self, number: int) -> ExtractConfig:
        seat = self._seats[number]
        device = "cuda" if seat.num_gpus else "cpu"
        return replace(self._config, device=device, workers=seat.num_cpus)


def _join(address: str | None) -> None:
    """Connect to the cluster, or start one on this machine."""
    # A cluster that is started here reports to nobody.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    wanted = address or os.environ.get("RAY_ADDRESS")
    try:
        _check_reachable(wanted)
        ray.init(
            address=address,
            configure_logging=False,
            log_to_driver=False,
            include_dashboard=None if address else False,
        )
    except (OSError, ValueError, RuntimeError, RayError) as error:
        at = wanted or "this machine"
        raise EngineError(f"no Ray cluster at {at}: {_first_line(error)}") from error


def _check_reachable(address: str | None) -> None:
    """Raises OSError when nothing answers at host:port; Ray itself tries on for ten minutes."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdecimal() and "//" not in host:
        socket.create_connection((host, int(port)), timeout=10).close()


def _start(number: int, seat: Seat) -> Any:
    # soft: where its machine is lost, another one will do.
    where = NodeAffinitySchedulingStrategy(seat.node_id, soft=True)
    options: dict[str, Any] = {
        "num_cpus": seat.num_cpus,
        "num_gpus": seat.num_gpus,
        "max_restarts": MAX_RESTARTS,
        "scheduling_strategy": where,
    }
    return ray.remote(RayWorker).options(**options).remote(number)


def _translated(error: RayError) -> UserError:
    """A worker's own error that a user can mend, or what became of the cluster."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, UserError):
        return error.cause
    if isinstance(error, RayTaskError):
        raise error  # a fault of ours: with the worker's traceback
    return EngineError(
        f"the Ray cluster failed: {_first_line(error)}; what was committed is safe, run the same "
        "command again to go on"
    )


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason")
