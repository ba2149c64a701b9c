"""what does a hit cost while another process publishes or resets without pause?

This process asks for one key, with a value of 1 KiB, and looks at the clock before and after each call; its
own two looks are in every figure. Meanwhile another process does nothing, publishes new keys as fast as it
can, resets the cache every millisecond, or resets it as fast as it can. After a reset the next call finds
nothing and computes (at no cost): such calls are counted apart, and a hit is a call that did not compute.
Hot objects are off, so that each hit reads shared memory. Each round measures all four situations; its
value is the median, the 99th percentile, or the slowest of the hits of that round. The two processes need
two cores: with fewer, or with other work on the machine, the slowest hit is one that was preempted, and the
other process gets little done while hits are measured.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from functools import partial

import coopshm

from .common import MIB, Bench, Config, Sample, Table, median
from .procs import CLOCK, Worker, sleep_until, workers
from .report import percentile

SITUATIONS = ("quiet", "publishing", "a reset a millisecond", "resetting")

_LIMIT = 512 * MIB

Question = tuple[str, int, int]


def _disturber(config: Config) -> Callable[[Question], int]:
    coopshm.configure(config)
    cache = coopshm.open("interference")
    numbers = itertools.count()

    def publish() -> None:
        cache.cached(next(numbers), int)

    def reset_and_sleep() -> None:
        cache.reset()
        time.sleep(0.001)

    actions: dict[str, Callable[[], object]] = {
        "publishing": publish,
        "a reset a millisecond": reset_and_sleep,
        "resetting": cache.reset,
    }

    def disturb(question: Question) -> int:
        """Return how often it was done between the two moments."""
        situation, start, end = question
        if situation not in actions:
            return 0
        action, done = actions[situation], 0
        sleep_until(start)
        while CLOCK() < end:
            action()
            done += 1
        return done

    return disturb


def _ask(cache: coopshm.Cache, start: int, end: int) -> tuple[list[int], int]:
    """Return how long each hit took, and how many calls computed."""
    value, computed, hits = b"x" * 1024, 0, []

    def compute() -> bytes:
        nonlocal computed
        computed += 1
        return value

    sleep_until(start)
    after = 0
    while after < end:
        before_computed = computed
        before = CLOCK()
        cache.cached("key", compute)
        after = CLOCK()
        if computed == before_computed:
            hits.append(after - before)
    return hits, computed


def _round(
    cache: coopshm.Cache, other: Worker[Question, int], situation: str, duration: int
) -> tuple[list[int], int, int]:
    cache.reset()
    cache.cached("key", lambda: b"x" * 1024)
    start = CLOCK() + 5_000_000
    # The other begins a little earlier and ends a little later.
    other.send((situation, start - 2_000_000, start + duration + 2_000_000))
    hits, computed = _ask(cache, start, start + duration)
    return hits, computed, other.receive()


def run(bench: Bench) -> list[Table]:
    duration = bench.pick(200_000_000, 10_000_000)
    if not bench.has_room(_LIMIT, "everything"):
        return []
    bench.configure(interference={"memory_limit": _LIMIT, "max_items": 2**20, "hot_objects": False})
    cache = coopshm.open("interference")
    figures: dict[tuple[str, str], list[float]] = {
        (figure, situation): [] for figure in ("median", "p99", "slowest") for situation in SITUATIONS
    }
    shares: dict[str, list[float]] = {situation: [] for situation in SITUATIONS}
    rates: dict[str, list[float]] = {situation: [] for situation in SITUATIONS}
    with workers(1, partial(_disturber, bench.config)) as (other,):
        for _ in bench.rounds(25, 2):
            for situation in SITUATIONS:
                hits, computed, done = _round(cache, other, situation, duration)
                shares[situation].append(100 * computed / (computed + len(hits)))
                rates[situation].append(done / (duration + 4_000_000) * 1e9)
                if not hits:
                    # The two took turns on one core, so each call of this one came after a reset.
                    bench.note(f"a round without any hit, which counts only below: {situation}")
                    continue
                figures["median", situation].append(median(hits))
                figures["p99", situation].append(percentile(hits, 99))
                figures["slowest", situation].append(max(hits))
    times = [Sample(figure, situation, values) for (figure, situation), values in figures.items() if values]
    others = [Sample("the other process does", s, values) for s, values in rates.items()]
    computing = [Sample("calls that computed", s, values) for s, values in shares.items()]
    meanwhile = "meanwhile"
    cores = len(os.sched_getaffinity(0))
    return [
        Table(
            f"Hits of 1 KiB on {cores} cores",
            "ns a hit",
            times,
            "quiet",
            case_is="of a round's hits",
            contender_is=meanwhile,
            plot="bars",
        ),
        Table("What the other process gets done", "a second", others, contender_is=meanwhile),
        Table("Calls that found nothing", "% of the calls", computing, contender_is=meanwhile),
    ]
