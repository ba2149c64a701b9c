"""No false alarm: computations that ask for one another, without a cycle, by the million.

    python -m tests.soak.nested --computations 1000000

Each round has a few dozen computations, spread over three caches. Each asks for three later ones, by chance the same
in all processes; all processes begin at the same time, each with another one. So they wait for one another, nested and
criss-cross, as deep as a round has computations. A `CycleError` would be a false alarm, and ends the run.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from typing import Any

import coopshm
from tests.procs import CONTEXT, WATCHDOG, reap_all, run

_CACHES = 3
_WIDTH = 24
_PARTS = 3
_ROUNDS_A_GENERATION = 1000
_A_BATCH = 50_000  # well within the watchdog


def _settings(namespace: str) -> dict[str, Any]:
    cache = {"memory_limit": "8 MiB", "max_items": 20_000}
    return {"namespace": namespace, "caches": {f"n{i}": cache for i in range(_CACHES)}}


def _cache_of(item: int) -> str:
    return f"n{item % _CACHES}"


def _work(index: int, namespace: str, rounds: int, barrier: Any) -> int:
    coopshm.configure(_settings(namespace))
    computed = 0
    for r in range(rounds):
        chance = random.Random(r)
        parts = [
            sorted({chance.randrange(item + 1, _WIDTH) for _ in range(_PARTS)}) if item + 1 < _WIDTH else []
            for item in range(_WIDTH)
        ]

        def ask(item: int, r: int = r, parts: list[list[int]] = parts) -> int:
            def fn() -> int:
                nonlocal computed
                computed += 1
                own = parts[item]
                turn = index % len(own) if own else 0
                return 1 + sum(ask(part) for part in own[turn:] + own[:turn])

            return coopshm.cached(_cache_of(item), (r, item), fn)

        if index == 0 and r % _ROUNDS_A_GENERATION == 0:  # what is stored stays far below the caches' room
            for item in range(_CACHES):
                coopshm.reset(_cache_of(item))
        barrier.wait(WATCHDOG)
        totals = [ask((index * 5 + step) % _WIDTH) for step in range(_WIDTH)]
        expected: list[int] = [0] * _WIDTH
        for item in reversed(range(_WIDTH)):
            expected[item] = 1 + sum(expected[part] for part in parts[item])
        if totals != [expected[(index * 5 + step) % _WIDTH] for step in range(_WIDTH)]:
            raise AssertionError(f"round {r}: {totals}")
    return computed


def ask(namespace: str, processes: int, computations: int) -> int:
    """Run so many computations, and return how many there were; whatever is raised is a fault."""
    rounds = -(-computations // _WIDTH)
    return sum(run(processes, _work, namespace, rounds, CONTEXT.Barrier(processes)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--computations", type=int, default=1_000_000, help="default 1,000,000")
    parser.add_argument("--processes", type=int, default=8, help="default 8")
    options = parser.parse_args()
    namespace = f"nested-{time.time_ns()}"
    begin = time.monotonic()
    try:
        done = 0
        while done < options.computations:
            done += ask(namespace, options.processes, _A_BATCH)
        coopshm.configure(_settings(namespace))
        caches = [coopshm.open(f"n{i}") for i in range(_CACHES)]
        waits = sum(cache.stats().waits for cache in caches)
        faults = [fault for cache in caches for fault in cache.verify()]
        print(
            f"{done:,} computations of {options.processes} processes, {waits:,} waits, {time.monotonic() - begin:.0f} s"
        )
        print(f"no false alarm; verify: {faults or 'sound'}")
        return bool(faults)
    finally:
        reap_all()
        coopshm.configure(_settings(namespace))
        for i in range(_CACHES):
            coopshm.open(f"n{i}").destroy()


if __name__ == "__main__":
    sys.exit(main())
