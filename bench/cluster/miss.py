"""what does a cold miss cost with the cluster on?

Three hosts, each a network, a /dev/shm, a coopshm-sidecar and processes of its own; for Redis, the server has a host of
its own as well. A call is one `Cache.cached` of a new key whose computation takes no time, a value of 1 KiB, by a
process that has slept for 2 ms. Rounds ask each contender once. "No cluster" is a cache of the same process that the
sidecar does not know of: what is more with the others is what the cluster adds.

"Computed on another host meanwhile": one process computes for 30 ms, another of the same host and one of another host
wait for it. Times are from the end of the computation to the return in the waiter.

"Computed on another host before": the first ask on this host, for what another one's `Cache.cached` has returned right
before, or 50 ms before. If relays have brought the entry meanwhile it is a hit, otherwise the owner node or the engine
says where it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

import coopshm
from coopshm.cluster.views import Members
from coopshm.keys import encode_key

from ..common import Bench, Sample, Table
from ..procs import CLOCK
from . import plain_redis, yardsticks
from .nodes import ALL, ON_DEMAND, PEERS, Cluster, available, cluster

_SIZE = 1024
_COMPUTE = 0.030
_REST = 0.002
_LATER = 0.050


# ---- in workers


def miss(cache: str, key: str) -> float:
    """Ask for a new key; the µs that it took."""
    value = bytes(_SIZE)
    opened = coopshm.open(cache)
    time.sleep(_REST)
    before = CLOCK()
    opened.cached(key, lambda: value)
    return (CLOCK() - before) / 1000


def compute(key: str) -> None:
    """Compute for 30 ms; the value says when that ended."""

    def slow() -> bytes:
        time.sleep(_COMPUTE)
        return CLOCK().to_bytes(8, "little") + bytes(_SIZE - 8)

    coopshm.open("pages").cached(key, slow)


def wait(key: str) -> float | None:
    """Ask for what another process computes: the µs from the end of that. None: it was computed here."""
    computed: list[bool] = []

    def here() -> bytes:
        computed.append(True)
        return bytes(_SIZE)

    value = coopshm.open("pages").cached(key, here)
    return None if computed else (CLOCK() - int.from_bytes(value[:8], "little")) / 1000


def ask(key: str) -> tuple[float, bool]:
    """Ask for what another host has computed: µs, and whether it was computed again."""
    computed: list[bool] = []

    def here() -> bytes:
        computed.append(True)
        return bytes(_SIZE)

    opened = coopshm.open("pages")
    before = CLOCK()
    opened.cached(key, here)
    return (CLOCK() - before) / 1000, bool(computed)


# ---- here


def run(bench: Bench) -> list[Table]:
    with ExitStack() as stack:
        clusters = [
            stack.enter_context(cluster(relay, 3, workers=2)) for relay in available(bench, PEERS, ALL, ON_DEMAND)
        ]
        if not clusters:
            return []
        return [_here(bench, clusters), _meanwhile(bench, clusters), _before(bench, clusters)]


def _keys(node: str, owned: bool, size: int) -> Callable[[int], str]:
    """Keys whose owner node, among so many peers, is that one, or another one."""
    members = Members({f"n{number}": bytes(16) for number in range(1, size + 1)})

    def key(number: int) -> str:
        at = 0
        while (members.owner("pages", encode_key(f"{owned} {number} {at}")).name == node) is not owned:
            at += 1
        return f"{owned} {number} {at}"

    return key


def _here(bench: Bench, clusters: list[Cluster]) -> Table:
    first = clusters[0].nodes[0].worker
    contenders: dict[str, Callable[[int], float]] = {
        "no cluster": lambda number: first.call(miss, "alone", f"alone {number}")
    }
    for made in clusters:
        worker = made.nodes[0].worker
        if made.engine is None:
            for owned, name in ((True, "peers, this node owns the key"), (False, "peers, another node owns the key")):
                keys = _keys("n1", owned, len(made.nodes))
                contenders[name] = lambda number, worker=worker, keys=keys: worker.call(miss, "pages", keys(number))  # type: ignore[misc]
        else:
            contenders[made.relay.name] = lambda number, worker=worker: worker.call(miss, "pages", f"key {number}")  # type: ignore[misc]
    there = clusters[0].nodes[1]
    first.call(yardsticks.connect, there.host.address, there.workers[1].call(yardsticks.serve, there.host.address))
    contenders["a round trip of 100 bytes, sockets"] = lambda _: first.call(yardsticks.echo)
    contenders["a round trip, asyncio streams, TLS"] = lambda _: first.call(yardsticks.stream_echo, True)
    for made in clusters:
        if made.relay is ALL and made.engine is not None:
            client = made.nodes[0].workers[1]
            client.call(plain_redis.connect, made.engine.url)
            contenders["Redis by hand: SET NX (a lock), SET, DEL"] = lambda number, client=client: client.call(  # type: ignore[misc]
                plain_redis.lock_and_set, f"by hand {number}", _SIZE
            )
    took: dict[str, list[float]] = {name: [] for name in contenders}
    for number in bench.rounds(301, 4, 0.4):
        for name, contender in contenders.items():
            value = contender(number)
            if number:  # the first one warms up
                took[name].append(value)
    samples = [Sample("1 KiB", name, values) for name, values in took.items()]
    show = ("median", "quartiles", "p99", "worst", "n")
    return Table("A miss that is computed here", "µs a call", samples, "no cluster", show=show, plot="bars")


def _meanwhile(bench: Bench, clusters: list[Cluster]) -> Table:
    took: dict[tuple[str, str], list[float]] = {}
    again = 0
    for number in bench.rounds(61, 3, 0.3):
        for made in clusters:
            here, there = made.nodes[0], made.nodes[1]
            key = f"meanwhile {number}"
            computed = there.workers[0].begin(compute, key)
            time.sleep(_COMPUTE / 5)
            waiters = {"another process of that host": there.workers[1], "a process of another host": here.workers[0]}
            waits = {who: worker.begin(wait, key) for who, worker in waiters.items()}
            computed()
            for who, returned in waits.items():
                value = returned()
                if number == 0:
                    continue
                if value is None:
                    again += 1
                else:
                    took.setdefault((made.relay.name, who), []).append(value)
    if again:
        bench.note(f"of what was computed on another host meanwhile, {again} was computed again")
    samples = [Sample(relay, who, values) for (relay, who), values in took.items()]
    show = ("median", "quartiles", "p99", "worst", "n")
    title = "Computed on another host meanwhile: from the end of the computation to the return"
    return Table(title, "µs", samples, "another process of that host", "over", "who waits", show)


def _before(bench: Bench, clusters: list[Cluster]) -> Table:
    hit = "a hit"
    took: dict[tuple[str, str], list[float]] = {}
    again = 0
    for number in bench.rounds(101, 3, 0.3):
        for when, pause in (("right before", 0.0), ("50 ms before", _LATER)):
            for made in clusters:
                here, there = made.nodes[0].worker, made.nodes[1].worker
                key = f"before {number} {when}"
                there.call(miss, "pages", key)
                time.sleep(pause)
                value, computed = here.call(ask, key)
                again += computed and number > 0
                known, _ = here.call(ask, key)
                if number:
                    took.setdefault((when, made.relay.name), []).append(value)
                    if made is clusters[0]:
                        took.setdefault((when, hit), []).append(known)
    if again:
        bench.note(f"of what was computed on another host before, {again} was computed again")
    samples = sorted(
        (Sample(when, who, values) for (when, who), values in took.items()),
        key=lambda sample: (sample.case != "right before", sample.contender != hit),
    )
    show = ("median", "quartiles", "p99", "worst", "n")
    return Table("Computed on another host before", "µs a call", samples, hit, "returned there", show=show)
