"""A queue between threads that is bounded in bytes, since chunks of large pictures weigh more."""

from __future__ import annotations

import threading
from collections import deque
from typing import Final, Generic, TypeVar

T = TypeVar("T")


class ByteQueue(Generic[T]):
    """First in, first out; full while `max_bytes` or more wait in it, so that any one item fits."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes: Final = max_bytes
        self._items: deque[tuple[T, int]] = deque()
        self._num_bytes = 0
        self._changed = threading.Condition()

    @property
    def num_bytes(self) -> int:
        """What waits in it."""
        return self._num_bytes

    def put(self, item: T, *, num_bytes: int, timeout_seconds: float | None = None) -> bool:
        """Add an item once there is room; False when there was none for so long."""
        with self._changed:
            if not self._changed.wait_for(
                lambda: self._num_bytes < self._max_bytes, timeout=timeout_seconds
            ):
                return False
            self._items.append((item, num_bytes))
            self._num_bytes += num_bytes
            self._changed.notify_all()
            return True

    def get(self, *, timeout_seconds: float | None = None) -> T:
        """The next item once there is one. Raises TimeoutError when none came for so long."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._items, timeout=timeout_seconds):
                raise TimeoutError
            item, num_bytes = self._items.popleft()
            self._num_bytes -= num_bytes
            self._changed.notify_all()
            return item
