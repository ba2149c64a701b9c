"""the process that computes is killed: how soon does a waiter compute in its place?

In each round a new process computes a key, one or eight others wait for it, and after a random time of up
to 60 ms (so that it is in no step with the waiters' own looks at the owner) it gets SIGKILL. Timed is from
right before the kill to the moment at which the computation begins in one of the waiters; all processes
read the same clock. The kernel's part, ending the process, is included: a server with a large heap takes
longer to die than the small one here.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from functools import partial

import coopshm

from .common import Bench, Config, Sample, Table
from .procs import CLOCK, Worker, workers


def _owner(config: Config) -> Callable[[str], object]:
    coopshm.configure(config)
    cache = coopshm.open("takeover")
    return lambda key: cache.cached(key, _never_done)


def _never_done() -> None:
    time.sleep(3600)


def _waiter(config: Config) -> Callable[[str], int]:
    coopshm.configure(config)
    cache = coopshm.open("takeover")
    return lambda key: cache.cached(key, CLOCK)  # the value is the time at which its computation began


def _until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 60
    while not condition():
        if time.monotonic() > give_up:
            raise RuntimeError("the processes do not get to where they can be killed")
        time.sleep(0.001)


def _rounds(bench: Bench, rounds: Iterator[int], n_waiters: int) -> list[float]:
    cache = coopshm.open("takeover")
    chance = random.Random(1)
    took = []
    with workers(n_waiters, partial(_waiter, bench.config)) as waiters:
        for number in rounds:
            key = f"{n_waiters} waiters, round {number}"
            owner = Worker(partial(_owner, bench.config))
            try:
                owner.wait_ready()
                owner.send(key)
                _until(lambda: cache.stats().flights == 1)
                for waiter in waiters:
                    waiter.send(key)
                _until(lambda: cache.stats().waiters == n_waiters)
                time.sleep(chance.uniform(0, 0.060))
                killed = owner.kill()
                began = {waiter.receive() for waiter in waiters}
            finally:
                owner.close()
            if len(began) != 1:
                raise RuntimeError(f"computed {len(began)} times after the kill")
            took.append((began.pop() - killed) / 1e6)
    return took


def run(bench: Bench) -> list[Table]:
    bench.configure(takeover={"memory_limit": "4 MiB"})
    samples = [Sample(f"{n} waiting", "SIGKILL", _rounds(bench, bench.rounds(150, 3, 0.5), n)) for n in (1, 8)]
    return [
        Table(
            "From the kill to the new computation",
            "ms",
            samples,
            contender_is="by",
            show=("median", "quartiles", "p99", "worst", "n"),
            plot="steps",
        )
    ]
