"""What is left when the killing is over.

All workers are dead, killed where they were. So: nobody waits, nothing is pinned, flights have dead owners only, and
each is taken over when its key is asked for. No more rows, and no more of /dev/shm, than the processes that lived at
the same time needed. The segment can be filled to its limit, read back and reset, again and again; destroyed, nothing
is left.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from coopshm import Cache, _segment

from . import goods

_PAGE = 4096
_WINDOW = 1 << 32  # layout.h: CSM_WINDOW_BYTES; windows lie at multiples of it
_KEPT = 16 * 1024  # outcome.c: so much of a window is kept for the next outcome
_ROUNDS = 4


class Leftovers(NamedTuple):
    faults: list[tuple[str, str]]
    figures: dict[str, str]


def windows(cache: Cache) -> list[int]:
    """Bytes of /dev/shm that outcomes take: of each flight's window, behind all that is mapped, that has any."""
    segment = cache._attachment.segment
    fd = _segment.lib.csm_descriptor(segment.handle)
    at, end = int(_segment.lib.csm_mapped_bytes(segment.handle)), os.fstat(fd).st_size
    taken: dict[int, int] = {}
    while at < end:
        try:
            begin = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            break
        at = os.lseek(fd, begin, os.SEEK_HOLE)
        for page in range(begin, at, _PAGE):
            taken[page // _WINDOW] = taken.get(page // _WINDOW, 0) + _PAGE
    return list(taken.values())


def look(cache: Cache, peak: int) -> Leftovers:
    """Check everything. `peak`: most processes that lived at the same time."""
    faults: list[tuple[str, str]] = []
    segment = cache._attachment.segment

    def expect(good: bool, what: str, text: str) -> None:
        if not good:
            faults.append((what, text))

    stats, info = cache.stats(), segment.describe()
    expect(stats.processes == 1, "leak", f"{stats.processes} processes attached, expected only this one")
    expect(stats.waiters == 0, "leak", f"{stats.waiters} waiters although all workers are dead")
    expect(stats.pinned_chunks == 0, "leak", f"{stats.pinned_chunks} chunks pinned although all workers are dead")
    expect(info.rows_used <= 3 * peak + 8, "leak", f"{info.rows_used} rows used, for at most {peak} processes at once")
    flights = segment.flights()
    expect(not any(f.alive for f in flights), "leak", f"flights of dead processes look attended: {flights}")
    faults += [("verify", f"after the last kill: {fault}") for fault in cache.verify()]

    for key in range(goods.KEYS):
        cache.cached(goods.cache_key(key), lambda: 0)
    stuck = [flight for flight in segment.flights() if b"hammer" not in flight.key]
    expect(not stuck, "leak", f"flights after each key was asked for: {stuck}")

    figures = {
        "flights left by the dead": str(len(flights)),
        "rows used / peak processes": f"{info.rows_used} / {peak}",
        "outcome windows left": f"{sum(windows(cache)) / 2**20:.1f} MiB",
    }
    cache.reset()
    swept, used = windows(cache), segment.describe().flights_used
    figures["the same after a reset"] = f"{sum(swept) / 2**20:.1f} MiB in {len(swept)}, for {used} flights at once"
    # So no number of kills makes it grow: the windows are as many as the flights that there were at once, those of the
    # dead that nobody had asked for again included, and each keeps only what its next outcome will take.
    expect(max(swept, default=0) <= _KEPT, "leak", f"windows keep {max(swept, default=0)} bytes after a reset")
    expect(len(swept) <= used, "leak", f"{len(swept)} windows have pages, for {used} flights at once")
    fill(cache, expect)
    reserved = cache.stats().reserved_bytes - sum(windows(cache))
    most = int(_segment.lib.csm_mapped_bytes(segment.handle))
    expect(reserved <= most, "leak", f"{reserved} bytes of /dev/shm reserved, of a mapping of {most}")
    figures["/dev/shm, filled"] = f"{reserved / 2**20:.1f} of at most {most / 2**20:.1f} MiB"
    return Leftovers(faults, figures)


def fill(cache: Cache, expect: Any) -> None:
    """Fill the arena to its limit, read all of it back, reset; several times."""
    limit = cache.stats().memory_limit
    value = bytes(range(256)) * 128
    for turn in range(_ROUNDS):
        cache.reset()
        n = limit // len(value) + 8
        for i in range(n):
            cache.cached((turn, i), lambda i=i: b"%08d" % i + value)
        stats = cache.stats()
        expect(stats.full, "unusable", f"round {turn}: not full after {n} values of 32 KiB")
        expect(
            stats.bytes_used > 0.97 * limit - 2 * len(value),
            "unusable",
            f"round {turn}: full with {stats.bytes_used} bytes of {limit}: {stats}",
        )
        expect(stats.entries == len(cache.keys()), "unusable", f"round {turn}: {stats.entries} entries in the log")
        for i in range(stats.entries):
            good = cache.get((turn, i)) == b"%08d" % i + value
            expect(good, "wrong value", f"round {turn}: entry {i} is not what was stored")
        for fault in cache.verify():
            expect(False, "verify", f"round {turn}, filled: {fault}")


def segments_of(namespace: str) -> list[str]:
    return sorted(path.name for path in Path("/dev/shm").glob(f"coopshm:{namespace}:*"))
