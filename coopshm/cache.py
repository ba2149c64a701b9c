"""A cache as its users see it, and the compute-once loop.

The loop, for one key:

    hit       a decoded value that this process has kept, or a stored one: `cached` itself, in csrc/python/front.c
    look up   the same at leisure: copy or pin, check the generation, decode, check again, return
    claim     READY    somebody was faster: look up
              OWNER    run fn, publish, return its value
              JOINED   wait, for the entry (look up), an outcome (an exception, NoCache, no room), or the dead owner's
    place bypass    where the cache cannot help: run fn, count the cause, return its value

Every path back to the caller ends with a look at the generation. If it is not the one that the value (or exception) was
computed in, that is dropped and the loop begins again. This last look is the moment at which the call returns, as far
as "no reply after the reset was computed before it" is concerned.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final, NamedTuple, cast

from . import _segment, keys, others
from ._front import Front
from ._segment import Call, Segment
from .attachment import Attachment
from .config import CacheConfig
from .errors import DecodeError, EncodeError
from .failures import decode_failure, encode_failure
from .forks import forks
from .hot import MISSING, MODES, VALUE_BYTES_MAX, Tables, is_immutable
from .stats import Stats, collect
from .values import BYTES, FAILURE, OVER_MEMORY, Codec, NoCache, codec
from .values import view as as_view

__all__ = ["Cache", "NoCache"]

log = logging.getLogger("coopshm")

#: How long a thread stays in C while it waits, in seconds: Python's signal handlers run at least this often, even when
#: the signal was delivered to another thread.
_WAIT_SLICE: Final = 0.25

#: Values with out-of-band buffers come back over shared memory from this size on, in bytes; below, over a copy. A pin,
#: with its view object, costs about as much as copying this much.
_PIN_FROM: Final = 16 * 1024

_BYPASS_ENCODE: Final = _segment.STATS["bypass_encode"]
_BYPASS_DECODE: Final = _segment.STATS["bypass_decode"]
_BYPASS_SEGMENT: Final = _segment.STATS["bypass_segment"]
_MISSES: Final = _segment.STATS["misses"]
_HOT_HITS: Final = _segment.STATS["hot_hits"]


class _Frame(NamedTuple):
    """A computation that this thread (or task) is in the middle of."""

    segment: Segment
    key: bytes
    call: Call | None  # None: computed without the cache, so nobody waits for it
    process: int  # `forks()`: a forked child is not in the middle of its parent's computations


_all: weakref.WeakSet[Cache] = weakref.WeakSet()


def _after_fork() -> None:
    for cache in list(_all):
        cache._take_hot_hits()  # the parent's, who counts them itself


os.register_at_fork(after_in_child=_after_fork)

_frames: ContextVar[tuple[_Frame, ...]] = ContextVar("coopshm_frames", default=())


def _within(frame: _Frame, fn: Callable[[], object]) -> object:
    """Return fn(), called as the computation `frame`."""
    outer = _frames.get()
    try:
        # Inside, since a signal handler may raise right behind it. A frame that stays would be a computation that never
        # ends, and every later call for its key on this thread a cycle.
        _frames.set((*outer, frame))
        return fn()
    finally:
        _frames.set(outer)


def _enclosing(segment: Segment, data: bytes) -> Call | None:
    """Return the call of the innermost computation that asks and that others can wait for.

    Raises:
        CycleError: it, or one around it, is the very computation that is asked for.
    """
    parent = None
    frames = _frames.get()
    process = forks() if frames else 0
    for at, frame in enumerate(frames):
        if frame.process != process:
            continue
        if frame.segment is segment and frame.key == data:
            chain = [f"{f.segment.label} {keys.preview(f.key)}" for f in frames[at:]]
            raise _segment.cycle_error(segment.label, chain)
        parent = frame.call or parent
    return parent


class _Hot(NamedTuple):
    segment: Segment
    generation: int
    tables: Tables


class Cache(Front):
    """One cache, shared by all processes of this host that use its name and namespace. Thread-safe.

    Made by `coopshm.open`. Keys are str, bytes, int, float, bool, None, and tuples of them, all typed: 1, True, 1.0,
    "1" and b"1" are five keys. The method `cached` is `Front`'s.
    """

    def __init__(self, namespace: str, config: CacheConfig) -> None:
        self.name: Final = config.name
        self._codec: Final[Codec] = codec(config.serializer)
        self._decode: Final = self._codec.decode
        self._hot_mode: Final = MODES[config.hot_objects]
        super().__init__(self._decode, self._hot_mode, VALUE_BYTES_MAX)
        self._attachment: Final = Attachment(namespace, config, entered=self._arrive)
        _all.add(self)

    def __repr__(self) -> str:
        return f"<coopshm.Cache {self.name!r} in namespace {self._attachment.namespace!r}>"

    # ---- what it is for: cached, and

    def _cached(self, key: object, fn: Callable[[], object]) -> object:
        """`cached`, for what the way of a hit did not find."""
        data = keys.encode_key(key)
        stalled = [0]  # nanoseconds that this call has waited for stopped holders of the write lock: it does so once
        while True:
            try:
                value = self._look_up(data, key)
            except DecodeError as exc:
                log.warning("cache %r: key %s: %s; computed without the cache", self.name, keys.preview(data), exc)
                value = self._bypass(_BYPASS_DECODE, data, fn)
            if value is MISSING:
                value = self._compute(data, key, fn, stalled)
            if value is not MISSING:
                return value

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

    def view(self, key: object, fn: Callable[[], object] | None = None) -> memoryview | None:
        """Return the bytes stored for `key` as a read-only memoryview over shared memory, without a copy.

        The bytes never change, whatever is reset or published. While the view, or anything made from it, lives, the
        parts of the arena it lies in (1/256 of `memory_limit` each) are not reused after a reset: drop views when done.

        Args:
            key: as in `cached`.
            fn: computes the bytes when they are not stored, as in `cached`. Without it the result is then None.

        Raises:
            TypeError: the value is not bytes.
        """
        data = keys.encode_key(key)
        while True:
            here = segment, generation = self._attachment.notice()
            found = segment.view(data)
            if found is not None:
                if segment.generation() == generation:
                    return as_view(*found)
            elif fn is None:
                return None
            else:
                value = self.cached(key, fn)
                # Not stored: there was no room, or it was NoCache; or a reset came right away, and then it is too old.
                # Or stored, and this process can have no pins.
                if segment.view(data) is None and self._attachment.notice() == here:
                    return as_view(BYTES, cast("bytes", value))

    def keys(self) -> list[object]:
        """Return the keys of all entries, in the order in which they were stored."""
        return [keys.decode_key(entry.key) for entry in self._attachment.notice()[0].entries()]

    # ---- reset

    def reset(self, version: object = None) -> object:
        """Invalidate the whole cache. When this returns, no call returns anything that was computed before.

        The host's `on_reset` callback from the configuration runs first, in this process, with the version that is to
        be; if it raises, nothing changes. Computations under way are discarded when they end, and done again.

        Args:
            version: the source's version from now on, any JSON-able term. None: the next one (one more, for a whole
                number; else 1). A reset to the current version does nothing.

        Returns:
            The version now in force.

        Raises:
            ConfigError: `version` is not JSON-able, or too long; or the callback cannot be found.
            ResetError: called by the callback itself.
            BusyError: another process was stopped in the middle of a change, or of a reset without a callback.
            Exception: whatever the callback raised.
        """
        return self._attachment.reset(version)

    def version(self) -> object:
        """Return the version of the source that the cache holds values of."""
        return self._attachment.version()

    def on_reset(self, hook: Callable[[object], object]) -> None:
        """Have `hook(version)` called in this process after each reset, before the process computes anything new.

        Calls of the cache wait for it. If it raises, the call that ran it raises, and the next one tries again.
        """
        self._attachment.add_hook(hook)

    # ---- looking on

    def stats(self) -> Stats:
        """Return what all processes of the cache have counted. Hits of other processes come in batches."""
        self._drain()
        return collect(self.name, self._attachment.notice()[0])

    def verify(self) -> list[str]:
        """Check every structure of the segment, partly under its write lock. Returns the faults found."""
        return self._attachment.segment.verify()

    def destroy(self) -> None:
        """Remove the segment from the host. Processes that use it, this one included, go on with a new, empty one."""
        self._attachment.segment.destroy()

    # ---- what front.c calls

    def _drain(self) -> None:
        """Add the hits to the row, and see whether the segment still has its name: hits alone would never tell."""
        segment = self._attachment.segment
        if hits := self._take_hot_hits():
            segment.count(_HOT_HITS, hits)
        segment.gone()

    def _keep(self, tables: Tables, key: object, value: object, size: int) -> None:
        tables.keep(key, value, size)

    def _arrive(self, segment: Segment, generation: int) -> None:
        """This process has come to a generation: its hooks have run. Under the attachment's lock."""
        hot = _Hot(segment, generation, Tables())
        self._attach(segment.addresses, segment.handle)
        self._enter(generation, hot.tables, hot.tables.scalars, hot.tables.others)
        self._hot = hot

    # ---- the loop

    def _look_up(self, data: bytes, key: object = MISSING) -> object:
        """Return the stored value, or MISSING; as a hot object from now on, if `key` is given and it may be one."""
        attachment = self._attachment
        segment = attachment.segment
        generation = segment.generation()
        if attachment.seen != (segment, generation):
            segment, generation = attachment.notice()
        found = segment.find(data)
        if found == 0:
            return MISSING
        format, size = found & 31, (found >> 5) & 0x3FFFFF
        payload: bytes | memoryview
        copied = False
        if found > 0 and (format not in OVER_MEMORY or size < _PIN_FROM):
            start = found >> 27 << 4
            payload = segment.memory[start : start + size].tobytes()
            copied = True
        else:
            view = segment.view(data)
            if view is None:
                return MISSING
            format, payload = view
            if format not in OVER_MEMORY:
                payload = payload.tobytes()
        if segment.generation() != generation:  # perhaps torn: nothing is decoded that was not checked
            return MISSING
        value = payload if format == BYTES else self._decode(format, payload)
        if format != BYTES and segment.generation() != generation:
            return MISSING
        if copied and key is not MISSING and (self._hot_mode == MODES["share"] or is_immutable(value)):
            self._keep_in(segment, generation, key, value, size)
        return value

    def _keep_in(self, segment: Segment, generation: int, key: object, value: object, size: int) -> None:
        hot = self._hot
        if self._hot_mode and size <= VALUE_BYTES_MAX and hot.segment is segment and hot.generation == generation:
            hot.tables.keep(key, value, size)

    def _compute(self, data: bytes, key: object, fn: Callable[[], object], stalled: list[int]) -> object:
        """Nothing is stored: own the computation, or wait for it. MISSING: look again."""
        segment, _ = self._attachment.notice()
        parent = _enclosing(segment, data)
        segment.count(_MISSES)
        self._drain()
        call = segment.call()
        call.stalled_ns = stalled[0]
        try:
            code = segment.claim(call, data, parent)
            if code == _segment.JOINED and parent:
                code = others.search_on(segment, call)
            if code == _segment.JOINED:
                code = self._wait(segment, call)
            if code in (_segment.READY, _segment.AGAIN):
                return MISSING
            if code == _segment.OWNER:
                return self._own(segment, call, data, key, fn)
            if code == _segment.OUTCOME:
                return self._outcome(segment, call, data, fn)
            if code == _segment.CYCLE:
                raise segment.cycle()
            if code == _segment.GONE:
                if self._attachment.rejoin(segment):
                    return MISSING
                return self._bypass(_BYPASS_SEGMENT, data, fn)
            if code in _segment.BYPASSES:
                return self._bypass(_segment.BYPASSES[code], data, fn)
            _segment.check(code, segment.label)
            return MISSING
        except BaseException:
            # Also for what a signal handler raised at any point above: a flight must not be left without its owner.
            segment.release(call)
            raise
        finally:
            stalled[0] = call.stalled_ns

    def _wait(self, segment: Segment, call: Call) -> int:
        while True:
            code = segment.wait(call, _WAIT_SLICE)
            if code not in (_segment.TIMEOUT, _segment.INTERRUPTED):
                return code

    def _own(self, segment: Segment, call: Call, data: bytes, key: object, fn: Callable[[], object]) -> object:
        generation = call.ticket.generation
        if self._attachment.notice() != (segment, generation):
            # A reset came between the look-up and the claim. Hooks come first, and others must not wait for them
            # behind a flight of this thread, which a hook may itself ask for.
            segment.release(call)
            return MISSING
        try:
            value = _within(_Frame(segment, data, call, forks()), fn)
        except Exception as exc:
            failure = encode_failure(exc, f"raised in process {os.getpid()}")
            code = segment.publish(call, data, _segment.FAILURE, FAILURE, (failure,))
            if code != _segment.STALE and segment.generation() == generation:
                raise
            return MISSING
        kind = _segment.VALUE
        if isinstance(value, NoCache):
            kind, value = _segment.UNCACHED, value.value
        try:
            format, pieces = self._codec.encode(value)
        except EncodeError as exc:
            log.warning("cache %r: key %s: %s; returned but not stored", self.name, keys.preview(data), exc)
            segment.count(_BYPASS_ENCODE)
            kind, format, pieces = _segment.UNSHAREABLE, 0, ()
        code = segment.publish(call, data, kind, format, pieces)
        if code in _segment.FULL and segment.warn_once(generation):
            log.warning(
                "%s: %s; new values are computed and returned but not stored until the next reset",
                segment.label,
                _segment.FULL[code],
            )
        if code in _segment.BYPASSES:
            segment.count(_segment.BYPASSES[code])
        if code == _segment.STALE or segment.generation() != generation:
            return MISSING
        if code == _segment.OK and is_immutable(value):  # anything else its caller may still change
            self._keep_in(segment, generation, key, value, sum(map(len, pieces)))
        return value

    def _outcome(self, segment: Segment, call: Call, data: bytes, fn: Callable[[], object]) -> object:
        """The flight waited for ended with something that is not in the cache."""
        found, generation = segment.outcome(call), call.waiter.generation
        if found is None or segment.generation() != generation:
            return MISSING
        kind, format, payload = found
        if kind == _segment.UNSHAREABLE:
            return self._bypass(_BYPASS_ENCODE, data, fn)
        try:
            failed = kind == _segment.FAILURE
            value = decode_failure(payload) if failed else self._codec.decode(format, payload)
        except DecodeError:
            return self._bypass(_BYPASS_DECODE, data, fn)
        if segment.generation() != generation:
            return MISSING
        if failed:
            raise cast("Exception", value)
        return value

    def _bypass(self, stat: int, data: bytes, fn: Callable[[], object]) -> object:
        """Compute without the cache."""
        self._attachment.segment.count(stat)
        while True:
            here = segment, _ = self._attachment.notice()
            try:
                value = _within(_Frame(segment, data, None, forks()), fn)
            except Exception:
                if self._attachment.notice() == here:
                    raise
                continue
            if isinstance(value, NoCache):
                value = value.value
            if self._attachment.notice() == here:
                return value
