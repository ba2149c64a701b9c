"""what does a reset cost, by the number of entries?

A call is one `Cache.reset()`, after so many entries were stored since the last one: the new version is
found, the reset lock and the write lock are taken, the generation is flipped, and this process notices.
There is no `on_reset` callback, no hook, and no other process. As in a server, other code ran right before,
so that what a reset needs is in no cache of the processor. Each round stores all entries anew, untimed, so
a round of a large cache has one call in it, and few rounds have to do. For resets of up to ten million
entries see core.
"""

from __future__ import annotations

import coopshm

from .common import MIB, Bench, Sample, Table
from .procs import CLOCK


def _fill(cache: coopshm.Cache, entries: int) -> None:
    for n in range(entries):
        cache.cached(n, int)
    if cache.stats().entries != entries:
        raise RuntimeError(f"{cache.stats().entries} entries are stored, not {entries}")


def run(bench: Bench) -> list[Table]:
    counts = bench.pick({10: 25, 10**5: 15, 10**6: 5}, {10: 3, 1000: 3})
    for n in list(counts):
        if not bench.has_room(2 * _memory(n), f"{n:,} entries"):
            del counts[n]
    bench.configure(**{f"reset-{n}": {"memory_limit": _memory(n), "max_items": n} for n in counts})
    caches = {n: coopshm.open(f"reset-{n}") for n in counts}
    took: dict[int, list[float]] = {n: [] for n in counts}
    for number in range(max(counts.values(), default=0)):
        for n, rounds in counts.items():
            if number < rounds:
                _fill(caches[n], n)
                before = CLOCK()
                caches[n].reset()
                took[n].append((CLOCK() - before) / 1000)
    samples = [Sample(f"{n:,} entries", "Cache.reset", values) for n, values in took.items()]
    show = ("median", "quartiles", "worst", "n")
    return [Table("A reset", "µs a call", samples, case_is="after storing", show=show)]


def _memory(entries: int) -> int:
    return MIB + 128 * entries
