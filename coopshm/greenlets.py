"""Computing once, under gevent: the hub of a monkey-patched process is never blocked.

`cached` is the same; only who waits does so differently. Greenlets of this process that ask for one key share one loop,
and the loop's waits for other processes are in the threads of a small pool. A greenlet that asks from within a
computation waits by itself, as under asyncio (aio.py), and for the same reason.
"""

from __future__ import annotations

import functools
import sys
import time
import weakref
from collections.abc import Callable
from typing import Any, Final, cast

from . import _codes
from .errors import DecodeError, EncodeError
from .forks import PerProcess
from .hot import MISSING
from .limits import Limit
from .once import TIMED_OUT, Origin, Steps, Wait, around, copied, steps, timed_out
from .sharing import LEADS, Flight
from .store import Store

__all__ = ["ask", "is_patched", "wait"]

#: Threads that wait, per hub; and for how long at a time, in seconds, so that more greenlets than threads take turns.
_THREADS: Final = 16
_TURN: Final = 0.02

_pools: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
_shared = PerProcess[dict[tuple[Any, Store, bytes], Flight]](dict)


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
    end = None if step.seconds is None else time.monotonic() + step.seconds
    while True:
        seconds = _TURN if end is None else min(_TURN, max(0.0, end - time.monotonic()))
        turn = pool.spawn(step.segment.wait, step.call, seconds)
        _to_the_end(turn)
        code = turn.get()
        if code not in (_codes.TIMEOUT, _codes.INTERRUPTED):
            return int(code)
        if end is not None and time.monotonic() >= end:
            return int(_codes.TIMEOUT)


def _to_the_end(turn: Any) -> None:
    """Wait until the thread is through with its turn: until then it has the call in its hands. What is raised in this
    greenlet meanwhile (it is killed, a gevent.Timeout) is raised then; of several, the last."""
    raised: BaseException | None = None
    while not turn.ready():
        try:
            turn.wait()
        except BaseException as exc:  # noqa: BLE001  # it is raised in the end
            raised = exc
    try:
        if raised is not None:
            raise raised
    finally:
        del raised  # else its traceback, with this frame, would refer to it: a cycle


def ask(store: Store, data: bytes, key: object, limit: Limit | None, drive: Callable[[Steps], object]) -> object:
    """Return what the loop for `key` comes to, whose steps `drive` takes: here, or in another greenlet that asks."""
    if around():
        value = drive(steps(store, data, key, None, limit))
    else:
        value = _share(store, data, key, limit, drive)
    return drive(timed_out(store, data, limit)) if limit is not None and value is TIMED_OUT else value


def _share(store: Store, data: bytes, key: object, limit: Limit | None, drive: Callable[[Steps], object]) -> object:
    import gevent

    flights, at = _shared(), (gevent.get_hub(), store, data)
    while True:
        flight = flights.get(at)
        told = LEADS if flight is None else _wait_in(flight, limit)
        if told is TIMED_OUT:
            doubts = flight is not None and flight.doubt()
            return drive(steps(store, data, key, None, limit)) if doubts else TIMED_OUT
        if flight is None:
            flight = flights[at] = Flight(functools.partial(flights.pop, at))
        if told is LEADS:
            with flight:
                flight.origin = Origin(store)
                flight.value = drive(steps(store, data, key, flight.origin, limit))
            return flight.value
        value = store._hit(key, MISSING)
        if value is not MISSING:
            return value
        origin = cast("Origin", flight.origin)
        if not origin.is_now(store):
            continue
        try:
            value = copied(store, flight.value)
        except (EncodeError, DecodeError):
            return drive(steps(store, data, key, None, limit))  # as other processes do: each for itself
        if origin.is_now(store):
            return value


def _wait_in(flight: Flight, limit: Limit | None) -> object:
    """Return LEADS, ENDED or TIMED_OUT."""
    from gevent.event import AsyncResult

    told: Any = AsyncResult()

    def tell(what: object) -> bool:
        told.set(what)
        return True

    place = flight.join(tell)
    try:
        if limit is None:
            told.wait()
        else:
            with limit as seconds:
                told.wait(seconds)
        return told.get() if told.ready() else TIMED_OUT
    except BaseException:  # this greenlet is to end
        if told.ready() and told.value is LEADS:
            flight.pass_on()
        raise
    finally:
        flight.leave(place)
