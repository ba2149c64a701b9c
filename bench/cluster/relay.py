"""how much does a relay bring from one host to another, beside what the network between them gives?

Two hosts, each a network, a /dev/shm and a coopshm-sidecar of its own, on one machine; for Redis, the server has a host
of its own. Values are random bytes. "As they are stored": from the first `Cache.cached` on the first host to the moment
at which all entries are in the segment of the second one, which looks each millisecond; each is a miss that has asked
for the cluster's lease. Large values are stored by one process, one after another; small ones by two processes with 16
threads each. On demand, nothing is brought unless it is asked for: there the second host asks for all of them, by 8
threads, as soon as they are stored, and that counts.

"By a host that comes back": its sidecar was stopped while they were stored, and is started again; from the first entry
that it gets to the last one.

The yardsticks send as many bytes between the same two hosts, in the same rounds: by plain sockets, and by asyncio's
streams in pieces of 64 KiB, without and with the TLS that sidecars use; as frames of 150 bytes, each written and read
by itself, for small entries. By hand, redis-py sets and gets each value.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import coopshm

from ..common import MIB, Bench, Sample, Table
from ..procs import CLOCK
from . import plain_redis, yardsticks
from .nodes import ALL, ON_DEMAND, PEERS, Cluster, available, cluster, entries

_LOOK = 0.001
_PATIENCE = 60.0
_SMALL = 100
_FRAME = 150
_THREADS = 16
_ASKERS = 8
_STREAMS = "asyncio streams"


# ---- in workers


def store(prefix: str, size: int, count: int, threads: int) -> None:
    """Store so many values."""
    value = os.urandom(size)
    cache = coopshm.open("pages")
    _in_threads(threads, count, lambda number: cache.cached(f"{prefix} {number}", lambda: value))


def fetch(prefix: str, size: int, count: int) -> None:
    """Ask for so many values that another host has stored."""
    cache = coopshm.open("pages")

    def ask(number: int) -> None:
        if len(cache.cached(f"{prefix} {number}", bytes)) != size:
            raise RuntimeError(f"{prefix} {number} was computed again")

    _in_threads(_ASKERS, count, ask)


def _in_threads(threads: int, count: int, do: Callable[[int], object]) -> None:
    failed: list[BaseException] = []

    def run(first: int) -> None:
        try:
            for number in range(first, count, threads):
                do(number)
        except BaseException as exc:  # noqa: BLE001 it is raised below
            failed.append(exc)

    crew = [threading.Thread(target=run, args=[first]) for first in range(threads)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    if failed:
        raise failed[0]


def arrivals(count: int) -> tuple[int, int]:
    """Wait for so many entries: when there were none for the last time, and when all were there."""
    first = CLOCK()
    give_up = time.monotonic() + _PATIENCE
    while (now := entries()) < count:
        if not now:
            first = CLOCK()
        if time.monotonic() > give_up:
            raise RuntimeError(f"of {count} entries {now} have arrived")
        time.sleep(_LOOK)
    return first, CLOCK()


def reset() -> None:
    if not coopshm.reset("pages", wait=10.0).complete:
        raise RuntimeError("a reset was not applied everywhere")


# ---- here


def run(bench: Bench) -> list[Table]:
    large = bench.pick({"1 MiB": (MIB, 64), "16 MiB": (16 * MIB, 6)}, {"1 MiB": (MIB, 2)})
    with ExitStack() as stack:
        relays = available(bench, PEERS, ALL, ON_DEMAND)
        clusters = [stack.enter_context(cluster(relay, 2, workers=2, memory_limit="256 MiB")) for relay in relays]
        if not clusters:
            return []
        _connect(clusters)
        return [_bytes(bench, clusters, large), _entries(bench, clusters)]


def _connect(clusters: list[Cluster]) -> None:
    here, there = clusters[0].nodes
    ports = there.workers[1].call(yardsticks.serve, there.host.address)
    here.workers[1].call(yardsticks.connect, there.host.address, ports)
    for made in clusters:
        if made.engine is not None:
            made.nodes[0].workers[1].call(plain_redis.connect, made.engine.url)


def _live(made: Cluster, prefix: str, size: int, count: int, processes: int, threads: int) -> float:
    """Store; the seconds until all of it is on the other host."""
    here, there = made.nodes
    before = CLOCK()
    stored = [
        worker.begin(store, f"{prefix} {number}", size, count // processes, threads)
        for number, worker in enumerate(here.workers[:processes])
    ]
    if made.relay is ON_DEMAND:
        for wait in stored:
            wait()
        for number in range(processes):
            there.worker.call(fetch, f"{prefix} {number}", size, count // processes)
        took = CLOCK() - before
    else:
        took = there.worker.call(arrivals, count // processes * processes)[1] - before
        for wait in stored:
            wait()
    here.worker.call(reset)
    return took / 1e9


def _joining(made: Cluster, prefix: str, size: int, count: int, threads: int) -> float:
    """Seconds an entry, by a host whose sidecar comes back."""
    here, there = made.nodes
    assert there.sidecar is not None
    there.sidecar.stop()
    here.worker.call(store, prefix, size, count, threads)
    arrived = there.worker.begin(arrivals, count)
    there.start_sidecar()
    there.sidecar.wait_ready()
    first, last = arrived()
    made.wait_live()
    here.worker.call(reset)
    return (last - first) / 1e9 / count


def _bytes(bench: Bench, clusters: list[Cluster], large: dict[str, tuple[int, int]]) -> Table:
    rate: dict[tuple[str, str], list[float]] = {}
    pusher = clusters[0].nodes[0].workers[1]
    smallest = next(iter(large))
    warm_up = bench.pick(1, 0)  # round: takes the pages
    for number in bench.rounds(4, 1, 0.6):
        for name, (size, count) in large.items():
            found = {made.relay.name: _live(made, f"{name} {number}", size, count, 1, 1) for made in clusters}
            plain = {
                _STREAMS: pusher.call(yardsticks.stream_push, False, size * count),
                "asyncio streams, TLS": pusher.call(yardsticks.stream_push, True, size * count),
                "sockets": pusher.call(yardsticks.push, size * count),
            }
            for made in clusters:
                if made.relay is ALL:
                    client = made.nodes[0].workers[1]
                    found["Redis by hand, SET and GET"] = client.call(plain_redis.set_and_get, size, count)
            cases = {f"{name}, as they are stored": found}
            if name == smallest:
                cases[_joined(name)] = {
                    made.relay.name: count * _joining(made, f"joining {number}", size, count, 1)
                    for made in clusters
                    if made.relay is not ON_DEMAND
                }
            for case, times in cases.items():
                for who, took in {**times, **plain}.items() if number >= warm_up else ():
                    rate.setdefault((case, who), []).append(size * count / MIB / took)
    return _table("Large values", "MiB a second", rate, _STREAMS)


def _joined(name: str) -> str:
    return f"{name}, by a host that comes back"


def _entries(bench: Bench, clusters: list[Cluster]) -> Table:
    frames = f"asyncio streams, TLS, frames of {_FRAME} bytes"
    count, joined = bench.pick((4000, 20_000), (64, 64))
    rate: dict[tuple[str, str], list[float]] = {}
    pusher = clusters[0].nodes[0].workers[1]
    live, late = f"{_SMALL} bytes, as they are stored", _joined(f"{_SMALL} bytes")
    for number in bench.rounds(4, 1, 0.4):
        found = {made.relay.name: _live(made, f"small {number}", _SMALL, count, 2, _THREADS) for made in clusters}
        took = pusher.call(yardsticks.stream_push, True, count * _FRAME, _FRAME)
        for case in (live, late):
            rate.setdefault((case, frames), []).append(count / took)
        for who, seconds in found.items():
            rate.setdefault((live, who), []).append(count / seconds)
        for made in clusters:
            if made.relay is not ON_DEMAND:
                seconds = _joining(made, f"late {number}", _SMALL, joined, 4 * _THREADS)
                rate.setdefault((late, made.relay.name), []).append(1 / seconds)
    return _table("Small entries", "entries a second", rate, frames)


def _table(title: str, unit: str, rate: dict[tuple[str, str], list[float]], baseline: str) -> Table:
    cases = list(dict.fromkeys(case for case, _ in rate))
    samples = [Sample(case, who, values) for case in cases for (of, who), values in rate.items() if of == case]
    return Table(title, unit, samples, baseline, show=("median", "quartiles", "n"))
