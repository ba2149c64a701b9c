#!/usr/bin/env python3
"""Runs the checker on the model: every case must be exhausted without a fault, every broken variant found faulty.

    python3 csrc/model/run.py                all of checks.txt
    python3 csrc/model/run.py --quick        without the larger cases: what CI runs
    python3 csrc/model/run.py NAME...        these only
    python3 csrc/model/run.py --trace NAME   the shortest way to the fault of a variant (or case), step by step

Needs spin and gcc. README.md explains the model. Fails also if some statement of the model is reached in no case: what
is never executed was never checked.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
from typing import NamedTuple

HERE = pathlib.Path(__file__).resolve().parent
BUILD = HERE.parents[1] / "build" / "model"

NO_FAULT = "no fault"

#: Megabytes for the states of one check of the quick set.
QUICK_MEMORY = 1400


class Check(NamedTuple):
    """A line of checks.txt."""

    kind: str  # quick, full, variants
    name: str
    size: list[str]
    expect: str  # NO_FAULT, or the fault that must be found
    what: str

    @property
    def is_case(self) -> bool:
        return self.kind != "variants"

    @property
    def definitions(self) -> list[str]:
        return [f"-D{word}" for word in [*self.size, *([] if self.is_case else [self.name])]]

    @property
    def pan(self) -> list[str]:
        """The checker's arguments: how deep; and for liveness, cycles under weak fairness."""
        return ["./pan", "-m1000000", *(["-a", "-f"] if self.is_liveness else [])]

    @property
    def is_liveness(self) -> bool:
        return "LIVENESS" in self.size


class Result(NamedTuple):
    check: Check
    verdict: str  # NO_FAULT, the fault found, or why there is no answer
    states: int = 0
    megabytes: float = 0
    seconds: float = 0  # of one processor
    reached: frozenset[str] = frozenset()  # statements of the model
    every: frozenset[str] = frozenset()

    @property
    def passed(self) -> bool:
        return self.verdict == self.check.expect


def read_checks() -> dict[str, Check]:
    checks, kind = {}, ""
    for line in (HERE / "checks.txt").read_text().splitlines():
        if line.startswith("["):
            kind = line[1 : line.index("]")]
        elif "|" in line and not line.startswith("#"):
            name, size, expect, what = (column.strip() for column in line.split("|"))
            checks[name] = Check(kind, name, size.split(), expect, what)
    return checks


def build(check: Check, where: pathlib.Path, memory: int, *flags: str) -> None:
    shutil.rmtree(where, ignore_errors=True)
    where.mkdir(parents=True)
    spin = ["spin", *check.definitions, "-a", str(HERE / "coop.pml")]
    made = subprocess.run(spin, cwd=where, capture_output=True, text=True)
    if made.returncode != 0 or not (where / "pan.c").exists():
        raise RuntimeError(f"{' '.join(spin)}\n{made.stdout}{made.stderr}")
    # COLLAPSE stores states in a compressed form, and loses nothing. NFAIR: enough for fairness among five processes.
    options = ["-DCOLLAPSE", f"-DMEMLIM={memory}", "-DNFAIR=3" if check.is_liveness else "-DSAFETY", *flags]
    level = "-O2" if check.kind == "full" else "-O0"  # compiling takes longer than most searches
    subprocess.run(["gcc", level, "-w", *options, "-o", "pan", "pan.c"], cwd=where, check=True)


#: Choices of the macros in death.pml, which stand everywhere: not each can be met in the smaller cases.
_DEATH = re.compile(r"\(*!?\(*(crashes_left|stops_left|stopped|alive)\b|\(1\)|D_STEP|-end-")


def statements_of(where: pathlib.Path, output: str) -> tuple[frozenset[str], frozenset[str]]:
    """Statements of the model that were reached, and all. pan gives the line, but not which of the included files it is
    in, so a statement is known by its line and how it begins (its constants are those of the size)."""
    table = subprocess.run(["./pan", "-d"], cwd=where, capture_output=True, text=True).stdout
    states: dict[tuple[str, str], set[str]] = {}
    process = ""
    for line in table.splitlines():
        if line.startswith("proctype "):
            process = line.split()[1]
        elif (found := re.match(r"\s*state\s+(\d+) -.*\] \S+?:(\d+) => (.*)", line)) and not _DEATH.match(found[3]):
            states.setdefault((process, found[1]), set()).add(f"{found[2]}: {re.sub('[0-9]+', '#', found[3])[:14]}")
    unreached = set()
    for line in output.splitlines():
        if found := re.match(r"unreached in proctype (\w+)", line):
            process = found[1]
        elif line.startswith("unreached in"):
            process = ""
        elif found := re.match(r"\s+\S+:\d+, state (\d+),", line):
            unreached.add((process, found[1]))
    every = frozenset[str]().union(*states.values())
    return frozenset[str]().union(*(names for at, names in states.items() if at not in unreached)), every


def verdict_of(output: str) -> str:
    if found := re.search(r"assertion violated\s+!?\(+(\w+)", output):
        return found[1]
    for fault in ("invalid end state", "acceptance cycle"):
        if re.search(rf"^pan:\d+: {fault}", output, re.M):
            return fault
    for trouble in ("max search depth too small", "reached -DMEMLIM", "out of memory", "Search not completed"):
        if trouble in output:
            return f"not exhausted ({trouble})"
    return NO_FAULT if re.search(r"errors: 0$", output, re.M) else "no answer"


def run(check: Check, memory: int) -> Result:
    where = BUILD / check.name
    try:
        build(check, where, memory)
    except (RuntimeError, subprocess.CalledProcessError) as exc:
        return Result(check, f"not built: {exc}")
    with (where / "output").open("wb") as log:
        pan = subprocess.Popen(check.pan, cwd=where, stdout=log, stderr=log)
        _, pan.returncode, usage = os.wait4(pan.pid, 0)
    output = (where / "output").read_text(errors="replace")
    verdict = verdict_of(output)
    states = re.search(r"(\d+) states, stored", output)
    megabytes = re.search(r"([\d.]+)\s+total actual memory usage", output)
    return Result(
        check,
        verdict,
        int(states[1]) if states else 0,
        float(megabytes[1]) if megabytes else 0,
        usage.ru_utime + usage.ru_stime,
        *(statements_of(where, output) if verdict == NO_FAULT else ()),
    )


def trace(check: Check, memory: int) -> int:
    """The shortest way to a fault, found by ever shallower searches (a cycle: the first one found)."""
    where = BUILD / f"trace-{check.name}"
    build(check, where, memory, *([] if check.is_liveness else ["-DREACH"]))
    subprocess.run([*check.pan, *([] if check.is_liveness else ["-i"])], cwd=where, capture_output=True)
    trail = next(where.glob("*.trail"), None)
    if trail is None:
        print(f"{check.name}: no fault")
        return 1
    show = ["spin", *check.definitions, "-k", trail.name, "-p", "-g", "-l", str(HERE / "coop.pml")]
    return subprocess.run(show, cwd=where).returncode


def report(result: Result) -> None:
    check, verdict = result.check, result.verdict
    mark = "ok  " if result.passed else "FAIL"
    cost = f"{result.states:11,} states {result.megabytes:6,.0f} MB {result.seconds:6.1f} s"
    wrong = "" if result.passed else f" (not: {check.expect})"
    print(f"{mark} {check.name:22} {cost}  {verdict + wrong:23}  {check.what} [{' '.join(check.size)}]", flush=True)


def never_reached(results: list[Result]) -> list[str]:
    """Statements that no case reached. Only the quick and the full set as a whole can tell."""
    every = frozenset[str]().union(*(r.every for r in results))
    reached = frozenset[str]().union(*(r.reached for r in results))
    return sorted(every - reached, key=lambda at: int(at.split(":")[0]))


def main() -> int:
    parser = argparse.ArgumentParser(description="Check the model of the core.")
    parser.add_argument("names", nargs="*", help="cases and variants; default: all")
    parser.add_argument("--quick", action="store_true", help="only what CI runs")
    parser.add_argument("--trace", metavar="NAME", help="print the way to the fault of one")
    parser.add_argument("--jobs", type=int, default=0, help="checks at a time; default: one a processor, full set: 1")
    parser.add_argument("--memory", type=int, default=0, help="megabytes for one check")
    args = parser.parse_args()
    known = read_checks()
    for tool in ("spin", "gcc"):
        if shutil.which(tool) is None:
            print(f"run.py: {tool} is not installed; on Debian: apt-get install {tool}", file=sys.stderr)
            return 2
    unknown = {*args.names, *filter(None, [args.trace])} - known.keys()
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    jobs = args.jobs or (len(os.sched_getaffinity(0)) if args.quick else 1)
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    memory = args.memory or (QUICK_MEMORY if args.quick else available * 9 // 10 // jobs)
    if args.trace:
        return trace(known[args.trace], memory)
    every = [check for check in known.values() if not (args.quick and check.kind == "full")]
    checks = [known[name] for name in args.names] or every
    start = time.monotonic()
    results = []
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for result in pool.map(lambda check: run(check, memory), checks):
            report(result)
            results.append(result)
    failed = [r.check.name for r in results if not r.passed]
    unreached = [] if args.names or failed else never_reached(results)
    for at in unreached:
        print(f"FAIL the statement in line {at}... is reached in no case")
    cases = sum(r.check.is_case for r in results)
    print(
        f"{cases} cases and {len(results) - cases} broken variants, {sum(r.states for r in results):,} states, "
        f"{time.monotonic() - start:.0f} s: {'FAILED: ' + ', '.join(failed) if failed else 'all as it should be'}"
    )
    return 1 if failed or unreached else 0


if __name__ == "__main__":
    sys.exit(main())
