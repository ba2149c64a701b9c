"""Statistics: what the processes of a cache have counted, summed on reading.

Each process counts in its own row of the segment, so counting costs nobody else anything, and a process's counts
outlive it. Named tuples rather than dataclasses for the reason that config.py gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from types import MappingProxyType
from typing import NamedTuple

from ._describe import BUCKETS, Durations, counts, durations
from ._segment import Segment

__all__ = ["Histogram", "Stats", "collect", "histogram"]

_BYPASS = "bypass_"


class Histogram(NamedTuple):
    """How long things took.

    Attributes:
        count: how many there were.
        sum: of their times, in seconds.
        max: the longest, in seconds.
        buckets: pairs of an upper bound in seconds and how many took no longer than that. Bounds grow from 1 ms to
            100 s; the last one is infinite, and its number is `count`.
    """

    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody wants here
    sum: float
    max: float
    buckets: tuple[tuple[float, int], ...]

    def as_dict(self) -> dict[str, object]:
        """Return it as JSON can take it; the last bound is "+Inf", as Prometheus writes it."""
        buckets = [{"le": "+Inf" if le == float("inf") else le, "count": n} for le, n in self.buckets]
        return {"count": self.count, "sum": self.sum, "max": self.max, "buckets": buckets}


class Stats(NamedTuple):
    """One look at a cache.

    Each number is exact, but they may be of slightly different moments. What is counted is counted since the segment
    was created, by all processes that ever used it, also by those that were killed. A computation that was under way
    when its process was killed is in `computations`, but not in `compute`.

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
        pinned_bytes: bytes of the pinned parts: as much would not be reused after a reset.
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
        stranded_bytes: arena space lost until the next reset: there were too many holes to remember, or a sidecar was
            stopped while it wrote there, and may go on.
        stored: entries written, in all generations.
        stored_bytes: bytes that they took.
        compute: how long computations took, from when they were granted to when their value or exception was there.
            Those that came too late because of a reset, and those that were given up, count; those of bypasses do not.
        wait: how long callers waited for another's computation. Tasks (or greenlets) of a process that wait for one
            key are one caller.
        created_at: when the segment was created, in seconds since the epoch.
        reset_at: when the current generation began, in seconds since the epoch.
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
    pinned_bytes: int
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
    compute: Histogram
    wait: Histogram
    created_at: float
    reset_at: float
    bypasses: Mapping[str, int]

    def as_dict(self) -> dict[str, object]:
        """Return it as JSON can take it: the fields by name, and theirs in turn."""
        found = self._asdict()
        found |= {"bypasses": dict(self.bypasses), "compute": self.compute.as_dict(), "wait": self.wait.as_dict()}
        return found


def histogram(times: Durations) -> Histogram:
    """Return what the core counted as a histogram."""
    buckets = tuple(zip(BUCKETS, accumulate(times.buckets), strict=True))
    return Histogram(buckets[-1][1], times.total_ns / 1e9, times.max_ns / 1e9, buckets)


def collect(name: str, segment: Segment) -> Stats:
    """Read the statistics of a segment. Takes no lock."""
    info = segment.describe()
    counted = counts(info)
    bypasses = {stat[len(_BYPASS) :]: counted.pop(stat) for stat in list(counted) if stat.startswith(_BYPASS)}
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
        pinned_bytes=info.pinned_bytes,
        reserved_bytes=info.reserved_bytes,
        compute=histogram(durations(info.compute)),
        wait=histogram(durations(info.wait)),
        created_at=info.created_at_ns / 1e9,
        reset_at=info.reset_at_ns / 1e9,
        bypasses=MappingProxyType(bypasses),
        **counted,
    )
