"""how many hits a second do 1, 2, 4 and 8 processes get?

Each process asks for the same key in a loop, for the same half a second; the hits of all of them are added
up. What the processes get depends on the cores first, so lru_cache, which has nothing in common between the
processes, shows what this machine gives to any program: more processes than cores cannot get more, and
cores that share a physical one give less than twice. The multiple is that of one process. All processes
live from the start; those that a case does not need sleep.
"""

from __future__ import annotations

import functools
import os
import timeit
from collections.abc import Callable

import coopshm

from .common import Bench, Config, Sample, Table
from .procs import CLOCK, sleep_until, workers

PROCESSES = (1, 2, 4, 8)

_KIB = b"x" * 1024
_DICT = {"id": 42, "name": "product 42", "price": 52.5, "tags": ["new", "sale"]}
_CALLS = 500  # between two looks at the clock

#: Calls that hit, with the names that _hitter gives them.
CONTENDERS = {
    "functools.lru_cache": "lookup('product:42')",
    "Cache.cached, bytes, 1 KiB": "cache.cached('bytes:42', kib)",
    "Cache.cached, dict, 4 items": "cache.cached('dict:42', four)",
}

Question = tuple[str, int, int]


def _hitter(config: Config) -> Callable[[Question], float]:
    coopshm.configure(config)
    cache = coopshm.open("scaling")
    lookup = functools.lru_cache(maxsize=1024)(lambda key: _KIB)
    names = {"lookup": lookup, "cache": cache, "kib": lambda: _KIB, "four": lambda: _DICT}
    timers = {name: timeit.Timer(call, globals=names) for name, call in CONTENDERS.items()}
    for timer in timers.values():
        timer.timeit(_CALLS)

    def hits(question: Question) -> float:
        """Return hits a second, from `start` for `duration` ns."""
        contender, start, duration = question
        timer, done = timers[contender], 0
        sleep_until(start)
        began = CLOCK()
        while CLOCK() < start + duration:
            timer.timeit(_CALLS)
            done += _CALLS
        return done / (CLOCK() - began) * 1e9

    return hits


def run(bench: Bench) -> list[Table]:
    rounds, duration = bench.pick(15, 2), bench.pick(500_000_000, 20_000_000)
    counts = bench.pick(PROCESSES, PROCESSES[:2])
    bench.configure(scaling={"memory_limit": "4 MiB"})
    rates: dict[tuple[str, int], list[float]] = {(name, n): [] for name in CONTENDERS for n in counts}
    with workers(max(counts), functools.partial(_hitter, bench.config)) as hitters:
        for _ in range(rounds):
            for (name, n), values in rates.items():
                start = CLOCK() + 5_000_000
                for hitter in hitters[:n]:
                    hitter.send((name, start, duration))
                values.append(sum(hitter.receive() for hitter in hitters[:n]))
    samples = [Sample(name, _processes(n), values) for (name, n), values in rates.items()]
    title = f"Hits on {len(os.sched_getaffinity(0))} cores ({rounds} rounds)"
    one = _processes(1)
    return [Table(title, "hits a second, by all", samples, one, contender_is="by", plot="multiples")]


def _processes(n: int) -> str:
    return "1 process" if n == 1 else f"{n} processes"
