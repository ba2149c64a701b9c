"""64 processes ask for a cold key: how often is it computed, and how soon do all have the value?

"Beside others": the computation sleeps for 50 ms, and all processes ask for the same new key at the same
moment. Counted are the computations; timed is from the end of the first one to the moment at which the last
process has the value. Most peers leave it to the user to keep processes from computing the same thing at
once; for them, it is asked for, and if it is not there, computed and stored. A process that computes for
itself is done 50 ms after it began, whatever the others do: what that costs is the computations, on a server
whose computations need a core.

The other tables are about coopshm alone, without the chance of a computation that ends before all ask.

In each round all processes ask for the same new key at the same moment. Who gets to compute it waits,
inside the computation, until all others wait for it, and 5 ms more, so that they are asleep; then it
returns a value of 1 KiB that has the time in it. That moment is called the publication, although encoding
and publishing come after it and count. Times are from there to the moment at which `Cache.cached` has
returned in a waiter, as the waiter's clock says; all processes read the same clock. On a machine with fewer
cores than processes the last waiter is last because the others run before it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial

import coopshm

from . import peers
from .common import Bench, Config, Sample, Table, median
from .peers import LOCKING, LRU, PEERS
from .peers.ours import HOT
from .peers.protocol import Client, Peer, Running
from .procs import CLOCK, sleep_until, workers

#: How long the owner waits for the others, in seconds, before it goes on anyway.
_PATIENCE = 20.0
_SETTLE = 0.005
#: How long a computation takes beside others.
_COMPUTE = 0.050
#: Seconds after which a contender has no further round, once it has had two.
_ENOUGH = 4.0

Question = tuple[str, int]
Reply = tuple[bool, bool, int]


def _asker(config: Config, others: int) -> Callable[[Question], Reply]:
    coopshm.configure(config)
    cache = coopshm.open("stampede")

    def ask(question: Question) -> Reply:
        """Return whether it was computed here, whether all others waited, and how much later it returned."""
        key, moment = question
        computed = complete = False

        def compute() -> bytes:
            nonlocal computed, complete
            computed = True
            give_up = time.monotonic() + _PATIENCE
            while not complete and time.monotonic() < give_up:
                time.sleep(0.001)
                complete = cache.stats().waiters == others
            time.sleep(_SETTLE)
            return CLOCK().to_bytes(8, "little") + bytes(1016)

        sleep_until(moment)
        value = cache.cached(key, compute)
        return computed, complete, CLOCK() - int.from_bytes(value[:8], "little")

    return ask


def run(bench: Bench) -> list[Table]:
    processes = bench.pick(64, 8)
    # Alone first: its processes have the machine to themselves.
    return [*_alone(bench, processes), *_beside(bench, processes)]


def _alone(bench: Bench, processes: int) -> list[Table]:
    bench.configure(stampede={"memory_limit": "4 MiB"})
    computations: list[float] = []
    took: dict[str, list[float]] = {"the owner": [], "the median waiter": [], "the last waiter": []}
    with workers(processes, partial(_asker, bench.config, processes - 1)) as askers:
        for number in bench.rounds(201, 6, 0.3):
            moment = CLOCK() + 10_000_000
            for asker in askers:
                asker.send((f"key {number}", moment))
            replies = [asker.receive() for asker in askers]
            if number == 0:
                continue  # warms up
            owners = [reply for reply in replies if reply[0]]
            waiters = [reply[2] / 1000 for reply in replies if not reply[0]]
            computations.append(len(owners))
            if len(owners) != 1:
                raise RuntimeError(f"computed {len(owners)} times")
            if not owners[0][1]:
                bench.note(f"round {number}: not all others waited when the owner went on")
            took["the owner"].append(owners[0][2] / 1000)
            took["the median waiter"].append(median(waiters))
            took["the last waiter"].append(max(waiters))
    case = f"{processes} processes, {len(os.sched_getaffinity(0))} cores"
    show = ("median", "quartiles", "p99", "worst", "n")
    times = [Sample(case, who, values) for who, values in took.items()]
    return [
        Table(
            "From publication to return",
            "µs",
            times,
            case_is="on",
            contender_is="who returns",
            show=show,
            plot="steps",
        ),
        Table(
            "Computations",
            "a round",
            [Sample(case, "all processes", computations)],
            case_is="on",
            contender_is="by",
            show=("median", "worst", "n"),
        ),
    ]


# ---- beside others


def _waiting(connect: Callable[[], Client]) -> Callable[[Question], tuple[int, int]]:
    client = connect()

    def ask(question: Question) -> tuple[int, int]:
        """Return when a computation ended here (0: there was none), and when the value was had."""
        key, moment = question
        ended = 0

        def compute() -> bytes:
            nonlocal ended
            time.sleep(_COMPUTE)
            ended = CLOCK()
            return bytes(1024)

        sleep_until(moment)
        if client.ask(key, compute) != bytes(1024):
            raise RuntimeError("another value came back")
        return ended, CLOCK()

    return ask


def _beside(bench: Bench, processes: int) -> list[Table]:
    contenders = (HOT, *LOCKING, LRU, *PEERS)
    rounds = bench.pick(9, 2)
    computations: dict[Peer, list[float]] = {}
    took: dict[Peer, list[float]] = {}
    # One after another, for 64 processes of each are too many to live at once.
    for peer in contenders:
        with peers.started(bench, [peer], items=256, processes=processes) as running:
            for started in running.values():
                counts, times = computations.setdefault(peer, []), took.setdefault(peer, [])
                peers.attempt(bench, peer, "a stampede", partial(_rounds, started, rounds, processes, counts, times))
    case = f"{processes} processes, {len(os.sched_getaffinity(0))} cores"

    def samples(values: dict[Peer, list[float]]) -> list[Sample]:
        return [Sample(case, peer.name, found) for peer, found in values.items() if found]

    show = ("median", "quartiles", "worst", "n")
    return [
        Table("Beside others: computations", "a round", samples(computations), case_is="on", show=show),
        Table(
            f"Beside others: from the end of the first computation ({_COMPUTE * 1000:.0f} ms) to the last return",
            "ms",
            samples(took),
            case_is="on",
            show=show,
            plot="ranked",
        ),
    ]


def _rounds(running: Running, rounds: int, processes: int, counts: list[float], times: list[float]) -> None:
    with running.workers(processes, partial(_waiting, running.connect)) as askers:
        enough = time.monotonic() + _ENOUGH
        for number in range(rounds + 1):
            if number > 2 and time.monotonic() > enough:
                break
            moment = CLOCK() + 20_000_000
            for asker in askers:
                asker.send((f"key {number}", moment))
            replies = [asker.receive() for asker in askers]
            if number == 0:
                continue  # warms up
            ends = [ended for ended, _ in replies if ended]
            counts.append(len(ends))
            times.append((max(had for _, had in replies) - min(ends)) / 1e6)
