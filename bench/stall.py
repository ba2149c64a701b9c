"""for how long does an event loop stand still during a stampede of 1,000 tasks in each of several processes?

In each process 1,000 tasks ask for the same new key at the same moment, by `Cache.acached`. Who gets to compute it
waits for 50 ms, as a task does, and returns 1 KiB. Meanwhile one more task of each loop does nothing but wait for the
loop's next turn and look at the clock: the longest time between two looks, in whichever process, is the round's value.
It contains what 1,000 tasks cost any event loop: to start them, to wake them, to collect their results. So "the loop
alone" does the same with one future of asyncio that all tasks of a process wait for, and that is set after 50 ms; the
difference is coopshm's. With more processes than cores a stall is mostly time in which the process had no CPU.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import cast

import coopshm

from .common import Bench, Config, Sample, Table
from .procs import CLOCK, sleep_until, workers

_TASKS = 1000
_COMPUTE = 0.050
_VALUE = bytes(1024)

Main = Callable[[], Coroutine[None, None, float]]
Question = tuple[str, str, str, int]


def _run(loop: str, main: Main) -> float:
    if loop == "asyncio":
        return asyncio.run(main())
    run: Callable[[Coroutine[None, None, float]], float] = importlib.import_module(loop).run
    return run(main())


async def _stampede(ask: Callable[[], Awaitable[object]], moment: int) -> float:
    """Return the longest time between two turns of the loop, in ms."""
    longest, done = 0, False

    async def look() -> None:
        nonlocal longest
        before = CLOCK()
        while not done:
            await asyncio.sleep(0)
            now = CLOCK()
            longest = max(longest, now - before)
            before = now

    sleep_until(moment)
    looks = asyncio.create_task(look())
    await asyncio.sleep(0)
    tasks = [asyncio.ensure_future(ask()) for _ in range(_TASKS)]
    await asyncio.gather(*tasks)
    done = True
    await looks
    return longest / 1e6


def _asker(config: Config) -> Callable[[Question], float]:
    coopshm.configure(config)
    cache = coopshm.open("stall")

    async def compute() -> bytes:
        await asyncio.sleep(_COMPUTE)
        return _VALUE

    async def shared(key: str, moment: int) -> float:
        return await _stampede(lambda: cache.acached(key, compute), moment)

    async def alone(moment: int) -> float:
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(_COMPUTE, future.set_result, _VALUE)

        async def wait() -> bytes:
            return await future

        return await _stampede(wait, moment)

    def ask(question: Question) -> float:
        loop, contender, key, moment = question
        main = partial(alone, moment) if contender == "the loop alone" else partial(shared, key, moment)
        return _run(loop, cast("Main", main))

    return ask


def run(bench: Bench) -> list[Table]:
    loops = ["asyncio"]
    if importlib.util.find_spec("uvloop") is None:
        bench.note("left out: uvloop is not installed")
    else:
        loops.append("uvloop")
    bench.configure(stall={"memory_limit": "64 MiB"})
    samples = []
    counts = bench.pick((1, 2, 8), (1, 2))
    for processes in counts:
        values: dict[tuple[str, str], list[float]] = {
            (loop, contender): [] for loop in loops for contender in ("coopshm", "the loop alone")
        }
        with workers(processes, partial(_asker, bench.config)) as askers:
            for number in bench.rounds(40, 2, 1 / len(counts)):
                for (loop, contender), found in values.items():
                    moment = CLOCK() + 10_000_000
                    for asker in askers:
                        asker.send((loop, contender, f"key {processes} {number} {loop}", moment))
                    stall = max(asker.receive() for asker in askers)
                    if number:  # the first one warms up
                        found.append(stall)
        case = f"{processes} process{'es' if processes > 1 else ''}"
        samples += [Sample(f"{case}, {loop}", who, found) for (loop, who), found in values.items()]
    cores = len(os.sched_getaffinity(0))
    return [
        Table(
            f"The longest stall of an event loop on {cores} cores, {_TASKS:,} tasks in each process",
            "ms",
            samples,
            "the loop alone",
            show=("median", "quartiles", "p99", "worst", "n"),
        )
    ]
