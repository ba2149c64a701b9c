"""A cache as its users see it, in threads. For asyncio see aio.py, for the loop itself once.py."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar, cast, overload

from . import _codes, events, keys
from .errors import shorten
from .hot import MISSING
from .limits import Limit, OnTimeout, check_timeout
from .once import TIMED_OUT, Frame, Raised, Run, Steps, Wait, frames, returned, steps, timed_out
from .resets import ResetReport, wait_for_nodes
from .stats import Stats, collect
from .store import Store
from .values import BYTES, NoCache
from .values import view as as_view

__all__ = ["Cache", "NoCache"]

T = TypeVar("T")

#: How long a thread stays in C while it waits, in seconds: Python's signal handlers run at least this often, even when
#: the signal was delivered to another thread.
_WAIT_SLICE: Final = 0.25


def _within(frame: Frame, fn: Callable[[], object]) -> object:
    """Return fn(), called as the computation `frame`."""
    outer = frames.get()
    try:
        # Inside, since a signal handler may raise right behind it. A frame that stays would be a computation that never
        # ends, and every later call for its key on this thread a cycle.
        frames.set((*outer, frame))
        return fn()
    finally:
        frame.is_over = True
        frames.set(outer)


def _wait(step: Wait) -> int:
    if step.seconds is None:
        while True:
            code = step.segment.wait(step.call, _WAIT_SLICE)
            if code not in (_codes.TIMEOUT, _codes.INTERRUPTED):
                return code
    end, left = time.monotonic() + step.seconds, step.seconds
    while True:
        code = step.segment.wait(step.call, min(left, _WAIT_SLICE))
        if code not in (_codes.TIMEOUT, _codes.INTERRUPTED):
            return code
        left = end - time.monotonic()
        if left <= 0:
            return int(_codes.TIMEOUT)


def _drive(loop: Steps, fn: Callable[[], object], wait: Callable[[Wait], int]) -> object:
    """Take the steps of `loop` on this thread, and return what it returns."""
    try:
        step = next(loop)
        while True:
            if type(step) is Wait:
                step = loop.send(wait(step))
                continue
            try:
                value = _within(cast("Run", step).frame, fn)
            except Exception as exc:  # noqa: BLE001  # it is raised in the end
                value = Raised(exc)
            step = loop.send(value)
    except StopIteration as end:
        return end.value
    finally:
        loop.close()


class Cache(Store):
    """One cache, shared by all processes of this host that use its name and namespace. Thread-safe.

    Made by `coopshm.open`. Keys are str, bytes, int, float, bool, None, and tuples of them, all typed: 1, True, 1.0,
    "1" and b"1" are five keys. The method `cached` is inherited.
    """

    def __repr__(self) -> str:
        return f"<coopshm.Cache {self.name!r} in namespace {self._attachment.namespace!r}>"

    # ---- what it is for: cached, and

    def _cached(
        self, key: object, fn: Callable[[], object], timeout: object = None, on_timeout: object = None
    ) -> object:
        """`cached`, for what the way of a hit did not find."""
        return self._ask(keys.encode_key(key), key, fn, self._limit(timeout, on_timeout))

    def _ask(self, data: bytes, key: object, fn: Callable[[], object], limit: Limit | None) -> object:
        if "gevent.monkey" in sys.modules:
            from . import greenlets

            if greenlets.is_patched():
                return returned(greenlets.ask(self, data, key, limit, lambda loop: _drive(loop, fn, greenlets.wait)))
        value = _drive(steps(self, data, key, None, limit), fn, _wait)
        if value is TIMED_OUT:
            value = _drive(timed_out(self, data, cast("Limit", limit)), fn, _wait)
        return returned(value)

    async def acached(
        self,
        key: object,
        fn: Callable[[], Awaitable[T | NoCache[T]]],
        *,
        timeout: float | None = None,
        on_timeout: OnTimeout | None = None,
    ) -> T:
        """Return the value of `key`, awaiting `fn()` to compute it if no process has.

        As `cached`, with which it shares values and computations, for asyncio: the event loop is never blocked. Tasks
        of this process that wait for one key cost one waiting thread, whatever their number. A cancelled waiter
        disturbs nobody; when the task that computes is cancelled, another one that waits computes instead.

        Args:
            key: as in `cached`.
            fn: a coroutine function without arguments; it runs in the caller's task.
            timeout, on_timeout: as in `cached`. Each task has its own, whoever else waits for the key.

        Raises:
            TypeError: `fn` returned something that cannot be awaited.
            Exception: as `cached`.
        """
        limit = self._limit(timeout, on_timeout)
        value = self._hit(key, MISSING)
        if value is MISSING:
            from . import aio  # asyncio is a large import

            value = await aio.ask(self, key, fn, limit)
        return cast("T", value)

    def get(self, key: object, default: object = None) -> object:
        """Return the value of `key` if it is stored, else `default`. Computes nothing and waits for nobody.

        Raises:
            DecodeError: it is stored, but cannot be decoded here.
        """
        data = keys.encode_key(key)
        while True:
            here = self._attachment.notice()
            value = self._look_up(data)
            if value is not MISSING:
                return value
            if self._attachment.notice() == here:  # else it may just have been torn by a reset
                return default

    def view(
        self,
        key: object,
        fn: Callable[[], object] | None = None,
        *,
        timeout: float | None = None,
        on_timeout: OnTimeout | None = None,
    ) -> memoryview | None:
        """Return the bytes stored for `key` as a read-only memoryview over shared memory, without a copy.

        The bytes never change, whatever is reset or published. While the view, or anything made from it, lives, the
        parts of the arena it lies in (1/256 of `memory_limit` each) are not reused after a reset: drop views when done.

        Args:
            key: as in `cached`.
            fn: computes the bytes when they are not stored, as in `cached`. Without it the result is then None.
            timeout, on_timeout: as in `cached`.

        Raises:
            TypeError: the value is not bytes.
            Exception: as `cached`.
        """
        data = keys.encode_key(key)
        limit = self._limit(timeout, on_timeout)
        while True:
            here = segment, generation = self._attachment.notice()
            found = segment.view(data)
            if found is not None:
                if segment.generation() == generation:
                    return as_view(*found)
            elif fn is None:
                return None
            else:
                value = self._ask(data, key, fn, limit)
                # Not stored: there was no room, or it was NoCache; or a reset came right away, and then it is too old.
                # Or stored, and this process can have no pins.
                if segment.view(data) is None and self._attachment.notice() == here:
                    return as_view(BYTES, cast("bytes", value))

    def keys(self) -> list[object]:
        """Return the keys of all entries, in the order in which they were stored."""
        return [keys.decode_key(entry.key) for entry in self._attachment.notice()[0].entries()]

    # ---- reset

    @overload
    def reset(self, version: object = None, wait: None = None) -> object: ...
    @overload
    def reset(self, version: object = None, *, wait: float) -> ResetReport: ...
    def reset(self, version: object = None, wait: float | None = None) -> object:
        """Invalidate the whole cache. When this returns, no call returns anything that was computed before.

        The host's `on_reset` callback from the configuration runs first, in this process, with the version that is to
        be; if it raises, nothing changes. Computations under way are discarded when they end, and done again.

        Args:
            version: the source's version from now on, any JSON-able term. None: the next one (one more, for a whole
                number; else 1). A reset to the current version does nothing.
            wait: with a cluster, seconds to wait until all its nodes have applied the reset; the call returns sooner
                when they have. A reset reaches them in any case, as soon as they can be reached.

        Returns:
            The version now in force; with `wait`, a ResetReport of it and of each node.

        Raises:
            ConfigError: `version` is not JSON-able, or too long; or the callback cannot be found.
            ResetError: called by the callback itself.
            BusyError: another process was stopped in the middle of a change, or of a reset without a callback.
            Exception: whatever the callback raised.
        """
        seconds = None if wait is None else check_timeout(wait, "wait")
        now = self._attachment.reset(version)
        if seconds is None:
            return now
        return ResetReport(now, wait_for_nodes(self._attachment.segment, seconds))

    def version(self) -> object:
        """Return the version of the source that the cache holds values of."""
        return self._attachment.version()

    def on_reset(self, hook: Callable[[object], object]) -> None:
        """Have `hook(version)` called in this process after each reset, before the process computes anything new.

        Calls of the cache wait for it. If it raises, the call that ran it raises, and the next one tries again.

        Raises:
            TypeError: `hook` cannot be called.
        """
        if not callable(hook):  # else a call of the cache would say so, in any thread, after the next reset
            raise TypeError(f"on_reset() takes a function of the version, not {shorten(hook)}")
        self._attachment.add_hook(hook)

    # ---- looking on

    def stats(self) -> Stats:
        """Return what all processes of the cache have counted."""
        self._look()
        return collect(self.name, self._attachment.notice()[0])

    def verify(self) -> list[str]:
        """Check every structure of the segment, partly under its write lock. Returns the faults found."""
        return self._attachment.segment.verify()

    def destroy(self) -> None:
        """Remove the segment from the host. Processes that use it, this one included, go on with a new, empty one."""
        segment = self._attachment.segment
        segment.destroy()
        events.tell(logging.INFO, "destroyed", segment, "destroyed", pid=os.getpid(), uid=os.geteuid())
        events.repaired(segment)
