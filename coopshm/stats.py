"""Statistics: what the processes of a cache have counted, summed on reading.

Each process counts in its own row of the segment, so counting costs nobody else anything, and a process's counts
outlive it. The numbers are since the segment was created; those of the current generation are marked.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from ._segment import STATS, Segment

__all__ = ["Stats", "collect"]

_BYPASS = "bypass_"


class Stats(NamedTuple):
    """One look at a cache.

    Attributes:
        name: of the cache.
        version: of the source.
        generation: grows by one with each reset.
        memory_limit: bytes that entries may take.
        max_items: entries that there may be.
        bytes_used: bytes that entries take, in this generation.
        entries: how many there are, in this generation.
        full: whether a value was refused for lack of room, in this generation.
        processes: that are attached; admin commands do not count.
        flights: computations under way.
        waiters: threads that wait for one.
        pinned_chunks: parts of the arena that views hold or writers fill, of `chunks`.
        chunks: parts that the arena is divided into.
        reserved_bytes: of /dev/shm that the segment takes now, its index and headers included.
        hits: look-ups answered from shared memory.
        hot_hits: look-ups answered from a process's own hot objects.
        misses: calls that found nothing stored.
        computations: times that `fn` was granted to a caller.
        waits: times that a caller waited for another's computation.
        timeouts: calls that had waited as long as their `timeout` said.
        failures: computations that raised.
        takeovers: computations taken over from a process that died.
        stale: results dropped because of a reset.
        uncached: results returned as NoCache.
        resets: resets that took effect.
        steals: times that the write lock was taken from a process that died.
        lost_outcomes: outcomes that were overwritten before all waiters had them.
        stranded_bytes: arena space lost until the next reset, since there were too many holes to remember.
        stored: entries written, in all generations.
        stored_bytes: bytes that they took.
        bypasses: calls answered without the cache, by cause.
    """

    name: str
    version: object
    generation: int
    memory_limit: int
    max_items: int
    bytes_used: int
    entries: int
    full: bool
    processes: int
    flights: int
    waiters: int
    pinned_chunks: int
    chunks: int
    reserved_bytes: int
    hits: int
    hot_hits: int
    misses: int
    computations: int
    waits: int
    timeouts: int
    failures: int
    takeovers: int
    stale: int
    uncached: int
    resets: int
    steals: int
    lost_outcomes: int
    stranded_bytes: int
    stored: int
    stored_bytes: int
    bypasses: Mapping[str, int]


def collect(name: str, segment: Segment) -> Stats:
    """Read the statistics of a segment. Takes no lock: numbers of a busy cache may be of slightly different moments."""
    info = segment.describe()
    counts = {stat: int(info.stats[at]) for stat, at in STATS.items()}
    bypasses = {stat[len(_BYPASS) :]: counts.pop(stat) for stat in list(counts) if stat.startswith(_BYPASS)}
    return Stats(
        name=name,
        version=segment.version()[0],
        generation=info.generation,
        memory_limit=info.memory_limit,
        max_items=info.max_items,
        bytes_used=info.bytes_used,
        entries=info.entries,
        full=bool(info.full),
        processes=info.processes,
        flights=info.flights,
        waiters=info.waiters,
        pinned_chunks=info.pinned_chunks,
        chunks=info.chunks,
        reserved_bytes=info.reserved_bytes,
        bypasses=MappingProxyType(bypasses),
        **counts,
    )
