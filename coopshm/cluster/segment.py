"""A segment as the host's sidecar has it: the second and last importer of the compiled core.

What is here passes calls on, as _segment.py does, and deals in bytes, ints and tuples. Nothing blocks but what says so.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from .. import _codes
from .._codes import SIDECAR
from .._core import ffi, lib
from .._open import open_segment
from .._segment import Call, Segment
from ..config import CacheConfig
from ..errors import BusyError
from .keyids import digest_id
from .relay import KEY_ID_BYTES_MAX, KeyId

__all__ = ["Candidate", "Event", "LogEntry", "SidecarSegment", "flight_of"]

ASK, WITHDRAW, END, STORED, OUTCOME = (
    lib.CSM_LEASE_ASK,
    lib.CSM_LEASE_WITHDRAW,
    lib.CSM_LEASE_END,
    lib.CSM_LEASE_STORED,
    lib.CSM_LEASE_OUTCOME,
)
OK, MISS, GONE, BUSY = lib.CSM_OK, lib.CSM_MISS, lib.CSM_GONE, lib.CSM_BUSY
NO_FLIGHT = lib.CSM_NO_FLIGHT

#: Events taken from the core at once.
_BATCH: Final = 256


class Event(NamedTuple):
    """What has happened to a flight; see csm_lease_event in api.h."""

    kind: int
    key_id: KeyId  #: with ASK only
    flight: int
    serial: int
    generation: int
    nested: bool
    call: Call | None  #: with OUTCOME: for `Segment.outcome`


class LogEntry(NamedTuple):
    """An entry of the log. The payload is pinned for as long as it, or anything made from it, lives."""

    position: int
    key: bytes
    format: int
    payload: memoryview
    remote: bool


class SidecarSegment:
    """A segment that this process is the sidecar of."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.label = segment.label
        self._handle = segment.handle
        self._leases = ffi.new("csm_lease[]", _BATCH)
        self._found = ffi.new("csm_relay_entry_view *")
        self._position = ffi.new("uint64_t *")
        # A payload's end may come in any thread at any instruction, the collector's choice, so it takes no lock: the
        # thread might have that one. What is done to these is one operation of a deque each, which is atomic.
        self._kept: deque[None] = deque()  # one for each payload that lives, and each call in another thread (`keep`)
        self._forgets = deque([segment.forget])  # empty once somebody does
        self._closed = False
        self.generation = segment.generation
        self.stamp = segment.stamp

    @classmethod
    def open(cls, namespace: str, config: CacheConfig, node: str, lease_timeout: float) -> SidecarSegment:
        """Attach, and become the sidecar. May wait for a lock. Raises what Candidate.open does."""
        candidate = Candidate(namespace, config, node, lease_timeout)
        try:
            return candidate.open()
        finally:
            candidate.close()

    def close(self) -> None:
        """Let go: whoever waits goes on without the cluster. May wait for a lock. Nothing else is called afterwards;
        row and memory go with the last payload."""
        lib.csm_relay_close(self._handle)
        self._closed = True
        self._forget_if_last()

    def _dropped(self, view: Any) -> None:
        lib.csm_view_release(view)
        self.let_go()

    @property
    def holds(self) -> bool:
        """Whether payloads live, or `keep` was called more often than `let_go`."""
        return bool(self._kept)

    def keep(self) -> None:
        """Have row and memory stay after `close`, until as many calls of `let_go`."""
        self._kept.append(None)

    def let_go(self) -> None:
        self._kept.pop()
        self._forget_if_last()

    def _forget_if_last(self) -> None:
        # Who closes says so first and counts then, who lets go the other way round: one of them at least sees both.
        if self._closed and not self._kept:
            with contextlib.suppress(IndexError):  # somebody has been faster
                self._forgets.pop()()

    def wait(self, seconds: float) -> None:
        """Sleep until there may be something to look at, at most `seconds` (and at most 50 ms). Blocks."""
        lib.csm_relay_wait(self._handle, int(seconds * 1e9))

    def look(self) -> list[Event] | None:
        """What has happened; None: the segment is gone, or this process is not its sidecar any more."""
        events: list[Event] = []
        while True:
            n = lib.csm_relay_look(self._handle, self._leases, _BATCH)
            if n < 0:
                return None
            events.extend(_event(self._leases[i]) for i in range(n))
            if n < _BATCH:
                return events

    # ---- answers: True unless it is too late

    def hold(self, flight: int, serial: int) -> bool:
        return bool(lib.csm_relay_hold(self._handle, flight, serial) == OK)

    def grant(self, flight: int, serial: int) -> bool:
        return bool(lib.csm_relay_grant(self._handle, flight, serial) == OK)

    def want(self, flight: int, serial: int) -> None:
        lib.csm_relay_want(self._handle, flight, serial)

    # ---- publishing what came from elsewhere: these may wait for a lock

    def take(self, generation: int, key: bytes) -> tuple[int, Call]:
        """The right to publish `key`: OWNER, READY (stored), JOINED (somebody else is about to), STALE or an error."""
        call = self.segment.call()
        return lib.csm_relay_take(self._handle, generation, key, len(key), call), call

    def take_asked(self, flight: int, serial: int) -> tuple[int, Call]:
        """The right to end a flight that was asked for: OWNER, or STALE, or an error."""
        call = self.segment.call()
        return lib.csm_relay_take_asked(self._handle, flight, serial, call), call

    def publish(self, call: Call, key: bytes, kind: int, format: int, pieces: Sequence[bytes | memoryview]) -> int:
        return self.segment.publish(call, key, kind, format, pieces)

    # ---- the log

    def entry(self, generation: int, local: bool, position: int) -> LogEntry | int | None:
        """The entry at `position` or the next one after it; the position of the end; None: `generation` is over."""
        self._position[0] = position
        code = lib.csm_relay_entry(self._handle, generation, local, self._position, self._found)
        if code == OK:
            return self._log_entry(self._position[0])
        if code == MISS:
            return int(self._position[0])
        if code != _codes.STALE:
            _codes.check(code, self.label)
        return None

    def find(self, generation: int, key: bytes) -> LogEntry | None:
        """The entry of a key. Its position is not known: 0."""
        if lib.csm_relay_find(self._handle, generation, key, len(key), self._found) != OK:
            return None
        return self._log_entry(0)

    def _log_entry(self, position: int) -> LogEntry:
        found = self._found
        view, key = found.view, ffi.buffer(found.key, found.key_bytes)[:]
        self.keep()
        # The buffer keeps `data`, and the end of `data` gives the pin back.
        data = ffi.gc(ffi.cast("char *", view.data), lambda _, view=view: self._dropped(view))
        payload = memoryview(ffi.buffer(data, view.bytes)).toreadonly()
        return LogEntry(position, key, view.format, payload, bool(found.remote))

    # ---- resets

    def origin(self) -> str:
        """Who a reset that is made on this host is by."""
        buffer = ffi.new("char[]", 80)
        size = lib.csm_origin(self._handle, buffer)
        return str(ffi.buffer(buffer, size)[:].decode("utf-8", "replace"))

    def adopt(self, version: bytes, counter: int, origin: str) -> int:
        """With the reset lock held: flip to another host's reset. May wait for the write lock."""
        maker = origin.encode()
        return lib.csm_reset_adopt(self._handle, version, len(version), counter, maker, len(maker))  # type: ignore[no-any-return]

    def reset(self, version: bytes, counter: int) -> int:
        """With the reset lock held: a reset of this host's own."""
        return lib.csm_reset_commit(self._handle, version, len(version), counter)  # type: ignore[no-any-return]

    # ---- other nodes

    def note_peer(self, number: int, name: str, covers: int, state: int) -> None:
        data = name.encode()
        lib.csm_peer_write(self._handle, number, data, len(data), covers, state)


class Candidate:
    """Who is to be the sidecar of a cache, as soon as it can be.

    What it has attached to is kept from one try to the next. An attachment's handle and addresses are for the life of
    the process, so a new one for each of five tries a second would be a leak.
    """

    def __init__(self, namespace: str, config: CacheConfig, node: str, lease_timeout: float) -> None:
        self._namespace = namespace
        self._config = config
        self._node = node.encode()
        self._timeout_ns = int(lease_timeout * 1e9)
        self._kept: Segment | None = None

    def open(self) -> SidecarSegment:
        """Become the sidecar. May wait for a lock. For one thread at a time.

        Raises:
            FileNotFoundError: there is no segment (now).
            BusyError: the cache has another sidecar, or the write lock's holder is stopped.
            SegmentError: the segment cannot be used.
        """
        if self._kept is not None and self._kept.gone():
            self.close()
        if self._kept is None:
            self._kept = open_segment(self._namespace, self._config, b"", SIDECAR, create=False)
        segment = self._kept
        code = lib.csm_relay_open(segment.handle, self._node, len(self._node), self._timeout_ns)
        if code == BUSY:
            raise BusyError(
                f"{segment.label}: it has a sidecar already, or a stopped process has its write lock; one sidecar "
                f"per host and namespace"
            )
        if code != OK:
            self.close()
        if code == GONE:
            raise FileNotFoundError(f"{segment.label}: it is being destroyed")
        _codes.check(code, segment.label)
        self._kept = None
        return SidecarSegment(segment)

    def close(self) -> None:
        """Let go of what was kept."""
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.forget()


def flight_of(call: Call) -> tuple[int, int]:
    """The flight and its serial that the call has the right to end."""
    return call.ticket.flight, call.ticket.serial


def _event(lease: Any) -> Event:
    kind, key_id, call = lease.event, b"", None
    if kind == ASK:
        key_bytes = lease.key_bytes
        if key_bytes <= KEY_ID_BYTES_MAX:
            key_id = ffi.buffer(lease.key, key_bytes)[:]
        else:
            key_id = digest_id(key_bytes, ffi.buffer(lease.digest, 24)[:])
    elif kind == OUTCOME:
        call = ffi.new("csm_call *", lease.call)
    return Event(kind, key_id, lease.flight, lease.serial, lease.generation, bool(lease.nested), call)
