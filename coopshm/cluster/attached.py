"""A segment that the sidecar is attached to: the thread that listens to its doorbell, and what is done in another one.

What may wait for a lock (publishing, a flip) or runs a callback is no business of the event loop. It is done here, by
one thread of the cache's own (threads.py), or for a reset by any thread: resetters are kept apart by the segment.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections.abc import Callable
from typing import Final

from .. import _codes
from ..attachment import lock_resets
from ..config import CacheConfig, resolve_callable
from ..errors import BusyError
from ..versions import decode_version
from . import segment as seg
from .relay import Delivered, Entry, Kind, MovedError, ResetFailedError, Stamp, Standing
from .segment import SidecarSegment
from .threads import Worker

__all__ = ["Attached", "Flight", "flip", "passing", "storing"]

#: How long the sidecar sleeps at most when nobody rings, in seconds. Also what workers go by when they judge whether it
#: runs, so well below any lease_timeout.
_SLICE: Final = 0.05

#: Seconds for which payloads may be held in the sidecar without a moment in which none is, until it is looked whether
#: they are garbage. Who fails while it sends has them in the frames of an exception, in a circle as often as not, which
#: nothing ends but the collector; and a sidecar that has little to do allocates too little to wake it. It takes some
#: 10 ms.
HELD_SECONDS = 5.0

#: For how long a flip waits for another resetter that has a callback to run, in seconds; without, see attachment.py.
_RESET_PATIENCE: Final = 30.0

#: The core's refusals that mean "not now, or not here". Where too much is being computed there is room all the same.
_NOT_NOW: Final = frozenset({seg.BUSY, seg.GONE, seg.NO_FLIGHT})


class Attached:
    """A segment, the thread that listens to its doorbell, and the thread for what may block.

    `changed` is called on the event loop when there may be something to look at; `looked` says that it was.
    """

    def __init__(self, segment: SidecarSegment, changed: Callable[[], None]) -> None:
        self.segment = segment
        self.origin = segment.origin()
        self.looks = 0
        self.worker = Worker(f"coopshm-{segment.segment.name}")
        self._loop = asyncio.get_running_loop()
        self._none_held = self._loop.time()  # when that was seen, or looked after
        self._changed = changed
        self._pending = threading.Event()  # the event loop has been told, and has not looked yet
        self._ends = False
        self._thread = threading.Thread(target=self._listen, name="coopshm-doorbell", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _listen(self) -> None:
        while not self._ends:
            self.segment.wait(_SLICE)
            if not self._pending.is_set():
                self._pending.set()
                with contextlib.suppress(RuntimeError):  # the loop was closed
                    self._loop.call_soon_threadsafe(self._changed)

    def looked(self) -> None:
        self._pending.clear()
        self.looks += 1
        now = self._loop.time()
        if not self.segment.holds:
            self._none_held = now
        elif now - self._none_held > HELD_SECONDS:
            self._none_held = now
            gc.collect()

    def stamp(self) -> Standing:
        """Where the cache stands, read now."""
        read = self.segment.stamp()
        return Standing(Stamp(read.counter, read.version, read.origin), self.origin, read.own, read.generation)

    async def close(self) -> None:
        self._ends = True
        await asyncio.to_thread(self._thread.join)
        await self.worker.stop()
        await asyncio.to_thread(self.segment.close)


# ---- in a thread


#: A flight and its serial.
Flight = tuple[int, int]

#: What became of an entry, and the flight that it was taken for: it has ended with it, or is up for whoever waits.
Done = tuple[Delivered, Flight | None]


def storing(segment: SidecarSegment, generation: int, entry: Entry) -> Callable[[], Done]:
    """Publishes a value under that generation."""

    def store() -> Done:
        code, call = segment.take(generation, entry.key)
        if code != _codes.OWNER:
            return _refused(code), None
        taken = seg.flight_of(call)
        try:
            code = segment.publish(call, entry.key, int(Kind.VALUE), entry.format, (entry.payload,))
        finally:
            segment.segment.release(call)
        return Delivered.STORED if code == _codes.OK else _refused(code), taken

    return store


def _refused(code: int) -> Delivered:
    if code == _codes.READY:
        return Delivered.KNOWN
    if code == _codes.JOINED:
        return Delivered.JOINED
    if code == _codes.STALE:
        return Delivered.STALE
    return Delivered.GONE if code in _NOT_NOW else Delivered.FULL


def passing(segment: SidecarSegment, flight: int, serial: int, entry: Entry) -> Callable[[], Done]:
    """Ends a flight that is the sidecar's with an outcome."""

    def hand_on() -> Done:
        code, call = segment.take_asked(flight, serial)
        if code != _codes.OWNER:
            return Delivered.GONE if code in _NOT_NOW else Delivered.UNWANTED, None
        try:
            code = segment.publish(call, b"", int(entry.kind), entry.format, (entry.payload,))
        finally:
            segment.segment.release(call)
        if code == _codes.NOT_STORED:
            return Delivered.PASSED, (flight, serial)
        return Delivered.GONE if code in _NOT_NOW else Delivered.UNWANTED, (flight, serial)

    return hand_on


def flip(at: Attached, config: CacheConfig, stamp: Stamp, instead_of: Standing) -> None:
    """What Host.adopt promises. One resetter at a time on the host, be it a worker.

    The caller has called `at.segment.keep()`: the host may be stopped meanwhile, and a callback may take long.
    """
    try:
        _flip(at, config, stamp, instead_of)
    finally:
        at.segment.let_go()


def _flip(at: Attached, config: CacheConfig, stamp: Stamp, instead_of: Standing) -> None:
    segment = at.segment
    try:
        locked = lock_resets(segment.segment, config.on_reset is not None, _RESET_PATIENCE)
    except BusyError as exc:
        raise ResetFailedError(str(exc)) from exc
    if not locked:
        raise MovedError
    try:
        now = at.stamp()
        if now != instead_of:
            raise MovedError
        if config.on_reset is not None and stamp.version != now.stamp.version:
            try:
                resolve_callable(config.on_reset)(decode_version(stamp.version))
            except Exception as exc:
                raise ResetFailedError(f"{segment.label}: on_reset raised {type(exc).__name__}: {exc}") from exc
        if stamp.node == at.origin:
            code = segment.reset(stamp.version, stamp.counter)
        else:
            code = segment.adopt(stamp.version, stamp.counter, stamp.node)
        if code != _codes.OK:
            raise ResetFailedError(f"{segment.label}: the write lock could not be had (code {code})")
    finally:
        segment.segment.reset_unlock()
