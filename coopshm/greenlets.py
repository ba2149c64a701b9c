"""Computing once, under gevent: the hub of a monkey-patched process is never blocked.

`cached` is the same; only who waits does so differently. Greenlets of this process that ask for one key share one loop,
and the loop's waits for other processes are in the threads of a small pool. A greenlet that asks from within a
computation waits by itself, as under asyncio (aio.py), and for the same reason.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from typing import Any, Final

from . import _segment
from .errors import DecodeError, EncodeError
from .forks import PerProcess
from .hot import MISSING
from .once import Origin, Wait, copied, frames
from .store import Store

__all__ = ["is_patched", "share", "wait"]

#: Threads that wait, per hub; and for how long at a time, in seconds, so that more greenlets than threads take turns.
_THREADS: Final = 16
_TURN: Final = 0.02

_pools: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
_shared = PerProcess[dict[tuple[Any, Store, bytes], "_Flight"]](dict)


def is_patched() -> bool:
    """Whether threads of this process are greenlets."""
    monkey: Any = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def wait(step: Wait) -> int:
    """Wait for the flight of `step`; the hub goes on meanwhile."""
    import gevent
    from gevent.threadpool import ThreadPool

    hub = gevent.get_hub()
    pool = _pools.get(hub)
    if pool is None:
        pool = _pools[hub] = ThreadPool(_THREADS, hub=hub)
    while True:
        turn = pool.spawn(step.segment.wait, step.call, _TURN)
        try:
            code = turn.get()
        except BaseException:
            turn.wait()  # this greenlet is to end; the call is still in the thread's hands
            raise
        if code not in (_segment.TIMEOUT, _segment.INTERRUPTED):
            return int(code)


def share(store: Store, data: bytes, key: object, ask: Callable[[Origin], object]) -> object:
    """Return what `ask` returns, called by one greenlet for all that ask for `key` meanwhile."""
    if frames.get():
        return ask(Origin(store))
    import gevent
    from gevent.event import Event

    flights, at = _shared(), (gevent.get_hub(), store, data)
    while True:
        flight = flights.get(at)
        if flight is None:
            flights[at] = flight = _Flight(Event(), Origin(store))
            try:
                flight.value = ask(flight.origin)
            finally:
                del flights[at]
                flight.ended.set()
            return flight.value
        flight.ended.wait()
        value = store._hit(key, MISSING)
        if value is not MISSING:
            return value
        if flight.value is MISSING or not flight.origin.is_now(store):
            continue
        try:
            value = copied(store, flight.value)
        except (EncodeError, DecodeError):
            return ask(Origin(store))  # as other processes do: each for itself
        if flight.origin.is_now(store):
            return value


class _Flight:
    """A loop that greenlets of this process share."""

    __slots__ = ("ended", "origin", "value")

    def __init__(self, ended: Any, origin: Origin) -> None:
        self.ended = ended
        self.origin = origin
        self.value: object = MISSING  # also when the greenlet that ran it was killed, or its loop raised
