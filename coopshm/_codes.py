"""What the core says, in numbers and in words: its codes, statistics and limits, and the error that each code means."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import Final

from ._core import lib
from .errors import BusyError, CoopshmError, CorruptError, CycleError, LayoutError, NoSpaceError, SegmentError

#: Processes, computations in flight and waiting threads that one segment has room for. A row takes a page, once it
#: is used; a flight 256 bytes and a node 64. Beyond them calls are answered uncached and counted.
ROWS: Final = 1024
FLIGHTS: Final = 1024
NODES: Final = 2048

#: Other nodes that a segment has records for.
PEERS: Final = 64

#: Parts that an arena is divided into, at most; and how many of the slowest computations are told of.
CHUNKS: Final = 256
SLOWEST: Final = 20

#: Upper bounds of the distributions of times, in seconds; behind the last of them is one more class, which has none.
BUCKETS: Final = tuple(itertools.takewhile(bool, (lib.csm_bucket_ns(at) / 1e9 for at in itertools.count())))

#: What csm_claim and csm_wait return.
READY, OWNER, JOINED, OUTCOME, AGAIN = (
    lib.CSM_READY,
    lib.CSM_OWNER,
    lib.CSM_JOINED,
    lib.CSM_OUTCOME,
    lib.CSM_AGAIN,
)
INTERRUPTED, TIMEOUT, GONE, CYCLE = lib.CSM_INTERRUPTED, lib.CSM_TIMEOUT, lib.CSM_GONE, lib.CSM_CYCLE
OK, STALE, NOT_STORED = lib.CSM_OK, lib.CSM_STALE, lib.CSM_NOT_STORED

#: What a published payload is to its waiters.
VALUE, UNCACHED, FAILURE, UNSHAREABLE = lib.CSM_VALUE, lib.CSM_UNCACHED, lib.CSM_FAILURE, lib.CSM_UNSHAREABLE

ATTACHING, APP, OBSERVER, SIDECAR = lib.CSM_ATTACHING, lib.CSM_APP, lib.CSM_OBSERVER, lib.CSM_SIDECAR

#: Codes that mean "answer without the cache", and the statistic that counts each.
BYPASSES: Final[dict[int, int]] = {
    lib.CSM_FULL_ARENA: lib.CSM_STAT_BYPASS_FULL,
    lib.CSM_FULL_ITEMS: lib.CSM_STAT_BYPASS_ITEMS,
    lib.CSM_TOO_LARGE: lib.CSM_STAT_BYPASS_TOO_LARGE,
    lib.CSM_NO_SPACE: lib.CSM_STAT_BYPASS_NO_SPACE,
    lib.CSM_BUSY: lib.CSM_STAT_BYPASS_LOCK,
    lib.CSM_NO_ROW: lib.CSM_STAT_BYPASS_ROWS,
    lib.CSM_NO_FLIGHT: lib.CSM_STAT_BYPASS_FLIGHTS,
    lib.CSM_NO_SLOT: lib.CSM_STAT_BYPASS_SLOTS,
    lib.CSM_NO_NODE: lib.CSM_STAT_BYPASS_WAITERS,
    lib.CSM_FORKED: lib.CSM_STAT_BYPASS_FORKED,
    lib.CSM_SYSTEM: lib.CSM_STAT_BYPASS_SEGMENT,
}
#: Of these, the ones that mean that there is no more room.
FULL: Final = {
    lib.CSM_FULL_ARENA: "memory_limit is reached",
    lib.CSM_FULL_ITEMS: "max_items is reached",
    lib.CSM_NO_SPACE: "/dev/shm is full",
}
STATS: Final[dict[str, int]] = {
    name[len("CSM_STAT_") :].lower(): getattr(lib, name) for name in dir(lib) if name.startswith("CSM_STAT_")
}


def check(code: int, label: str) -> int:
    """Return `code` unless it is an error that no caller handles itself; then raise what it means."""
    if code >= 0:
        return code
    if code == lib.CSM_BUSY:
        raise BusyError(
            f"{label}: the write lock is held by a process that does not run (stopped?); continue or kill it"
        )
    if code in (lib.CSM_NO_ROW, lib.CSM_NO_FLIGHT, lib.CSM_NO_SLOT, lib.CSM_NO_NODE):
        raise BusyError(f"{label}: no room for another process, computation or waiter; {ROWS} processes can attach")
    if code == lib.CSM_NO_SPACE:
        raise NoSpaceError(
            f"{label}: /dev/shm has no room for the cache's index; enlarge it (mount -o remount,size=..., or "
            f"--shm-size for a container), or lower memory_limit or max_items"
        )
    if code == lib.CSM_LAYOUT:
        raise LayoutError(
            f"{label}: the segment was made by another version of coopshm or another C library, and is in use; "
            f"give this release its own namespace, or stop the processes that use the old one"
        )
    if code == lib.CSM_CORRUPT:
        raise CorruptError(
            f"{label}: the segment contradicts itself and is in use; stop its processes, or destroy the cache with "
            f"coopshm-admin destroy"
        )
    if code == lib.CSM_SYSTEM:
        raise SegmentError(f"{label}: {os.strerror(lib.csm_errno())}")
    raise CoopshmError(f"{label}: unexpected code {code} from the core")


def cycle_error(label: str, chain: Sequence[str]) -> CycleError:
    path = " -> ".join([*chain, chain[0]]) if chain else "?"
    return CycleError(
        f"{label}: a computation waits for itself: {path}; compute the shared part under a key of its own",
        tuple(chain),
    )
