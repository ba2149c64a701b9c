"""what does a reset cost, by the number of entries?

A call is one `Cache.reset()`, after so many entries were stored since the last one: the new version is
found, the reset lock and the write lock are taken, the generation is flipped, and this process notices.
There is no `on_reset` callback, no hook, and no other process. As in a server, other code ran right before,
so that what a reset needs is in no cache of the processor. Each round stores all entries anew, untimed, so
a round of a large cache has one call in it, and few rounds have to do. For resets of up to ten million
entries see core.

The peers do what comes closest, after storing as many small entries: lru_cache and warp_cache `cache_clear`,
uWSGI `cache_clear`, LMDB `drop` in a transaction, Redis `FLUSHDB`, memcached `flush_all`, the others `clear`.
For memcached that is a mark, too: entries go when they are met. None of them keeps a computation that is under
way from storing what it computed before.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import coopshm

from . import peers
from .common import MIB, Bench, Sample, Table
from .peers import LRU, PEERS
from .peers.protocol import Client, Running
from .procs import CLOCK

#: Seconds after which a peer has no further round.
_ENOUGH = 2.5


def _fill(cache: coopshm.Cache, entries: int) -> None:
    for n in range(entries):
        cache.cached(n, int)
    if cache.stats().entries != entries:
        raise RuntimeError(f"{cache.stats().entries} entries are stored, not {entries}")


def run(bench: Bench) -> list[Table]:
    counts = bench.pick({10: 25, 10**5: 15, 10**6: 3}, {10: 3, 1000: 3})
    for n in list(counts):
        if not bench.has_room(2 * _memory(n), f"{n:,} entries"):
            del counts[n]
    bench.configure(**{f"reset-{n}": {"memory_limit": _memory(n), "max_items": n} for n in counts})
    caches = {n: coopshm.open(f"reset-{n}") for n in counts}
    took: dict[int, list[float]] = {n: [] for n in counts}
    most = max(counts.values(), default=0)
    for number in bench.rounds(most, most):
        for n, rounds in counts.items():
            if number < rounds:
                _fill(caches[n], n)
                before = CLOCK()
                caches[n].reset()
                took[n].append((CLOCK() - before) / 1000)
    samples = [Sample(_entries(n), "Cache.reset", values) for n, values in took.items()]
    show = ("median", "quartiles", "worst", "n")
    return [
        Table("A reset", "µs a call", samples, case_is="after storing", show=show),
        Table(
            "Beside others", "µs a call", _of_peers(bench, samples), case_is="after storing", show=show, plot="ranked"
        ),
    ]


def _of_peers(bench: Bench, ours: list[Sample]) -> list[Sample]:
    counts = bench.pick({10: 15, 10**5: 5}, {10: 2, 1000: 2})
    most = max(counts)
    samples = [sample for sample in ours if sample.case in map(_entries, counts)]
    asked = (LRU, *PEERS)
    if not bench.has_room(len(asked) * most * 5000, "the peers"):
        return samples
    with peers.started(bench, asked, items=most + 64, largest=64, room=most * 64) as running:
        for peer, started in running.items():
            took: dict[int, list[float]] = {n: [] for n in counts}
            if peers.attempt(bench, peer, "clearing", partial(_rounds, started, counts, took)):
                samples += [Sample(_entries(n), peer.name, values) for n, values in took.items()]
    return sorted(samples, key=lambda sample: [_entries(n) for n in counts].index(sample.case))


def _rounds(running: Running, counts: dict[int, int], took: dict[int, list[float]]) -> None:
    with running.workers(1, partial(_clearer, running.connect)) as (worker,):
        for n, times in counts.items():
            enough = time.monotonic() + _ENOUGH
            for number in range(times):
                if number > 0 and time.monotonic() > enough:
                    break
                worker.send(n)
                took[n].append(worker.receive() / 1000)


def _clearer(connect: Callable[[], Client]) -> Callable[[int], int]:
    client = connect()

    def answer(n: int) -> int:
        """Fill it, and return how long it took to clear, in nanoseconds."""
        client.fill(n)
        client.get("entry:0")
        before = CLOCK()
        client.clear()
        return CLOCK() - before

    return answer


def _entries(n: int) -> str:
    return f"{n:,} entries"


def _memory(entries: int) -> int:
    return MIB + 128 * entries
