"""what do sidecars take, at rest and while 10,000 entries are to be stored each second?

Three hosts, each a network, a /dev/shm and a coopshm-sidecar of its own, on one machine, and for Redis a host with the
server. On the first one, two processes with 16 threads each are to store so many new entries of 100 bytes a second, all
in all, evenly, for 4 seconds; each is a miss that asks for the cluster's lease. What they reach is beside it: where
that is less, they have stored as many as they could. "The slowest" is one `Cache.cached`; one that took lease_timeout
(1 s) was computed without the cluster's answer. Processor time is that of a process with all its threads: in percent of
one core while they store; and until all entries are on the other hosts, divided by the entries (on demand, nothing is
brought until it is asked for).

Memory is the proportional set size without the segments, which are the application's; what Python takes for being there
is in it, and is measured beside it: an interpreter that has imported what a sidecar imports.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import coopshm

from ..common import Bench, Sample, Table
from ..procs import CLOCK
from .nodes import ALL, ON_DEMAND, PEERS, Cluster, available, cluster
from .relay import reset
from .usage import Cpu, private_kib

_SIZE = 100
_THREADS = 16
_SECONDS = 4.0
_REST = 4.0
#: What is kept waiting for a while gives up.
_LEAST_PAUSE = 0.001


# ---- in workers


def store(prefix: str, rate: float, seconds: float, size: int = _SIZE) -> tuple[int, float, float]:
    """Store `rate` entries a second, evenly, for `seconds`, or as many as can be.

    Returns how many those were, in how many seconds, and how many the slowest took.
    """
    value = os.urandom(size)
    cache = coopshm.open("pages")
    began = CLOCK()
    stored = [0] * _THREADS
    slowest = [0] * _THREADS

    def run(thread: int) -> None:
        for number in range(int(rate * seconds / _THREADS)):
            ahead = (number * _THREADS + thread) / rate - (CLOCK() - began) / 1e9
            if ahead > _LEAST_PAUSE:
                time.sleep(ahead)
            if (CLOCK() - began) / 1e9 > seconds:
                return
            before = CLOCK()
            cache.cached(f"{prefix} {thread} {number}", lambda: value)
            slowest[thread] = max(slowest[thread], CLOCK() - before)
            stored[thread] += 1

    crew = [threading.Thread(target=run, args=[thread]) for thread in range(_THREADS)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    return sum(stored), (CLOCK() - began) / 1e9, max(slowest) / 1e9


# ---- here


def run(bench: Bench) -> list[Table]:
    rates = bench.pick([1000, 10_000], [200])
    seconds, rest = bench.pick((_SECONDS, _REST), (0.2, 0.2))
    tables = _Tables()
    tables.memory.append(Sample("at rest", "an interpreter with the same modules", [_bare_kib() / 1024]))
    with ExitStack() as stack:
        clusters = [
            stack.enter_context(cluster(relay, 3, workers=2)) for relay in available(bench, PEERS, ALL, ON_DEMAND)
        ]
        if not clusters:
            return []
        for made in clusters:
            _at_rest(made, rest, tables)
        for number in bench.rounds(3, 1):
            for rate in rates:
                for made in clusters:
                    _under(made, rate, seconds, number, tables)
    bench.note(f"all hosts, and the processes that store, share {len(os.sched_getaffinity(0))} cores")
    return tables.all()


class _Tables:
    def __init__(self) -> None:
        self.memory: list[Sample] = []
        self.rate: dict[tuple[str, str], list[float]] = {}
        self.slowest: dict[tuple[str, str], list[float]] = {}
        self.percent: dict[tuple[str, str], list[float]] = {}
        self.each: dict[tuple[str, str], list[float]] = {}

    def all(self) -> list[Table]:
        show = ("median", "quartiles", "n")
        titles = (
            ("Entries stored", "a second", self.rate),
            ("The slowest", "ms", self.slowest),
            ("Processor time", "% of a core", self.percent),
            ("Processor time of an entry", "µs an entry", self.each),
        )
        return [
            Table("Memory", "MiB", self.memory, case_is="when", contender_is="of", show=("median",)),
            *(
                Table(title, unit, _samples(found), case_is="when", contender_is="of", show=show)
                for title, unit, found in titles
            ),
        ]


def _samples(found: dict[tuple[str, str], list[float]]) -> list[Sample]:
    cases = list(dict.fromkeys(case for case, _ in found))
    return [Sample(case, who, values) for case in cases for (of, who), values in found.items() if of == case]


def _processes(made: Cluster) -> dict[str, int]:
    relay = made.relay.name
    found = {
        f"{relay}: the sidecar of the host that stores": made.nodes[0].sidecar_pid,
        f"{relay}: a sidecar of another host": made.nodes[1].sidecar_pid,
    }
    if made.engine is not None:
        found[f"{relay}: redis-server"] = made.engine.pid
    return found


def _note_memory(made: Cluster, when: str, tables: _Tables) -> None:
    tables.memory += [Sample(when, who, [private_kib(pid) / 1024]) for who, pid in _processes(made).items()]


def _at_rest(made: Cluster, seconds: float, tables: _Tables) -> None:
    marks = {who: Cpu.of(pid) for who, pid in _processes(made).items()}
    time.sleep(seconds)
    for who, mark in marks.items():
        tables.percent.setdefault(("at rest", who), []).append(mark.percent())
    _note_memory(made, "at rest", tables)


def _under(made: Cluster, rate: int, seconds: float, number: int, tables: _Tables) -> None:
    here = made.nodes[0]
    when = f"{rate:,} a second wanted"
    marks = {who: Cpu.of(pid) for who, pid in _processes(made).items()}
    workers = [
        worker.begin(store, f"{rate} {number} {at}", rate / len(here.workers), seconds)
        for at, worker in enumerate(here.workers)
    ]
    stored = [wait() for wait in workers]
    for who, mark in marks.items():
        tables.percent.setdefault((when, who), []).append(mark.percent())
    count = sum(one[0] for one in stored)
    if made.relay is not ON_DEMAND:
        made.wait_entries(count)
    for who, mark in marks.items():
        tables.each.setdefault((when, who), []).append(1e6 * mark.since() / count)
    tables.rate.setdefault((when, made.relay.name), []).append(count / max(one[1] for one in stored))
    tables.slowest.setdefault((when, made.relay.name), []).append(1000 * max(one[2] for one in stored))
    if number == 0:
        _note_memory(made, f"after {when}", tables)
    here.worker.call(reset)


def _bare_kib() -> int:
    """Of an interpreter that has imported what a sidecar imports, and done nothing."""
    program = "import coopshm.cluster.sidecar, coopshm.cluster.command; import sys; print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        return private_kib(process.pid)
