"""Which segment and which generation this process is in, and how it gets to the next one.

An attachment lives as long as its Cache; the segment under it may change, when it was destroyed or when its object lost
its name. Hooks belong to the process, not to the segment: they run when the process first sees a generation (or another
segment), before it computes anything in it, and the calls of other threads wait for them.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable

from . import _codes, _describe, events
from ._codes import APP, OBSERVER
from ._open import open_segment
from ._segment import Segment
from .config import CacheConfig, resolve_callable
from .errors import BusyError, CorruptError, ResetError, SegmentError
from .forks import PerProcess
from .versions import decode_version, encode_version

__all__ = ["Attachment", "lock_resets"]

#: How long a thread stays in C while it waits for another resetter, in seconds: then signal handlers run.
_SLICE = 0.2

#: Slices after which a resetter that gets nothing done is taken for stopped, if there is no callback that may take its
#: time: without one, a reset takes microseconds. Two, and the core's patience with a stopped holder of the write lock,
#: make less than the second that nobody may hang longer.
_PATIENCE = 2

#: For how long, after a new segment could not be had, calls go on without the cache before it is tried again; seconds.
_REJOIN_PAUSE = 1.0


class _Threads:
    """What the threads of a process agree on."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.in_hooks = False
        self.resetter: int | None = None


def lock_resets(segment: Segment, has_callback: bool, seconds: float = math.inf) -> bool:
    """One resetter at a time, on the host. False: the segment is gone.

    A resetter that is stopped in its callback looks like one whose callback is slow, and is waited for; at most
    `seconds`.
    """
    patience, generation, end = _PATIENCE, segment.generation(), time.monotonic() + seconds
    while True:
        code = segment.reset_lock(_SLICE)
        if code == _codes.OK:
            return True
        if code == _codes.GONE:
            return False
        if code not in (_codes.TIMEOUT, _codes.INTERRUPTED):
            _codes.check(code, segment.label)
        if generation != (now := segment.generation()) or has_callback:
            patience, generation = _PATIENCE, now
        elif code == _codes.TIMEOUT:
            patience -= 1
        if patience == 0 or time.monotonic() >= end:
            raise BusyError(
                f"{segment.label}: another process is in the middle of a reset and does not run (stopped?); "
                f"continue or kill it"
            )


class Attachment:
    def __init__(
        self,
        namespace: str,
        config: CacheConfig,
        role: int = APP,
        entered: Callable[[Segment, int], None] = lambda segment, generation: None,
    ) -> None:
        """Attach. An OBSERVER takes the segment with the settings it has, and never creates one: FileNotFoundError.

        Args:
            entered: called under the lock for each segment and generation that this process comes to, the first one
                included, when its hooks have run.
        """
        self.namespace = namespace
        self.config = config
        self._role = role
        self._entered = entered
        self._hooks: list[Callable[[object], object]] = []
        self._threads = PerProcess(_Threads)
        self._rejoin_at = 0.0
        self._refusal = ""
        self.segment = self._open()
        #: The segment and generation that hooks have run for. A process starts with its source as it is now, so for the
        #: first one there is nothing to run.
        self.seen = (self.segment, self.segment.generation())
        self._entered(*self.seen)

    def _open(self) -> Segment:
        if self._role == OBSERVER:
            return open_segment(self.namespace, self.config, b"", OBSERVER, create=False)
        version = b"" if self.config.version is None else encode_version(self.config.version)
        segment = open_segment(self.namespace, self.config, version)
        info = segment.describe()
        if info.memory_limit != self.config.memory_limit or info.max_items != self.config.max_items:
            events.tell(
                logging.WARNING,
                "settings",
                segment,
                "in use with memory_limit=%d and max_items=%d; the configured %d and %d take effect when it is next"
                " created, after all its processes have ended",
                info.memory_limit,
                info.max_items,
                self.config.memory_limit,
                self.config.max_items,
            )
        if segment.created:
            events.tell(
                logging.INFO,
                "created",
                segment,
                "created, memory_limit=%d, max_items=%d",
                info.memory_limit,
                info.max_items,
                memory_limit=info.memory_limit,
                max_items=info.max_items,
                generation=info.generation,
                pid=os.getpid(),
                uid=os.geteuid(),
            )
        else:
            generation = info.generation
            events.tell(
                logging.DEBUG, "attached", segment, "attached, generation %d", generation, generation=generation
            )
        events.repaired(segment)
        if segment.flipped and not segment.created:
            former, now = _describe.last_reset(segment)[-1:-3:-1]
            events.reset(segment, "no live process had it" if former == now else "configured version", former, now)
        return segment

    def reopen(self, gone: Segment) -> None:
        """Go on with a new segment after `gone` was destroyed, or its object unlinked."""
        with self._threads().lock:
            if self.segment is gone:
                segment = self._open()
                text = "the segment is gone (destroyed, or its object was removed); rejoined"
                events.tell(logging.WARNING, "rejoined", gone, text, generation=segment.generation())
                self._refusal = ""
                self.segment = segment

    def rejoin(self, gone: Segment) -> bool:
        """`reopen` for callers that can do without. False: there is no new segment to be had, for the time being."""
        with self._threads().lock:
            if self.segment is gone and time.monotonic() < self._rejoin_at:
                return False
            try:
                self.reopen(gone)
            except SegmentError as exc:
                if str(exc) != self._refusal:
                    self._refusal = str(exc)
                    text = "the segment is gone, and until this is mended calls go on without the cache: %s"
                    reason = str(exc).removeprefix(f"{gone.label}: ")
                    events.tell(logging.ERROR, "lost", gone, text, reason, reason=reason)
                self._rejoin_at = time.monotonic() + _REJOIN_PAUSE
                return False
            return True

    # ---- generations

    def notice(self) -> tuple[Segment, int]:
        """Return the segment and generation to work in; hooks have run for it."""
        while True:
            here = (self.segment, self.segment.generation())
            if here == self.seen:
                return here
            threads = self._threads()
            with threads.lock:
                if threads.in_hooks:  # this thread's own hook asks the cache
                    return here
                if here == self.seen:
                    continue
                self._run_hooks(threads, *here)
                self._entered(*here)
                before, self.seen = self.seen, here
                if before[0] is here[0]:
                    events.noticed(here[0])

    def _run_hooks(self, threads: _Threads, segment: Segment, generation: int) -> None:
        if not self._hooks:
            return
        version, of = segment.version()
        if of != generation:
            return  # already the next one: notice() comes again
        threads.in_hooks = True
        try:
            for hook in list(self._hooks):
                hook(version)
        finally:
            threads.in_hooks = False

    def add_hook(self, hook: Callable[[object], object]) -> None:
        self.notice()
        with self._threads().lock:
            self._hooks.append(hook)

    # ---- reset

    def version(self) -> object:
        if self.segment.gone():
            self.reopen(self.segment)
        return self.segment.version()[0]

    def reset(self, version: object) -> object:
        if self._threads().resetter == threading.get_ident():
            raise ResetError(
                f"{self.segment.label}: reset() was called by its own on_reset callback; it is in progress"
            )
        wanted = None if version is None else encode_version(version)
        while True:
            segment = self.segment
            if segment.gone() or not lock_resets(segment, self.config.on_reset is not None):
                self.reopen(segment)
                continue
            try:
                done = self._reset_locked(segment, wanted)
            finally:
                self._threads().resetter = None
                segment.reset_unlock()
            events.repaired(segment)
            if not segment.gone():
                self.notice()
                return done

    def _reset_locked(self, segment: Segment, wanted: bytes | None) -> object:
        try:
            current, _ = segment.version()
        except CorruptError:
            if wanted is None:
                raise
            current = None  # a reset to a version that is named mends it
        if wanted is None:
            wanted = encode_version(_next(current))
        version = decode_version(wanted)
        if wanted == encode_version(current):
            return version
        callback = self.config.on_reset
        if callback is not None:
            if isinstance(callback, str):
                callback = resolve_callable(callback, f"caches.{self.config.name}.on_reset")
            self._threads().resetter = threading.get_ident()
            callback(version)
        segment.reset_commit(wanted)
        events.reset(segment, "reset", current, version)
        return version


def _next(version: object) -> int:
    return version + 1 if type(version) is int else 1
