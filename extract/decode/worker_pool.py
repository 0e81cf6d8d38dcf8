"""Decoding processes of this machine: if one crashes, only its clip is lost."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from ...data_manifests.core.errors import UserError
from .byte_queue import ByteQueue
from .clip_reader import (
    Cause,
    Chunk,
    ClipEnd,
    ClipFailure,
    ClipTask,
    DecodeSettings,
    Message,
    read_clip,
)
from .protocol import Heartbeat

MAX_WAITING_BYTES = 16 * 2**20
"""Of pictures that wait for the encoder: 111 of 224 pixels, 27 of 448; the next batch or more."""

HEARTBEAT_SECONDS = 1.0
"""Shortest time between two heartbeats of a decoding process."""

MESSAGE_BYTES = 4096
"""Size assumed for a message without pictures, so that their number is bounded, too."""


class DecoderStartError(UserError):
    """Decoding processes cannot start on this machine or from this script."""


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    connection: Connection
    is_ready: bool = False
    """It has started and reported so."""
    task: ClipTask | None = None
    began: float = 0.0
    """When it was given its task (time.monotonic), moved on by the time it has waited since."""
    last_sign: float = 0.0
    """When it last showed progress, likewise."""


class LocalDecoders:
    """Decodes clips in processes of its own, with bounded memory, whatever the clips do to them.

    At most `num_workers` clips are under way; what they deliver waits in a queue of
    `max_waiting_bytes`, and a process whose chunk does not fit waits too.
    """

    def __init__(
        self,
        settings: DecodeSettings,
        *,
        num_workers: int,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
    ) -> None:
        self._settings = settings
        self._num_workers = num_workers
        self._context = multiprocessing.get_context("spawn")
        self._events: ByteQueue[tuple[ClipTask, Message] | BaseException | None] = ByteQueue(
            max_waiting_bytes
        )
        self._stop = threading.Event()

    def decode(self, tasks: Iterable[ClipTask]) -> Iterator[tuple[ClipTask, Message]]:
        """Every clip's messages, in order within a clip, mixed among clips; the last one ends the
        clip.

        tasks is iterated in a thread of its own, as processes become free.
        """
        for event in self.decode_with_pauses(tasks, pause_seconds=None):
            if event is not None:
                yield event

    def decode_with_pauses(
        self, tasks: Iterable[ClipTask], *, pause_seconds: float | None
    ) -> Generator[tuple[ClipTask, Message] | None]:
        """Like decode, and a None whenever nothing has come for so long: time to look elsewhere."""
        thread = threading.Thread(target=self._serve, args=(iter(tasks),), daemon=True)
        thread.start()
        try:
            while True:
                try:
                    event = self._events.get(timeout_seconds=pause_seconds)
                except TimeoutError:
                    yield None
                    continue
                if event is None:
                    return
                if isinstance(event, BaseException):
                    raise event
                yield event
        finally:
            self._stop.set()
            while thread.is_alive():  # it may be waiting for room in the queue
                with contextlib.suppress(TimeoutError):
                    self._events.get(timeout_seconds=0.05)
            thread.join()

    def _serve(self, tasks: Iterator[ClipTask]) -> None:
        workers: list[_Worker] = []
        try:
            self._run(tasks, workers)
            self._events.put(None, num_bytes=0)
        except BaseException as error:  # a fault of ours: show it where decode() is called
            self._events.put(error, num_bytes=0)
        finally:
            for worker in workers:
                _end(worker)

    def _run(self, tasks: Iterator[ClipTask], workers: list[_Worker]) -> None:
        task = next(tasks, None)
        while not self._stop.is_set():
            while task is not None and len(workers) < self._num_workers:
                workers.append(self._start())
                if _give(workers[-1], task):
                    task = next(tasks, None)
            busy = [worker for worker in workers if worker.task is not None]
            if not busy and task is None:
                return
            ready = wait([worker.connection for worker in busy], timeout=0.5)
            for worker in busy:
                if worker.connection in ready:
                    began = time.monotonic()
                    self._receive(worker)
                    waited = time.monotonic() - began
                    for other in busy:  # nobody looked at them while the queue was full
                        other.began += waited
                        other.last_sign += waited
                if worker.task is None:
                    pass
                elif time.monotonic() - worker.began > self._settings.limits.decode_seconds:
                    self._lose(worker, self._too_long())
                elif time.monotonic() - worker.last_sign > self._settings.limits.stall_seconds:
                    self._lose(worker, self._stalled())
                if worker.task is None and worker.process.is_alive() and task is not None:
                    if _give(worker, task):
                        task = next(tasks, None)
            workers[:] = [worker for worker in workers if not worker.connection.closed]

    def _receive(self, worker: _Worker) -> None:
        assert worker.task is not None
        # A process may get stuck halfway through a message, which would hold us up with it.
        is_late = threading.Event()

        def end_it() -> None:
            is_late.set()
            worker.process.kill()

        limits = self._settings.limits
        deadline = threading.Timer(min(limits.stall_seconds, limits.decode_seconds), end_it)
        deadline.daemon = True
        deadline.start()
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join(timeout=5)
            how = _how(worker.process.exitcode)
            if not worker.is_ready:
                raise DecoderStartError(
                    f"a decoding process ended before it could start ({how}); its output is above. "
                    'A script must call extract() under if __name__ == "__main__":, since decoding '
                    "processes load the script, too"
                ) from None
            if is_late.is_set():
                is_stalled = limits.stall_seconds <= limits.decode_seconds
                self._lose(worker, self._stalled() if is_stalled else self._too_long())
            else:
                self._lose(worker, f"the decoder crashed ({how})", cause="crash")
            return
        finally:
            deadline.cancel()
        worker.is_ready = True
        if message is None:  # a sign of life
            worker.last_sign = time.monotonic()
            return
        self._put(worker.task, message)
        if isinstance(message, ClipEnd | ClipFailure):
            worker.task = None
        worker.last_sign = time.monotonic()  # after the put: waiting for room is no stall

    def _stalled(self) -> str:
        seconds = self._settings.limits.stall_seconds
        return f"the decoder made no progress for {seconds:g} s and was ended"

    def _too_long(self) -> str:
        seconds = self._settings.limits.decode_seconds
        return f"decoding takes over {seconds:g} s (limits.decode_seconds) and was ended"

    def _lose(self, worker: _Worker, reason: str, *, cause: Cause = "limit") -> None:
        """End a process that is of no more use; its clip fails, and another process takes its
        place."""
        assert worker.task is not None
        _end(worker)
        self._put(worker.task, ClipFailure(reason=reason, stage="worker", cause=cause))

    def _put(self, task: ClipTask, message: Message) -> None:
        num_bytes = MESSAGE_BYTES + (message.pictures.nbytes if isinstance(message, Chunk) else 0)
        while not self._stop.is_set():
            if self._events.put((task, message), num_bytes=num_bytes, timeout_seconds=0.5):
                return

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe(duplex=True)
        process = self._context.Process(
            target=_decode_forever, args=(theirs, self._settings), daemon=True
        )
        process.start()
        theirs.close()
        return _Worker(process, ours)


def _give(worker: _Worker, task: ClipTask) -> bool:
    """Send a clip to a process; False if the process has just died."""
    try:
        worker.connection.send(task)
    except OSError:
        _end(worker)
        return False
    worker.task = task
    worker.began = worker.last_sign = time.monotonic()
    return True


def _end(worker: _Worker) -> None:
    worker.connection.close()
    worker.process.kill()
    worker.process.join()


def _how(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return signal.Signals(-exit_code).name
    return f"exit code {exit_code}"


class _MessageSender:
    """Sends messages of a decoding process to the main process; safe from any thread."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._last = time.monotonic()
        self.heartbeat: Heartbeat = self._heartbeat
        """A single object: it is part of the key under which digests of files are cached."""

    def send(self, message: Message | None) -> None:
        with self._lock:
            self._connection.send(message)
            self._last = time.monotonic()

    def _heartbeat(self) -> None:
        """Report progress, at most once per HEARTBEAT_SECONDS."""
        if time.monotonic() - self._last > HEARTBEAT_SECONDS:
            self.send(None)


def _decode_forever(connection: Connection, settings: DecodeSettings) -> None:
    """Main loop of a decoding process: decode clips until the connection closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process handles Ctrl-C
    _limit_memory(settings.limits.memory_gib)
    _silence_decoder()
    sender = _MessageSender(connection)
    try:
        sender.send(None)  # it has started
        while True:
            for message in read_clip(connection.recv(), settings, heartbeat=sender.heartbeat):
                sender.send(message)
    except (EOFError, OSError):
        os._exit(0)  # the main process is gone


def _limit_memory(gib: float) -> None:
    if sys.platform == "linux":
        import resource

        size = int(gib * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (size, size))


def _silence_decoder() -> None:
    """Errors of the decoder are raised, not printed on the terminal."""
    import av.logging

    av.logging.set_level(av.logging.PANIC)
