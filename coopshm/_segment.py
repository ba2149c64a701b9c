"""One attached segment: what the rest of the package calls of the compiled core, in bytes, ints and its own errors.

With _codes.py and _open.py the only module that imports the core.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from . import keys
from ._codes import BYPASSES, CHUNKS, FLIGHTS, OK, PEERS, ROWS, SLOWEST, check, cycle_error
from ._core import ffi, lib
from ._front import pin
from .errors import CorruptError, CycleError
from .objects import check_unlink, unlink_if
from .versions import decode_version

#: +1 in each forked child.
forks: Callable[[], int] = lib.csm_forks

# A look at the generation from Python, without a call into C, is right where the machine keeps loads in order: what was
# copied before was then also loaded before. Elsewhere csm_generation has the fence.
LOADS_IN_ORDER = os.uname().machine == "x86_64"

#: A `csm_call *`: one attempt to get one key, with the ticket or the place in the queue it may have.
Call = Any


class FlightInfo(NamedTuple):
    """A computation in flight."""

    key: bytes  # its first bytes; `key_bytes` is the length of the whole
    key_bytes: int
    started_ns: int  # on the monotonic clock, by its present owner
    pid: int
    waiters: int
    alive: bool  # its owner lives and has not given up
    row: int  # its owner's
    role: int  # its owner's: APP, OBSERVER, 0 when it is dead
    takeovers: int  # owners before this one, which died
    reserved_bytes: int  # of the arena, for the value
    serial: int
    parent_id: int  # the cache (`Segment.id`) of the computation that it is made for, 0: for none
    parent_serial: int  # that one's `serial` there


class StampInfo(NamedTuple):
    """Which reset a cache stands at."""

    generation: int
    counter: int  # of resets, in the cluster; 0: there was none
    own: int  # what it became with the last one that was made on this host, 0: none was
    version: bytes  # canonical JSON
    origin: str  # who made it


class PeerInfo(NamedTuple):
    """What the sidecar knows of another node's copy of the cache."""

    name: str
    covers: int  # counter of the last reset made on this host that it includes
    state: int  # coopshm.cluster.relay.NodeState
    since_ns: int  # wall clock: when this was written


class EntryInfo(NamedTuple):
    """An entry, without its value: what `keys()` and listings are made of."""

    key: bytes
    format: int
    value_bytes: int


_labels: dict[int, str] = {}


class _Words:
    """The generation by way of C, for machines that may load out of order."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def __getitem__(self, index: int, /) -> int:
        return lib.csm_generation(self._handle)  # type: ignore[no-any-return]


class Segment:
    """A mapped segment and this process's handle on it. Thread-safe; goes through a fork."""

    __slots__ = (
        "_find",
        "addresses",
        "created",
        "flipped",
        "generation",
        "handle",
        "id",
        "label",
        "memory",
        "name",
        "words",
    )

    def __init__(self, name: str, label: str, handle: Any, created: bool) -> None:
        self.name = name
        self.label = label
        #: Calls hold on to it, and so do views. The last one's end gives row and descriptor back.
        self.handle = ffi.gc(handle, lib.csm_leave)
        #: Of the object, not of its name; the same in all processes.
        self.id = lib.csm_id(handle)
        _labels[self.id] = label
        self.created = created
        self.flipped = False
        mapping = ffi.buffer(lib.csm_base(handle), lib.csm_mapped_bytes(handle))  # never unmapped
        self.memory = memoryview(mapping).toreadonly()
        at = lib.csm_generation_offset(handle)
        #: Item 0 is the generation.
        self.words = self.memory[at : at + 8].cast("Q") if LOADS_IN_ORDER else _Words(self.handle)
        self.generation: Callable[[], int] = partial(self.words.__getitem__, 0)
        self._find = partial(lib.csm_find, self.handle)
        #: For the way of a hit: functions of the core, the handle, the mapping, the generation in it, and where hits of
        #: hot objects are counted.
        self.addresses = (
            _address(ffi.addressof(lib, "csm_find")),
            _address(ffi.addressof(lib, "csm_view_acquire")),
            _address(ffi.addressof(lib, "csm_view_release")),
            _address(handle),
            _address(lib.csm_base(handle)),
            _address(lib.csm_base(handle)) + at,
            _address(lib.csm_hot(handle)),
            _address(ffi.addressof(lib, "csm_hot_settle")),
        )

    # ---- reading

    def find(self, key: bytes) -> int:
        """Look `key` up; see csm_find in api.h for the packed result."""
        return self._find(key, len(key))  # type: ignore[no-any-return]

    def view(self, key: bytes) -> tuple[int, memoryview] | None:
        """Return format and value of `key`, pinned: the memoryview is valid and unchanged for as long as it lives.

        A process that can have no row, and so no pins, gets a copy instead: to be believed if the generation is still
        the same. None, if it is too large for that; a claim then tells why.
        """
        code, format, view = pin(self.addresses, self.handle, key)
        if code == lib.CSM_MISS:
            return None
        if code in BYPASSES:
            found = self.find(key)
            start, size = found >> 27 << 4, (found >> 5) & 0x3FFFFF
            return (found & 31, memoryview(self.memory[start : start + size].tobytes())) if found > 0 else None
        check(code, self.label)
        return format, memoryview(view)

    # ---- computing once

    def call(self) -> Call:
        """Return a blank call. Made before `claim`, so that whatever `claim` wins is in the caller's hands even when a
        signal handler raises right after it; see `release`."""
        return ffi.new("csm_call *")

    def claim(self, call: Call, key: bytes, parent: Call | None) -> int:
        return lib.csm_claim(self.handle, key, len(key), parent or ffi.NULL, call)  # type: ignore[no-any-return]

    def unknown_cache(self) -> int:
        """Return the id of a cache that the last claim's search for cycles could not look into, 0 if there was none."""
        return lib.csm_cycle_unknown()  # type: ignore[no-any-return]

    def search_again(self, call: Call) -> int:
        """Search for cycles again. JOINED or CYCLE."""
        return lib.csm_cycle_check(self.handle, call)  # type: ignore[no-any-return]

    def wait(self, call: Call, seconds: float) -> int:
        return lib.csm_wait(self.handle, call, int(seconds * 1e9))  # type: ignore[no-any-return]

    def wait_no_longer(self, call: Call) -> int:
        """The time to wait is up. OWNER: nobody was computing yet, so the caller is to. TIMEOUT: somebody is."""
        return lib.csm_wait_no_longer(self.handle, call)  # type: ignore[no-any-return]

    def release(self, call: Call) -> None:
        """Give up what `call` still holds: its flight, or its place in the queue."""
        if call.ticket.serial:
            lib.csm_abandon(self.handle, call)
        if call.waiter.serial:
            lib.csm_wait_leave(self.handle, call)

    def outcome(self, call: Call) -> tuple[int, int, bytes] | None:
        """Return kind, format and payload of the outcome that `wait` found, None when it is lost already."""
        size = call.waiter.outcome_bytes
        buffer = ffi.new("char[]", size) if size else ffi.NULL
        if lib.csm_outcome_read(self.handle, call, buffer) != OK:
            return None
        payload = ffi.buffer(buffer, size)[:] if size else b""
        return call.waiter.outcome_kind, call.waiter.outcome_format, payload

    def publish(self, call: Call, key: bytes, kind: int, format: int, pieces: Sequence[bytes | memoryview]) -> int:
        array = ffi.new("csm_piece[]", len(pieces))
        held = []
        for at, piece in enumerate(pieces):
            data = ffi.from_buffer(piece)
            held.append(data)
            array[at].data = data
            array[at].bytes = len(data)
        return lib.csm_publish(self.handle, call, key, len(key), kind, format, array, len(pieces))  # type: ignore[no-any-return]

    def cycle(self) -> CycleError:
        """Return the error for the CYCLE that this thread was just told of."""
        buffer = ffi.new("unsigned char[]", 96)
        chain = []
        for i in range(lib.csm_chain_length()):
            size = lib.csm_chain_key(i, buffer, 96)
            key = keys.preview(ffi.buffer(buffer, size)[:], total=lib.csm_chain_key_bytes(i))
            id = lib.csm_chain_id(i)
            chain.append(key if id == self.id else f"{key} of {_labels.get(id, 'another cache')}")
        return cycle_error(self.label, chain)

    # ---- reset

    def reset_lock(self, seconds: float) -> int:
        return lib.csm_reset_lock(self.handle, int(seconds * 1e9))  # type: ignore[no-any-return]

    def reset_unlock(self) -> None:
        lib.csm_reset_unlock(self.handle)

    def reset_commit(self, version: bytes, counter: int = 0) -> None:
        check(lib.csm_reset_commit(self.handle, version, len(version), counter), self.label)

    def version(self) -> tuple[object, int]:
        """Return the current version, and its generation."""
        buffer, size, generation = ffi.new("char[]", 1024), ffi.new("size_t *"), ffi.new("uint64_t *")
        lib.csm_version(self.handle, buffer, 1024, size, generation)
        data = ffi.buffer(buffer, size[0])[:]
        try:
            return decode_version(data), generation[0]
        except ValueError as exc:
            raise CorruptError(f"{self.label}: its version is damaged ({exc}); reset or destroy the cache") from exc

    def stamp(self) -> StampInfo:
        """Return which reset the cache stands at, all of it read at one moment."""
        stamp = ffi.new("csm_stamp *")
        lib.csm_stamp_read(self.handle, stamp)
        return StampInfo(
            stamp.generation,
            stamp.counter,
            stamp.own_counter,
            ffi.buffer(stamp.version, stamp.version_bytes)[:],
            ffi.buffer(stamp.origin, stamp.origin_bytes)[:].decode("utf-8", "replace"),
        )

    # ---- the cluster

    def sidecar(self) -> int | None:
        """Return the pid of the sidecar; None when there is none, or it does not run."""
        pid = ffi.new("uint64_t *")
        return int(pid[0]) if lib.csm_has_sidecar(self.handle, pid) else None

    def origin(self) -> str:
        """Return who a reset that is made on this host is by: its node's name (empty until there has been a sidecar),
        '#', and the segment's id."""
        buffer = ffi.new("char[]", 80)
        return ffi.buffer(buffer, lib.csm_origin(self.handle, buffer))[:].decode("utf-8", "replace")  # type: ignore[no-any-return]

    def peers(self) -> list[PeerInfo]:
        """Return what the sidecar knows of other nodes; nothing without a sidecar."""
        infos = self._list("csm_peer_info", PEERS, lib.csm_peers)
        return [PeerInfo(ffi.string(i.name).decode("utf-8", "replace"), i.covers, i.state, i.since_ns) for i in infos]

    # ---- looking on

    def count(self, stat: int, n: int = 1) -> None:
        lib.csm_count(self.handle, stat, n)

    def warn_once(self, generation: int) -> bool:
        return bool(lib.csm_warn_once(self.handle, generation))

    def tell_once(self, generation: int) -> bool:
        """Is this the first process to tell of the reset that began `generation`?"""
        return bool(lib.csm_tell_once(self.handle, generation))

    def stolen(self, lock: int) -> tuple[int, int]:
        """Return how often this process took a lock (0: the write lock, 1: the reset lock) from a dead one since it
        last asked, and that one's PID, 0 if it is not known."""
        pid = ffi.new("uint64_t *")
        return lib.csm_stolen(self.handle, lock, pid), pid[0]

    def describe(self) -> Any:
        info = ffi.new("csm_info *")
        lib.csm_describe(self.handle, info)
        return info

    def entries(self) -> list[EntryInfo]:
        """Return the entries of one generation, in the order of their commits."""
        while True:
            generation, cursor = self.generation(), 0
            found: list[EntryInfo] = []
            while batch := self.entries_from(generation, cursor):
                entries, cursor = batch
                if not entries:
                    return found
                found += entries

    def entries_from(self, generation: int, cursor: int) -> tuple[list[EntryInfo], int] | None:
        """Return some entries of a generation from `cursor` (0) on, and the next cursor; no entries at the end.

        None: the generation has passed.
        """
        capacity = 1 << 20  # of one batch; a key takes at most 64 KiB
        buffer = ffi.new("unsigned char[]", capacity)
        at_cursor = ffi.new("uint64_t *", cursor)
        size = lib.csm_entries(self.handle, generation, at_cursor, buffer, capacity)
        if size < 0:
            return None
        data, at, found = ffi.buffer(buffer, size)[:], 0, []
        while at < size:
            key_bytes = int.from_bytes(data[at : at + 4], "little")
            format = int.from_bytes(data[at + 4 : at + 8], "little")
            value_bytes = int.from_bytes(data[at + 8 : at + 16], "little")
            at += 16
            found.append(EntryInfo(data[at : at + key_bytes], format, value_bytes))
            at += key_bytes
        return found, at_cursor[0]

    def peek(self, key: bytes) -> tuple[int, bytes] | None:
        """Return format and a copy of the value of `key`. Unlike a hit this is not counted, and leaves no trace."""
        where = ffi.new("uint64_t[2]")
        format = ffi.new("uint32_t *")
        while True:
            generation = self.generation()
            code = lib.csm_peek(self.handle, key, len(key), where, where + 1, format)
            value = bytes(self.memory[where[0] : where[0] + where[1]]) if code == OK else b""
            if self.generation() == generation:
                return (format[0], value) if code == OK else None

    def flights(self) -> list[FlightInfo]:
        infos = ffi.new("csm_flight_info[]", FLIGHTS)
        # Copied out: an item of the array does not keep the array alive.
        return [
            FlightInfo(
                key=bytes(i.key)[: i.key_bytes],
                key_bytes=i.key_bytes,
                started_ns=i.started_ns,
                pid=i.pid,
                waiters=i.waiters,
                alive=bool(i.alive),
                row=i.row,
                role=i.role,
                takeovers=i.takeovers,
                reserved_bytes=i.reserved_bytes,
                serial=i.serial,
                parent_id=i.parent_id,
                parent_serial=i.parent_serial,
            )
            for i in infos[0 : lib.csm_flights(self.handle, infos, FLIGHTS)]
        ]

    def chunks(self) -> list[Any]:
        """Return a csm_chunk_info for each chunk of the arena, in order."""
        return self._list("csm_chunk_info", CHUNKS, lib.csm_describe_chunks)

    def rows(self) -> list[Any]:
        """Return a csm_row_info for each row that was ever used."""
        return self._list("csm_row_info", ROWS, lib.csm_describe_rows)

    def slowest(self) -> list[Any]:
        """Return a csm_slow_info for each computation that the rows remember, the slowest first."""
        return self._list("csm_slow_info", SLOWEST, lib.csm_slowest)

    def last_reset(self) -> Any:
        """Return the csm_reset_info of the generation in force."""
        info = ffi.new("csm_reset_info *")
        lib.csm_describe_reset(self.handle, info)
        return info

    def _list(self, kind: str, capacity: int, describe: Callable[[Any, Any, int], int]) -> list[Any]:
        infos = ffi.new(f"{kind}[]", capacity)
        # Copies: an item of the array does not keep the array alive.
        return [ffi.new(f"{kind} *", info) for info in infos[0 : describe(self.handle, infos, capacity)]]

    def verify(self, locking: bool = True) -> list[str]:
        """Check every structure, partly under the write lock. Returns the faults found.

        Args:
            locking: False to check only what can be without the lock: header and entries.
        """
        report = ffi.new("char[]", 1 << 16)
        verify = lib.csm_verify if locking else lib.csm_verify_entries
        check(verify(self.handle, report, 1 << 16), self.label)
        return ffi.string(report).decode().splitlines()  # type: ignore[no-any-return]

    def status(self) -> os.stat_result:
        """Return whose the object is, and how large."""
        return os.fstat(lib.csm_descriptor(self.handle))

    # ---- end of life

    def gone(self) -> bool:
        """Has the segment been destroyed, or has its object lost its name?"""
        return not lib.csm_linked(self.handle) or bool(lib.csm_destroyed(self.handle))

    def destroy(self) -> None:
        check_unlink(lib.csm_descriptor(self.handle), self.label)
        check(lib.csm_destroy(self.handle), self.label)
        # The name may meanwhile be somebody else's new segment.
        unlink_if(self.name, lambda fd: lib.csm_is_object(self.handle, fd) == 1)

    def leave(self) -> None:
        """Give row and descriptor back now. Nobody else may be using the segment, and no view be live."""
        ffi.release(self.handle)

    def forget(self) -> None:
        """Leave, and let go of the segment's memory as well: a mapping would keep a destroyed one's."""
        lib.csm_forget(self.handle)
        ffi.release(self.handle)


def _address(pointer: Any) -> int:
    return int(ffi.cast("uintptr_t", pointer))
