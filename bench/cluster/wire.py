"""how many bytes go over the network for an entry, and how many does it take in the engine?

Three hosts, each a network, a /dev/shm and a coopshm-sidecar of its own, and for Redis a host with the server. One
process of the first host stores so many entries of random bytes, one after another, each a miss that asks for the
cluster's lease. Counted is what all hosts have sent, by the counters of their network interfaces, until the entries are
on the other two hosts; less what they send in as much time at rest (heartbeats). On demand, entries go no further than
the engine until they are asked for: that is counted once until they are there, and once more for both other hosts
asking for all of them.

The counters see what the kernel hands over, headers of Ethernet, IP and TCP included, where pieces of up to 64 KiB have
one header; on a real network there are more of those: 66 bytes in 1514. Keys have 30 bytes. Most of what small entries
cost is the question for the lease.

"In the engine" is MEMORY USAGE of all keys that belong to the cache, and what INFO says that the server's data has
grown by, per entry.
"""

from __future__ import annotations

import os
import time

import coopshm

from ..common import MIB, Bench, Sample, Table
from .nodes import ALL, ON_DEMAND, PEERS, Cluster, available, cluster
from .relay import reset

_REST = 2.0
_KIB = 1024


# ---- in workers


def key(size: int, number: int) -> str:
    """So that its encoding has 30 bytes."""
    return f"an entry of {size:8}, {number:6}"


def store(size: int, count: int) -> None:
    cache = coopshm.open("pages")
    for number in range(count):
        value = os.urandom(size)
        cache.cached(key(size, number), lambda value=value: value)  # type: ignore[misc]


def fetch(size: int, count: int) -> None:
    """Ask for what another host has stored."""
    cache = coopshm.open("pages")
    for number in range(count):
        if len(cache.cached(key(size, number), bytes)) != size:
            raise RuntimeError("an entry was computed again")


# ---- here


def run(bench: Bench) -> list[Table]:
    counts = bench.pick({64: 500, _KIB: 500, 16 * _KIB: 200, 256 * _KIB: 40, MIB: 20}, {64: 5, 256 * _KIB: 2})
    wire: list[Sample] = []
    engine: list[Sample] = []
    for relay in available(bench, PEERS, ALL, ON_DEMAND):
        with cluster(relay, 3) as made:
            at_rest = _rest(made, bench.pick(_REST, 0.2))
            wire.append(Sample("at rest, a second", relay.name, [at_rest]))
            for size, count in counts.items():
                case = _case(size)
                before = _in_engine(made)
                wire.append(Sample(case, relay.name, [_sent(made, size, count, at_rest, asking=False)]))
                if made.engine is not None:
                    after = _in_engine(made)
                    engine += [
                        Sample(case, f"{relay.name}: {what}", [(after[what] - before[what]) / count]) for what in after
                    ]
                if relay is ON_DEMAND:
                    who = f"{relay.name}, asked for"
                    wire.append(Sample(case, who, [_sent(made, size, count, at_rest, asking=True)]))
                made.nodes[0].worker.call(reset)
    wire += [Sample(_case(size), _PAYLOAD, [2.0 * size]) for size in counts] if wire else []
    engine += [Sample(_case(size), _VALUE, [float(size)]) for size in counts] if engine else []
    order = ["at rest, a second", *map(_case, counts)]
    wire.sort(key=lambda sample: order.index(sample.case))
    engine.sort(key=lambda sample: order.index(sample.case))
    show = ("median",)
    return [
        Table("On the network, in all", "bytes an entry", wire, _PAYLOAD, "entries of", "by", show),
        *([Table("In the engine", "bytes an entry", engine, _VALUE, "entries of", "by", show)] if engine else []),
    ]


_PAYLOAD = "the values to two hosts"
_VALUE = "the value"


def _case(size: int) -> str:
    return f"{size // MIB} MiB" if size >= MIB else f"{size // _KIB} KiB" if size >= _KIB else f"{size} bytes"


def _total(made: Cluster) -> int:
    hosts = [node.host for node in made.nodes]
    if made.engine is not None:
        hosts.append(made.engine.host)
    return sum(host.wire()[1] for host in hosts)


def _rest(made: Cluster, seconds: float) -> float:
    """What all hosts send in a second."""
    before = _total(made)
    time.sleep(seconds)
    return (_total(made) - before) / seconds


def _sent(made: Cluster, size: int, count: int, at_rest: float, asking: bool) -> float:
    """What all hosts send for an entry: to store it (and have it brought), or to ask for it from two of them."""
    here, *others = made.nodes
    there = made.engine.entries() if made.engine is not None else 0
    before, began = _total(made), time.monotonic()
    if asking:
        for wait in [node.worker.begin(fetch, size, count) for node in others]:
            wait()
    else:
        here.worker.call(store, size, count)
        if made.relay is not ON_DEMAND:
            made.wait_entries(count)
        elif made.engine is not None:
            made.engine.wait_entries(there + count)
    time.sleep(0.1)  # what is said after the last entry
    return (_total(made) - before - at_rest * (time.monotonic() - began)) / count


def _in_engine(made: Cluster) -> dict[str, int]:
    if made.engine is None:
        return {}
    return {"MEMORY USAGE": made.engine.usage(), "growth of its data": made.engine.memory()}
