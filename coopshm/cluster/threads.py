"""A thread for calls that may wait for a lock, and the way there and back for a burst of them.

An executor wakes the event loop once per call. This one takes all calls that have come meanwhile and brings their
results back together, which is what makes ten thousand deliveries a second cheap.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar, cast

__all__ = ["Worker"]

T = TypeVar("T")

_Job = tuple[Callable[[], object], "asyncio.Future[object]"]


class Worker:
    """One thread, which makes calls in the order in which they were asked for. Used from one event loop."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: deque[_Job] = deque()
        self._wanted = threading.Semaphore(0)
        self._ends = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def do(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Have `call()` called. The future has what it returns or raises; cancelling it does not stop the call. After
        `stop` nothing is called, and the future is cancelled."""
        future: asyncio.Future[T] = self._loop.create_future()
        if self._ends:
            future.cancel()
            return future
        self._jobs.append((call, cast("asyncio.Future[object]", future)))
        self._wanted.release()
        return future

    async def stop(self) -> None:
        """Make the calls that were asked for, then end."""
        self._ends = True
        self._wanted.release()
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while True:
            self._wanted.acquire()
            self._work()
            if self._ends and not self._jobs:
                return

    def _work(self) -> None:
        """Make the calls that there are. A function of its own: what they have, entries that are pinned in a segment
        among it, would live on in its variables until the next call, which may be long in coming."""
        done: list[tuple[asyncio.Future[object], object, Exception | None]] = []
        while self._jobs:
            call, future = self._jobs.popleft()
            try:
                done.append((future, call(), None))
            except Exception as exc:  # noqa: BLE001  # it is the future's
                done.append((future, None, exc))
        if done:
            with contextlib.suppress(RuntimeError):  # the loop was closed
                self._loop.call_soon_threadsafe(_settle, done)


def _settle(done: list[tuple[asyncio.Future[object], object, Exception | None]]) -> None:
    for future, result, error in done:
        if future.done():  # cancelled
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
