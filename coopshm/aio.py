"""Computing once, for asyncio. Nothing here blocks an event loop.

`fn` is awaited in the caller's task. All the rest of the loop in once.py is short, but may take a lock, copy a large
value, or run a hook, so it is taken in a thread, a step at a time. Who has to wait for another process hands the call
to one of a few threads; each looks after any number of calls.

Tasks of this process that ask for one key share one loop (sharing.py), so that a thousand of them cost one. Not so a
task that asks from within a computation: it waits by itself, since its wait is an edge of the wait-for graph, which is
searched for cycles.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import functools
import inspect
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, ParamSpec, TypeVar, cast

from . import _codes, keys
from .errors import DecodeError, EncodeError, shorten, type_name
from .forks import PerProcess
from .hot import MISSING
from .limits import Limit
from .once import (
    TIMED_OUT,
    Frame,
    Origin,
    Raised,
    Run,
    Steps,
    Wait,
    around,
    copied,
    frames,
    returned,
    steps,
    timed_out,
)
from .sharing import LEADS, Flight
from .store import Store

__all__ = ["ask"]

P = ParamSpec("P")
T = TypeVar("T")

#: Threads that take steps, and threads that wait. Steps take microseconds, save the copying of large values.
_STEPPERS: Final = 8
_WAITERS: Final = 4

#: How long a waiting thread sleeps on one of its calls before it looks at all of them, in seconds: what a wake-up of
#: one of the others may be late.
_ROUND: Final = 0.005

_threads = PerProcess(lambda: concurrent.futures.ThreadPoolExecutor(_STEPPERS, "coopshm-step"))
_waiters = PerProcess(lambda: [_Waiter(n) for n in range(_WAITERS)])
_shared = PerProcess[dict[tuple[asyncio.AbstractEventLoop, Store, bytes], Flight]](dict)


class _Wait:
    """A call that waits, and the future of the code that ends its wait."""

    __slots__ = ("future", "given_up", "step")

    def __init__(self, step: Wait) -> None:
        self.step = step
        self.future: concurrent.futures.Future[int] = concurrent.futures.Future()
        self.given_up = False

    def give_up(self) -> None:
        """Have it end now, with TIMEOUT if with nothing else."""
        self.given_up = True


class _Waiter:
    """A thread that waits for the flights of any number of calls."""

    def __init__(self, number: int) -> None:
        self._name = f"coopshm-wait-{number}"
        self._lock = threading.Lock()
        self._waits: deque[_Wait] = deque()
        self._runs = False

    def __len__(self) -> int:
        return len(self._waits)

    def add(self, wait: _Wait) -> None:
        with self._lock:
            self._waits.append(wait)
            if not self._runs:
                self._runs = True
                threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def _run(self) -> None:
        while True:
            with self._lock:
                waits = len(self._waits)
                if waits == 0:
                    self._runs = False
                    return
            for n in range(waits):
                wait = self._waits.popleft()
                code = wait.step.segment.wait(wait.step.call, 0 if n or wait.given_up else _ROUND)
                if code in (_codes.TIMEOUT, _codes.INTERRUPTED) and not wait.given_up:
                    self._waits.append(wait)
                else:  # from here on the call is its loop's again
                    wait.future.set_result(_codes.TIMEOUT if code == _codes.INTERRUPTED else code)


async def ask(store: Store, key: object, fn: Callable[[], Awaitable[object]], limit: Limit | None) -> object:
    """Return the value of `key`, which was no hit."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "acached() is awaited in an event loop of asyncio, and none runs in this thread; elsewhere, such as under"
            " trio, call cached() in another thread: await trio.to_thread.run_sync(cache.cached, key, fn)"
        ) from None
    data = keys.encode_key(key)
    while True:
        origin = Origin(store)
        if around():
            value = await _drive(steps(store, data, key, origin, limit), fn)
        else:
            value = await _share(store, data, key, origin, fn, limit)
        if limit is not None and value is TIMED_OUT:
            value = await _drive(timed_out(store, data, limit, origin), fn)
        # The loop's last look was in a thread, and what came after it took as long as the event loop was busy.
        if value is not MISSING and origin.is_now(store):
            return returned(value)
        value = store._hit(key, MISSING)
        if value is not MISSING:
            return value


async def _share(
    store: Store, data: bytes, key: object, origin: Origin, fn: Callable[[], Awaitable[object]], limit: Limit | None
) -> object:
    """Take part in the loop for `key`, or run it for all. MISSING: look again."""
    flights, at = _shared(), (asyncio.get_running_loop(), store, data)
    flight = flights.get(at)
    told = LEADS if flight is None else await _wait_in(flight, limit)
    if told is TIMED_OUT:
        doubts = flight is not None and flight.doubt()
        return await _drive(steps(store, data, key, origin, limit), fn) if doubts else TIMED_OUT
    if flight is None:
        flight = flights[at] = Flight(functools.partial(flights.pop, at))
    if told is LEADS:
        with flight:
            flight.origin = origin
            flight.value = await _drive(steps(store, data, key, origin, limit), fn)
        return flight.value
    of = cast("Origin", flight.origin)
    origin.segment, origin.generation = of.segment, of.generation
    value = store._hit(key, MISSING)
    if value is not MISSING:
        origin.segment, origin.generation = store._attachment.seen
        return value
    try:
        return await _in_thread(copied, store, flight.value)
    except (EncodeError, DecodeError):
        return await _drive(steps(store, data, key, origin, limit), fn)  # as other processes do: each for itself


async def _wait_in(flight: Flight, limit: Limit | None) -> object:
    """Return LEADS, ENDED or TIMED_OUT."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[object] = loop.create_future()

    def tell(what: object) -> bool:
        if told.done() or loop.is_closed():  # a task that is still pending then goes on no more
            return False
        told.set_result(what)
        return True

    place = flight.join(tell)
    try:
        if limit is None:
            return await told
        with limit as seconds:
            timer = loop.call_later(seconds, tell, TIMED_OUT)
            try:
                return await told
            finally:
                timer.cancel()
    except BaseException:  # this task is cancelled
        if not told.cancelled() and told.done() and told.result() is LEADS:
            flight.pass_on()
        raise
    finally:
        flight.leave(place)


async def _drive(loop: Steps, fn: Callable[[], Awaitable[object]]) -> object:
    """Take the steps of `loop`, and return its value."""
    context = contextvars.copy_context()
    answer: object = None
    ended = False
    try:
        while True:
            ended, step = await _in_thread(context.run, _advance, loop, answer)
            if ended:
                return step
            answer = await (_wait(step) if isinstance(step, Wait) else _run(cast("Run", step).frame, fn))
    except GeneratorExit:
        # The event loop was closed in the middle of `fn`, so nothing can be awaited any more. No thread has the loop in
        # its hands: what a thread is at work on refers to its task, which is then not collected.
        ended = True
        loop.close()
        raise
    finally:
        if not ended:
            await _in_thread(loop.close)


def _advance(loop: Steps, answer: object) -> tuple[bool, object]:
    try:
        return False, loop.send(answer)
    except StopIteration as end:
        return True, end.value


async def _run(frame: Frame, fn: Callable[[], Awaitable[object]]) -> object:
    outer = frames.get()
    try:
        frames.set((*outer, frame))
        made = fn()
        if not inspect.isawaitable(made):
            raise TypeError(f"acached() takes a coroutine function; {shorten(fn)} returned {type_name(type(made))}")
        return await made
    except Exception as exc:  # noqa: BLE001  # it is raised in the end
        return Raised(exc)
    finally:
        frame.is_over = True
        frames.set(outer)


async def _wait(step: Wait) -> int:
    wait = _Wait(step)
    timer = None if step.seconds is None else asyncio.get_running_loop().call_later(step.seconds, wait.give_up)
    min(_waiters(), key=len).add(wait)
    future = asyncio.wrap_future(wait.future)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        wait.give_up()
        await _ended(future)
        raise
    finally:
        if timer is not None:
            timer.cancel()


async def _in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    call = functools.partial(function, *args, **kwargs)
    future = asyncio.get_running_loop().run_in_executor(_threads(), call)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await _ended(future)  # what runs in the thread has the loop in its hands
        raise


async def _ended(future: asyncio.Future[T]) -> None:
    """Return when it has ended, even if this task is cancelled again."""
    while not future.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([future])
