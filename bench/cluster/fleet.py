"""how do many sidecars on one Redis behave?

Hosts, each a network, a /dev/shm, a coopshm-sidecar and a process of its own, on one machine, and a host with the
server. "Until all see each other" is from the start of the sidecars, all at once, and is mostly the start of so many
Python processes on so few cores.

Then one process of the first host stores entries of 1 KiB, 200 a second for 4 seconds, a rate that leaves the machine
room to breathe. With "all" each host takes each entry; on demand, none does. Last, each other host asks for one and the
same entry that it does not have, all at once: on demand, all fetch it.

What a figure has to do with another number of hosts: docs/cluster.md.
"""

from __future__ import annotations

import os
import time

import coopshm

from ..common import Bench, Sample, Table
from ..procs import CLOCK
from .load import store
from .nodes import ALL, ON_DEMAND, Cluster, Relay, available, cluster
from .relay import reset
from .usage import Cpu, private_kib

_RATE = 200.0
_SECONDS = 4.0
_REST = 4.0
_SIZE = 1024


# ---- in workers


def put(key: str) -> None:
    value = os.urandom(_SIZE)
    coopshm.open("pages").cached(key, lambda: value)


def ask(key: str) -> float:
    """Ask for what another host has stored; the ms that it took."""
    before = CLOCK()
    if not coopshm.open("pages").cached(key, bytes):
        raise RuntimeError("an entry was computed again")
    return (CLOCK() - before) / 1e6


# ---- here


def run(bench: Bench) -> list[Table]:
    samples: list[Sample] = []
    for size in bench.pick((10, 30), (2,)):
        for relay in available(bench, ALL, ON_DEMAND):
            for what, values in _measure(bench, relay, size).items():
                samples.append(Sample(f"{size} hosts, {relay.replicate}", what, values))
    bench.note(f"all hosts share {len(os.sched_getaffinity(0))} cores")
    cases = list(dict.fromkeys(sample.case for sample in samples))
    kinds = list(dict.fromkeys(sample.contender for sample in samples))
    turned = [
        Sample(kind, case, values)
        for kind in kinds
        for case in cases
        for found, what, values in samples
        if (found, what) == (case, kind)
    ]
    return [Table("Figures", "", turned, case_is="what", contender_is="with", show=("median", "worst"))]


def _measure(bench: Bench, relay: Relay, size: int) -> dict[str, list[float]]:
    seconds, rest = bench.pick((_SECONDS, _REST), (0.2, 0.2))
    with cluster(relay, size, sidecars=False, memory_limit="16 MiB") as made:
        began = time.monotonic()
        made.start_sidecars()
        made.wait_live()
        found = {"until all see each other, s": [time.monotonic() - began]}
        found |= _resting(made, rest)
        found |= _storing(made, seconds)
        key = "asked for by all"
        here, *others = made.nodes
        here.worker.call(put, key)
        took = [wait() for wait in [node.worker.begin(ask, key) for node in others]]
        found["all ask for one entry at once, ms"] = took
        here.worker.call(reset)
        return found


def _resting(made: Cluster, seconds: float) -> dict[str, list[float]]:
    assert made.engine is not None
    sidecars = [Cpu.of(node.sidecar_pid) for node in made.nodes]
    engine, before, commands = Cpu.of(made.engine.pid), made.engine.host.wire(), _commands(made)
    time.sleep(seconds)
    received, sent = (now - then for now, then in zip(made.engine.host.wire(), before, strict=True))
    asked = _commands(made)
    return {
        "at rest: a sidecar, % of a core": [mark.percent() for mark in sidecars],
        "at rest: redis-server, % of a core": [engine.percent()],
        "at rest: commands a second, all sidecars": [(asked - commands) / seconds],
        "at rest: to redis-server, bytes a second": [received / seconds],
        "at rest: from redis-server, bytes a second": [sent / seconds],
        "a sidecar's memory, MiB": [private_kib(node.sidecar_pid) / 1024 for node in made.nodes],
        "redis-server's connections": [float(made.engine.info("clients")["connected_clients"])],
    }


def _storing(made: Cluster, seconds: float) -> dict[str, list[float]]:
    assert made.engine is not None
    here, *others = made.nodes
    mine, engine = Cpu.of(here.sidecar_pid), Cpu.of(made.engine.pid)
    theirs = [Cpu.of(node.sidecar_pid) for node in others]
    before = made.engine.host.wire()
    count, took, slowest = here.worker.call(store, "fleet", _RATE, seconds, _SIZE)
    if made.relay is not ON_DEMAND:
        made.wait_entries(count)
    received, sent = (now - then for now, then in zip(made.engine.host.wire(), before, strict=True))
    return {
        "entries stored a second": [count / took],
        "the slowest of them, ms": [1000 * slowest],
        "an entry: its sidecar, µs of a core": [1e6 * mine.since() / count],
        "an entry: each other sidecar, µs of a core": [1e6 * mark.since() / count for mark in theirs],
        "an entry: redis-server, µs of a core": [1e6 * engine.since() / count],
        "an entry: to redis-server, bytes": [received / count],
        "an entry: from redis-server, bytes": [sent / count],
    }


def _commands(made: Cluster) -> int:
    assert made.engine is not None
    return made.engine.info("stats")["total_commands_processed"]
