"""how soon has a reset reached all hosts of a cluster?

Hosts, each a network, a /dev/shm and a coopshm-sidecar of its own, on one machine. A call is one `Cache.reset()` on the
first host, without an `on_reset` callback, 20 ms after the last one was everywhere. Timed is from before the call to
the moment at which the reset is in force on the last of the other hosts: one process has mapped the segments of all of
them and looks at their generations, with 50 µs between two looks. For the yardstick a program with plain sockets sends
100 bytes from the same host to each of the others, and waits until all have sent them back.

"reset(wait=5)" is what the caller waits for: until the other nodes have told that they have applied it. (It looks each
5 ms.)

All hosts share the machine's cores: with more hosts than cores, the last host is last because the others run before it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import coopshm
from coopshm.admin.segments import attach
from coopshm.objects import existing

from ..common import Bench, Sample, Table
from ..procs import CLOCK, Worker, workers
from . import yardsticks
from .network import enter_mounts
from .nodes import ALL, PEERS, Cluster, Relay, available, cluster

#: How many hosts, what connects them, how many rounds, and the part of the question's time that they may take.
_FULL: list[tuple[int, tuple[Relay, ...], int, float]] = [
    (3, (PEERS, ALL), 301, 0.25),
    (5, (PEERS, ALL), 301, 0.25),
    (10, (PEERS, ALL), 101, 0.15),
    (30, (ALL,), 101, 0.2),
]
_QUICK: list[tuple[int, tuple[Relay, ...], int, float]] = [(3, (PEERS, ALL), 3, 1.0)]
_WAITED = 50
_YARDSTICK = "100 bytes to each and back, sockets"
_REST = 0.020
_LOOK = 50e-6
_PATIENCE = 30.0


# ---- in workers


def reset() -> int:
    """Reset; return when that began."""
    before = CLOCK()
    coopshm.open("pages").reset()
    return before


def reset_and_wait() -> float:
    """Reset everywhere; the ms that it took, negative if not all nodes have applied it."""
    before = CLOCK()
    report = coopshm.reset("pages", wait=5.0)
    took = (CLOCK() - before) / 1e6
    return took if report.complete else -took


# ---- in a process outside of all hosts


def _watcher(hosts: list[int]) -> Callable[[list[int] | None], list[int]]:
    """Answers None with all generations, and generations with the moments at which each host has left its."""
    looks = []
    for pid in hosts:
        enter_mounts(pid)
        (place,) = [place for place in existing() if place.cache == "pages"]
        looks.append(attach(place).generation)

    def answer(before: list[int] | None) -> list[int]:
        if before is None:
            return [look() for look in looks]
        moments = [0] * len(looks)
        give_up = time.monotonic() + _PATIENCE
        while not all(moments):
            for at, look in enumerate(looks):
                if not moments[at] and look() != before[at]:
                    moments[at] = CLOCK()
            if time.monotonic() > give_up:
                raise RuntimeError(f"a reset has not reached hosts {[at for at, m in enumerate(moments) if not m]}")
            time.sleep(_LOOK)
        return moments

    return answer


# ---- here


def run(bench: Bench) -> list[Table]:
    reached: list[Sample] = []
    waited: list[Sample] = []
    for size, relays, rounds, part in bench.pick(_FULL, _QUICK):
        case = f"{size} hosts"
        with ExitStack() as stack:
            clusters = [stack.enter_context(cluster(relay, size)) for relay in available(bench, *relays)]
            if not clusters:
                continue
            reached += [Sample(case, who, took) for who, took in _reach(bench, clusters, rounds, part).items()]
            waited += [Sample(case, who, took) for who, took in _wait(clusters, rounds).items()]
    bench.note(f"all hosts share {len(os.sched_getaffinity(0))} cores")
    show = ("median", "quartiles", "p99", "worst", "n")
    return [
        Table("Until it is in force on all other hosts", "ms", reached, _YARDSTICK, "on", show=show, plot="steps"),
        Table("reset(wait=5) returns", "ms", waited, case_is="on", show=show),
    ]


def _reach(bench: Bench, clusters: list[Cluster], rounds: int, part: float) -> dict[str, list[float]]:
    took: dict[str, list[float]] = {made.relay.name: [] for made in clusters}
    took[_YARDSTICK] = []
    sender, *others = clusters[0].nodes
    servers = [(node.host.address, node.worker.call(yardsticks.serve, node.host.address)) for node in others]
    sender.worker.call(yardsticks.connect_all, servers)
    with ExitStack() as stack:
        watchers: list[Worker[list[int] | None, list[int]]] = []
        for made in clusters:
            hosts = [node.host.pid for node in made.nodes[1:]]
            watchers += stack.enter_context(workers(1, partial(_watcher, hosts)))
        for number in bench.rounds(rounds, rounds, part):
            for made, watcher in zip(clusters, watchers, strict=True):
                time.sleep(_REST)
                watcher.send(None)
                watcher.send(watcher.receive())
                time.sleep(0.001)  # it looks
                began = made.nodes[0].worker.call(reset)
                moments = watcher.receive()
                if number:
                    took[made.relay.name].append((max(moments) - began) / 1e6)
            value = sender.worker.call(yardsticks.echo_all)
            if number:
                took[_YARDSTICK].append(value / 1000)
    return took


def _wait(clusters: list[Cluster], rounds: int) -> dict[str, list[float]]:
    took: dict[str, list[float]] = {made.relay.name: [] for made in clusters}
    for _ in range(min(rounds, _WAITED)):
        for made in clusters:
            time.sleep(_REST)
            value = made.nodes[0].worker.call(reset_and_wait)
            if value < 0:
                raise RuntimeError(f"{made.relay.name}: a reset was not applied everywhere within 5 s: {made.logs()}")
            took[made.relay.name].append(value)
    return took
