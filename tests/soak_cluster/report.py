"""The table at the end, and what is wrong in detail."""

from __future__ import annotations

import re
from collections import Counter

from tests.soak.report import in_detail

from .histories import Histories
from .judge import Judge
from .run import Run

#: Always in the table, with 0 when there is none.
_VIOLATIONS = ("value", "stamp", "P2", "source", "once on the host", "once in the cluster", "hang", "error", "crash")
_AFTERWARDS = ("not well", "once", "verify", "leak", "left behind")


def table(run: Run, histories: Histories, judge: Judge, seconds: float, again: str) -> int:
    """Print it; the number of violations."""
    counts = judge.counts
    stats: Counter[str] = Counter()
    bypasses: Counter[str] = Counter()
    for found in run.sound.values():
        for each in found.values():
            stats.update(each["stats"])
            bypasses.update(each["bypasses"])

    def row(name: str, value: object, note: str = "") -> None:
        shown = f"{value:,}" if isinstance(value, int) else str(value)
        print(f"  {name:<28}{shown:>12}  {note}".rstrip())

    def listed(of: Counter[str]) -> str:
        return ", ".join(f"{name} {number:,}" for name, number in sorted(of.items()) if number)

    print()
    row("seconds", f"{seconds:.0f}", f"{run.episodes} episodes, {run.probes} probes")
    row("calls", counts["calls"], f"{counts['compared with resets']:,} compared with resets of their host")
    row("values, failures, none", counts["value"], f"{counts['failure']:,}, {counts['nothing']:,}")
    row("hits, of them hot", stats["hits"] + stats["hot_hits"], f"{stats['hot_hits']:,}; of the living and as counted")
    row("computations", counts["computations"], f"{counts['without a ticket']:,} of them without a ticket")
    row("again on a host", judge.again_on_host.total(), listed(judge.again_on_host))
    row("again in the whole cluster", judge.again_in_cluster.total(), listed(judge.again_in_cluster))
    row("lives", histories.lives)
    faults = Counter(what for what, *_ in histories.faults)
    row("faults", faults.total(), listed(faults))
    resets = sum(map(len, histories.resets.values()))
    row(
        "resets",
        resets,
        f"in force {stats['resets']:,} times on {len(run.hosts)} hosts; refused: {listed(histories.refused)}",
    )
    row("takeovers", stats["takeovers"])
    row("stale, dropped", stats["stale"])
    row("waits", stats["waits"], f"{stats['timeouts']:,} until the call's timeout")
    row("bypasses", bypasses.total(), listed(bypasses))
    logs = "".join(run.resumed.values())
    lost = len(re.findall("is not connected any more|is lost \\(", logs))
    again = len(re.findall("is live, at|connected with the engine", logs))
    row("lost, and live again", lost, f"{again:,}, nodes or the engine, as the sidecars say")
    row("parted by themselves", run.parted, "times that are not judged as whole, since the machine stood still")
    well = sorted(run.waits) or [0.0]
    row("well again after", f"{well[len(well) // 2]:.2f} s", f"median; at most {well[-1]:.2f} s after all was mended")
    row("older than a reset elsewhere", len(judge.elsewhere), "that had been applied, and lost to a concurrent one")
    row("longest wait", f"{judge.longest[0]:.1f} s", f"without a reason: {judge.longest[1]}")
    print()
    found = [*run.found, *judge.violations]
    kinds = Counter(what for what, _ in found)
    for what in (*_VIOLATIONS, *_AFTERWARDS):
        row(what, kinds.pop(what, 0))
    for what, number in kinds.items():
        row(what, number)
    print()
    in_detail(found)
    print(f"soak of a cluster: VIOLATIONS; again: {again}" if found else "soak of a cluster: no violation", flush=True)
    return len(found)
