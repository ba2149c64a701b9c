"""The table at the end of a soak, and what is wrong in detail."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from typing import Any

from . import records

_DETAILS, _CHARACTERS = 8, 1500  # per kind of violation, and per violation

#: Always in the table, with 0 when there is none.
_VIOLATIONS = (
    "wrong value",
    "P1",
    "P2",
    "P2 look",
    "P3",
    "P4",
    "hook",
    "error",
    "attach",
    "crash",
    "hang",
    "verify",
    "leak",
)


def in_detail(found: list[tuple[str, str]]) -> None:
    """Print the first violations of each kind."""
    for what in dict.fromkeys(what for what, _ in found):
        texts = [text for of, text in found if of == what]
        for text in texts[:_DETAILS]:
            print(f"{what}: {text[:_CHARACTERS]}")
        if len(texts) > _DETAILS:
            print(f"{what}: and {len(texts) - _DETAILS} more")


def table(
    options: argparse.Namespace, seconds: float, histories: Any, watch: Any, stats: Any, left: Any,
    found: list[tuple[str, str]],
) -> None:  # fmt: skip
    counts = histories.counts
    calls = sum(counts[how] for how in records.HOWS)

    def row(name: str, value: object, note: str = "") -> None:
        print(f"  {name:<28}{value!s:>14}  {note}".rstrip())

    def rate(n: float) -> str:
        return f"{n / seconds:,.0f} a second"

    print()
    row("seconds", f"{seconds:.1f}")
    hows = ", ".join(f"{how} {counts[how]:,}" for how in records.HOWS if how != "reset")
    row("calls", f"{calls:,}", f"{hows}; {rate(calls)}")
    row("lives", f"{counts['lives']:,}", f"{counts['calls cut by a kill']:,} calls cut by a kill")
    kills = counts["killed"] + counts["killed children"]
    row("kills", f"{kills:,}", f"{rate(kills)}; {counts['own kills']:,} in calls of the core or in an attach")
    row("stops", f"{counts['stops']:,}", f"{histories.stopped_ns / 1e9:.1f} s in all")
    row("forks", f"{counts['forks']:,}")
    row("resets", f"{stats.resets:,}", f"{counts['resets asked for']:,} asked for, generation {stats.generation:,}")
    row("resets refused (busy)", f"{counts['resets refused (busy)']:,}")
    row("hits, of them hot", f"{stats.hits + stats.hot_hits:,}", f"{stats.hot_hits:,}")
    row("computations", f"{stats.computations:,}", f"{counts['computations']:,} with those of bypasses, as noted")
    row("waits", f"{stats.waits:,}", f"{stats.timeouts:,} until the call's timeout")
    row("failures, NoCache", f"{stats.failures:,}", f"{stats.uncached:,}")
    row("stale", f"{stats.stale:,}")
    row("interrupted calls", f"{counts['interrupted']:,}")
    row("takeovers", f"{stats.takeovers:,}")
    row("steals of the lock", f"{stats.steals:,}")
    row("outcomes lost", f"{stats.lost_outcomes:,}")
    bypasses = {cause: n for cause, n in stats.bypasses.items() if n}
    row("bypasses", f"{sum(bypasses.values()):,}", ", ".join(f"{cause} {n:,}" for cause, n in bypasses.items()))
    again = histories.duplicates
    row("computed again, explained", f"{sum(again.values()):,}", ", ".join(f"{r} {n:,}" for r, n in again.items()))
    row("cache full", f"{watch.full / max(watch.looks, 1):.0%}", f"of {watch.looks} looks")
    row("held values re-checked", f"{counts['held checks']:,}")
    row("calls compared with resets", f"{counts['P2 compared']:,}")
    row("verify runs", f"{watch.verified:,}", f"{watch.busy} times busy")
    row("longest hang", f"{histories.longest.rest / 1e6:.0f} ms", f"without a reason: {histories.longest.text}")
    pauses = [(end - begin) / 1e6 for begin, end in histories.pauses]
    row("pauses of the machine", len(pauses), f"the longest {max(pauses, default=0):.0f} ms: no process ran")
    turns = histories.longest_reset
    row(
        "longest wait of a reset",
        f"{turns.rest / 1e6:.0f} ms",
        f"for other resets, stopped ones included: {turns.text}",
    )
    stall = histories.witness.longest_stall / 1e6
    row("longest stop of a holder", f"{stall:.0f} ms", "of the write lock, as seen every 40 ms")
    row("most processes at once", watch.peak)
    row("/dev/shm at most", f"{watch.peak_reserved / 2**20:.1f} MiB")
    for name, value in left.figures.items():
        row(name, value)
    print()
    by_kind = Counter(what for what, _ in found)
    for what in _VIOLATIONS:
        row(what, by_kind.pop(what, 0))
    for what, n in by_kind.items():
        row(what, n)
    print()
    if not found:
        print("soak: no violation")
        return
    in_detail(found)
    print(
        f"soak: VIOLATIONS; again: python -m tests.soak --seconds {options.seconds:g} --processes {options.processes}"
        f" --seed {options.seed} --memory-limit '{options.memory_limit}' --kills {options.kills:g}"
        f" --stops {options.stops:g}{' --no-signals' if options.no_signals else ''}",
        flush=True,
    )
    sys.stdout.flush()
