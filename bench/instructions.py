"""how many instructions do hit, miss and reset take, in C and in Python?

A figure without noise, for comparing commits: neither the machine's load nor its clock changes it;
compiler, C library and Python do. Valgrind's callgrind runs a program that does the same N times, and once
more with a larger N; the difference of the instructions, divided by that of the N, is the call's. The
kernel's instructions, such as those of a system call, are not in it, so a call that makes system calls
costs more than its figure tells. For C the program is core.c (see core). For Python it is the interpreter,
with `Cache.cached` and a lambda that returns a ready-made value; making the lambda, and the loop, count.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from . import core
from .common import Bench, Sample, Table

C_CASES = (
    "find, hit, the same key",
    "find, miss",
    "hit of 1 KiB: generation, find, copy, generation",
    "view of 1 KiB: acquire, release",
    "store 0 B: claim, publish",
    "store 1 KiB: claim, publish",
    "miss of 1 KiB: find, claim, publish",
    "reset of an empty cache",
)

#: What is done N times, as a statement; in the loop with it: cache, off, lru, n (0 to N - 1).
PYTHON_CASES = {
    "hit, functools.lru_cache": "lru('product:42')",
    "hit, int": "cache.cached('product:42', lambda: 1)",
    "hit, bytes of 1 KiB": "cache.cached('product:43', lambda: kib)",
    "hit, bytes of 1 KiB, key a tuple": "cache.cached(('product', 43), lambda: kib)",
    "hit, bytes of 1 KiB, hot objects: off": "off.cached('product:43', lambda: kib)",
    "hit, dict of 4 items": "cache.cached('product:44', lambda: four)",
    "miss, bytes of 1 KiB": "cache.cached(f'product:{n + 100}', lambda: kib)",
    "reset": "cache.reset()",
}

_SCRIPT = """
import functools, sys
import coopshm
coopshm.configure({{"namespace": {namespace!r}, "caches": {{"hot": {{}}, "off": {{"hot_objects": False}}}}}})
cache, off = coopshm.open("hot"), coopshm.open("off")
kib, four = b"x" * 1024, {{"id": 42, "name": "product 42", "price": 52.5, "tags": ["new", "sale"]}}
lru = functools.lru_cache(maxsize=1024)(lambda key: 1)
def run(times):
    for n in range(times):
        {statement}
run(int(sys.argv[1]))
"""


def run(bench: Bench) -> list[Table]:
    if shutil.which("valgrind") is None:
        bench.note("left out: valgrind, whose callgrind counts the instructions, is not installed")
        return []
    tables = []
    if bench.has_room(core.NEEDS, "instructions in C"):
        program, name = str(core.build()), core.object_name(bench)
        cases = bench.pick(C_CASES, C_CASES[:1])
        commands = [(case, [program, name, "repeat", case]) for case in cases]
        tables.append(_table("In C", [_sample(case, "C", command, 100, 1100) for case, command in commands]))
    if not bench.quick:
        samples = []
        for case, statement in PYTHON_CASES.items():
            script = _SCRIPT.format(namespace=bench.namespace, statement=statement)
            command = [sys.executable, "-c", script]
            samples.append(_sample(case, "Python", command, 500, 2500))
        tables.append(_table("In Python", samples))
    return tables


def _table(title: str, samples: list[Sample]) -> Table:
    return Table(title, "instructions a call", samples, contender_is="in", show=("median",))


def _sample(case: str, contender: str, command: Sequence[str], few: int, many: int) -> Sample:
    """Count `command`, whose last argument is how often to do the case."""
    counts = [_instructions([*command, str(n)]) for n in (few, many)]
    return Sample(case, contender, [(counts[1] - counts[0]) / (many - few)])


def _instructions(command: Sequence[str]) -> int:
    """Return how many instructions the process executed."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind.out"
        callgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"]
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        command = [*callgrind, *command]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"failed under valgrind: {command[3:]}\n{done.stderr}")
        for line in out.read_text().splitlines():
            what, _, count = line.partition(":")
            if what in ("totals", "summary"):
                return int(count.split()[0])
    raise RuntimeError("callgrind's output has no total")
