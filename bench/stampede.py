"""64 processes ask for a cold key: how often is it computed, and how soon do all have the value?

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

from .common import Bench, Config, Sample, Table, median
from .procs import CLOCK, sleep_until, workers

#: How long the owner waits for the others, in seconds, before it goes on anyway.
_PATIENCE = 20.0
_SETTLE = 0.005

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
    rounds, processes = bench.pick(200, 5), bench.pick(64, 8)
    bench.configure(stampede={"memory_limit": "4 MiB"})
    computations: list[float] = []
    took: dict[str, list[float]] = {"the owner": [], "the median waiter": [], "the last waiter": []}
    with workers(processes, partial(_asker, bench.config, processes - 1)) as askers:
        for number in range(rounds + 1):
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
