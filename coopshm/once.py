"""The compute-once loop, as steps.

For one key that was no hit:

    look up   a hit by now: return it
    claim     READY    somebody was faster: look up
              OWNER    run fn, publish, return its value
              JOINED   wait, for the entry (look up), an outcome (an exception, NoCache, no room), or the dead owner's
                         With a limit, and no time left: TIMED_OUT, and `timed_out` says what then
    place bypass    where the cache cannot help: run fn, count the cause, return its value

Every path back to the caller ends with a look at the generation. If it is not the one that the value (or exception) was
computed in, that is dropped and the loop begins again. This last look is the moment at which the call returns, as far
as "no reply after the reset was computed before it" is concerned.

The loop is a generator, and two steps are its driver's: to run `fn` (`Run`), and to wait (`Wait`). So the loop exists
once for threads, which do both on the spot (cache.py), and for asyncio, which awaits both and has everything else done
in a thread (aio.py). Whoever drives a generator closes it, whatever happens: that gives back what it holds.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Generator
from contextvars import ContextVar
from typing import Final, NamedTuple, cast

from . import _codes, events, keys, others
from ._segment import Call, Segment
from .errors import DecodeError, EncodeError, WaitTimeout
from .failures import decode_failure, encode_failure
from .forks import forks
from .hot import MISSING, is_immutable
from .limits import Limit
from .store import Store
from .values import FAILURE, NoCache

__all__ = [
    "TIMED_OUT",
    "Frame",
    "Origin",
    "Raised",
    "Run",
    "Steps",
    "Wait",
    "around",
    "copied",
    "enclosing",
    "frames",
    "returned",
    "steps",
    "timed_out",
]

_BYPASS_ENCODE: Final = _codes.STATS["bypass_encode"]
_BYPASS_DECODE: Final = _codes.STATS["bypass_decode"]
_BYPASS_SEGMENT: Final = _codes.STATS["bypass_segment"]
_BYPASS_TIMEOUT: Final = _codes.STATS["bypass_timeout"]
_TIMEOUTS: Final = _codes.STATS["timeouts"]
_MISSES: Final = _codes.STATS["misses"]


#: What a call comes to that has waited as long as it was to. No outcome: who shares a loop may have more time.
TIMED_OUT: Final = object()


class Frame:
    """A computation that this thread (or task) is in the middle of."""

    __slots__ = ("call", "is_over", "key", "process", "segment")

    def __init__(self, segment: Segment, key: bytes, call: Call | None) -> None:
        self.segment = segment
        self.key = key
        #: None: computed without the cache, so nobody waits for it.
        self.call = call
        #: A forked child is not in the middle of its parent's computations.
        self.process = forks()
        #: `fn` has ended. But a task that it has started has its context for as long as it lives.
        self.is_over = False


#: The computations in whose context this thread or task runs, the outermost first; see `around`.
frames: ContextVar[tuple[Frame, ...]] = ContextVar("coopshm_frames", default=())


def around() -> list[Frame]:
    """Return the computations that this thread or task is in the middle of, the outermost first."""
    held = frames.get()
    if not held:
        return []
    process = forks()
    return [frame for frame in held if frame.process == process and not frame.is_over]


class Raised(NamedTuple):
    """What `fn` raised, here or where it ran. Handed on as a value: a StopIteration cannot pass through a generator."""

    error: Exception


class Run(NamedTuple):
    """Run `fn` within this frame. Send what it returns, or `Raised`."""

    frame: Frame


class Wait(NamedTuple):
    """Wait for the flight that `call` has joined. Send the code: not INTERRUPTED, and TIMEOUT only when `seconds` have
    passed."""

    segment: Segment
    call: Call
    seconds: float | None


#: Returns the value, `Raised`, or `TIMED_OUT`.
Steps = Generator[Run | Wait, object, object]


def returned(value: object) -> object:
    """Return what the loop returned, or raise it."""
    if not isinstance(value, Raised):
        return value
    try:
        raise value.error
    finally:
        del value  # else the exception's traceback, with this frame, would refer to it: a cycle


def copied(store: Store, value: object) -> object:
    """Return what another process would have got that waited for `value`, which the loop returned and is not stored.

    Raises:
        EncodeError, DecodeError: nothing; it has to compute for itself.
    """
    if isinstance(value, Raised):
        return Raised(decode_failure(encode_failure(value.error, f"raised in process {os.getpid()}")))
    if is_immutable(value):
        return value
    format, pieces = store._codec.encode(value)
    return store._decode(format, b"".join(pieces))


def enclosing(segment: Segment, data: bytes) -> Call | None:
    """Return the call of the innermost computation that asks and that others can wait for.

    Raises:
        CycleError: it, or one around it, is the very computation that is asked for.
    """
    parent = None
    held = around()
    for at, frame in enumerate(held):
        if frame.segment is segment and frame.key == data:
            chain = [f"{f.segment.label} {keys.preview(f.key)}" for f in held[at:]]
            raise _codes.cycle_error(segment.label, chain)
        parent = frame.call or parent
    return parent


class Origin:
    """Which segment and generation a value is of, for a driver that hands it on later than the loop returns it."""

    __slots__ = ("generation", "segment")

    def __init__(self, store: Store) -> None:
        self.segment, self.generation = store._attachment.seen

    def is_now(self, store: Store) -> bool:
        return store._attachment.segment is self.segment and self.segment.generation() == self.generation


def steps(store: Store, data: bytes, key: object, origin: Origin | None = None, limit: Limit | None = None) -> Steps:
    """Return the loop for `key`, whose encoding is `data`.

    In `origin` it says where the value is from. That may name an earlier generation, when a reset came in between; then
    `is_now` says no, and the value is asked for once more.
    """
    stalled = [0]  # nanoseconds that this call has waited for stopped holders of the write lock: it does so once
    while True:
        if origin is not None:
            origin.segment, origin.generation = store._attachment.notice()
        try:
            value = store._look_up(data, key)
        except DecodeError as exc:
            value = yield from _bypass(store, _BYPASS_DECODE, data, why=exc)
        if value is MISSING:
            value = yield from _compute(store, data, key, stalled, limit)
        if value is not MISSING:
            return value


def timed_out(store: Store, data: bytes, limit: Limit, origin: Origin | None = None) -> Steps:
    """What a call goes on with that came to `TIMED_OUT`; its segment's queue no longer has it.

    Raises:
        WaitTimeout: if that is what it is to do.
    """
    segment = store._attachment.segment
    segment.count(_TIMEOUTS)
    if not limit.computes:
        raise WaitTimeout(
            f"{segment.label}: key {keys.preview(data)}: another computation of it has taken longer than the"
            f" {limit.seconds:g} s that this call was to wait; coopshm-admin flights {store.name} shows who does;"
            f" a stopped process looks like a slow function; on_timeout='compute' answers without the cache instead"
        )
    return (yield from _bypass(store, _BYPASS_TIMEOUT, data, origin))


def _compute(store: Store, data: bytes, key: object, stalled: list[int], limit: Limit | None) -> Steps:
    """Nothing is stored: own the computation, or wait for it. MISSING: look again."""
    segment, _ = store._attachment.notice()
    parent = enclosing(segment, data)
    segment.count(_MISSES)
    store._missed()
    call = segment.call()
    call.stalled_ns = stalled[0]
    try:
        code = segment.claim(call, data, parent)
        if code == _codes.JOINED and parent:
            code = others.search_on(segment, call)
        if code == _codes.JOINED:
            if limit is None:
                code = cast("int", (yield Wait(segment, call, None)))
            else:
                with limit as seconds:
                    code = cast("int", (yield Wait(segment, call, seconds)))
                if code == _codes.TIMEOUT:
                    code = segment.wait_no_longer(call)  # it may have waited for the cluster's leave only
        if code in (_codes.READY, _codes.AGAIN):
            return MISSING
        if code == _codes.OWNER:
            return (yield from _own(store, segment, call, data, key))
        if code == _codes.OUTCOME:
            return (yield from _outcome(store, segment, call, data))
        if code == _codes.TIMEOUT:
            segment.release(call)
            return TIMED_OUT
        if code == _codes.CYCLE:
            raise segment.cycle()
        if code == _codes.GONE:
            if store._attachment.rejoin(segment):
                return MISSING
            return (yield from _bypass(store, _BYPASS_SEGMENT, data))
        if code in _codes.BYPASSES:
            return (yield from _bypass(store, _codes.BYPASSES[code], data))
        _codes.check(code, segment.label)
        return MISSING
    except BaseException:
        # Also for what a signal handler raised at any point above, and for a driver that gives up: a flight must not be
        # left without its owner.
        segment.release(call)
        raise
    finally:
        stalled[0] = call.stalled_ns
        if call.steals:
            events.repaired(segment)


def _own(store: Store, segment: Segment, call: Call, data: bytes, key: object) -> Steps:
    ticket = call.ticket
    generation = ticket.generation
    if former := ticket.former_pid:
        preview = keys.preview(data)
        text = "key %s: took the computation over from process %d, which died or gave it up"
        events.tell(logging.WARNING, "takeover", segment, text, preview, former, key=preview, former_pid=former)
    if store._attachment.notice() != (segment, generation):
        # A reset came between the look-up and the claim. Hooks come first, and others must not wait for them behind a
        # flight of this thread, which a hook may itself ask for.
        segment.release(call)
        return MISSING
    value = yield Run(Frame(segment, data, call))
    if isinstance(value, Raised):
        failure = encode_failure(value.error, f"raised in process {os.getpid()}")
        code = segment.publish(call, data, _codes.FAILURE, FAILURE, (failure,))
        return value if code != _codes.STALE and segment.generation() == generation else MISSING
    kind = _codes.VALUE
    if isinstance(value, NoCache):
        kind, value = _codes.UNCACHED, value.value
    try:
        format, pieces = store._codec.encode(value)
    except EncodeError as exc:
        _count_bypass(store, segment, _BYPASS_ENCODE, data, generation, exc)
        kind, format, pieces = _codes.UNSHAREABLE, 0, ()
    code = segment.publish(call, data, kind, format, pieces)
    if code in _codes.FULL and segment.warn_once(generation):
        text = "%s; new values are computed and returned but not stored until the next reset"
        reason = _codes.FULL[code]
        events.tell(logging.WARNING, "full", segment, text, reason, reason=reason, generation=generation)
    if code in _codes.BYPASSES:
        _count_bypass(store, segment, _codes.BYPASSES[code], data, generation)
    if code == _codes.OK and is_immutable(value):  # anything else its caller may still change
        store._keep_in(segment, generation, key, value, sum(map(len, pieces)))
    return value if code != _codes.STALE and segment.generation() == generation else MISSING


def _outcome(store: Store, segment: Segment, call: Call, data: bytes) -> Steps:
    """The flight waited for ended with something that is not in the cache."""
    found, generation = segment.outcome(call), call.waiter.generation
    if found is None or segment.generation() != generation:
        return MISSING
    kind, format, payload = found
    if kind == _codes.UNSHAREABLE:
        return (yield from _bypass(store, _BYPASS_ENCODE, data, quiet=True))  # its owner has told why
    try:
        failed = kind == _codes.FAILURE
        value = decode_failure(payload) if failed else store._decode(format, payload)
    except DecodeError:
        return (yield from _bypass(store, _BYPASS_DECODE, data))
    if segment.generation() != generation:
        return MISSING
    return Raised(cast("Exception", value)) if failed else value


def _count_bypass(
    store: Store,
    segment: Segment,
    stat: int,
    data: bytes,
    generation: int,
    why: Exception | None = None,
    quiet: bool = False,
) -> None:
    segment.count(stat)
    events.bypass(segment, stat, keys.preview(data), not quiet and store._is_first(stat, generation), why)


def _bypass(
    store: Store,
    stat: int,
    data: bytes,
    origin: Origin | None = None,
    why: Exception | None = None,
    quiet: bool = False,
) -> Steps:
    """Compute without the cache."""
    segment, generation = store._attachment.seen
    _count_bypass(store, segment, stat, data, generation, why, quiet)
    while True:
        here = segment, generation = store._attachment.notice()
        if origin is not None:
            origin.segment, origin.generation = segment, generation
        value = yield Run(Frame(segment, data, None))
        if isinstance(value, NoCache):
            value = value.value
        if store._attachment.notice() == here:
            return value
