"""how many instructions do hit, miss and reset take, in C and in Python?

A figure without noise, for comparing commits: neither the machine's load nor its clock changes it;
compiler, C library and Python do. Valgrind's callgrind runs a program that does each case some times, and
then more times; the difference of the instructions, divided by that of the times, is the call's. The
kernel's instructions, such as those of a system call, are not in it, so a call that makes system calls
costs more than its figure tells. For C the program is core.c (see core). For Python it is the interpreter,
with `Cache.cached` and a lambda that returns a ready-made value; making the lambda, and the loop, count.

"more than committed" compares with what the results in the repository said before this run.
`make guard` looks at the hits alone (see guard).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import core
from .common import Bench, Sample, Table
from .guard import committed

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

#: What is done some times, as a statement; in the loop with it: cache, off, lru, n (never the same twice).
PYTHON_CASES = {
    "hit, functools.lru_cache": "lru('product:42')",
    "hit, int": "cache.cached('product:42', lambda: 1)",
    "hit, int, key a tuple": "cache.cached(('product', 42), lambda: 1)",
    "hit, int, coopshm.cached": "coopshm.cached('hot', 'product:42', lambda: 1)",
    "hit, bytes of 1 KiB": "cache.cached('product:43', lambda: kib)",
    "hit, bytes of 1 KiB, hot objects: off": "off.cached('product:43', lambda: kib)",
    "hit, dict of 4 items": "cache.cached('product:44', lambda: four)",
    "miss, bytes of 1 KiB": "cache.cached(f'product:{n + 100}', lambda: kib)",
    "reset": "cache.reset()",
}

_SCRIPT = """
import ctypes, functools, gc, itertools
import coopshm
coopshm.configure({{"namespace": {namespace!r}, "caches": {{"hot": {{}}, "off": {{"hot_objects": False}}}}}})
cache, off = coopshm.open("hot"), coopshm.open("off")
kib, four = b"x" * 1024, {{"id": 42, "name": "product 42", "price": 52.5, "tags": ["new", "sale"]}}
lru = functools.lru_cache(maxsize=1024)(lambda key: 1)
marks = ctypes.CDLL({marks!r})
gc.disable()
numbers = itertools.count()
for name, statement in {cases!r}.items():
    exec(f"def run(times):\\n for n in itertools.islice(numbers, times):\\n  {{statement}}")
    run(100)
    for times in {few}, {many}:
        marks.bench_count()
        run(times)
        marks.bench_counted(name.encode())
"""

_FEW, _MANY = 100, 1100


def run(bench: Bench) -> list[Table]:
    if shutil.which("valgrind") is None:
        bench.note("left out: valgrind, whose callgrind counts the instructions, is not installed")
        return []
    before = committed()
    counted = {"C": in_c(bench)}
    if not bench.quick:
        counted["Python"] = in_python(bench, PYTHON_CASES)
    tables = []
    for where, counts in counted.items():
        samples = []
        for case, count in counts.items():
            samples.append(Sample(case, "now", [count]))
            if (was := before.get((where, case))) is not None:
                samples.append(Sample(case, "more than committed", [count - was]))
        title = f"In {where}"
        tables.append(Table(title, "instructions a call", samples, contender_is="", show=("median",)))
    return tables


def in_c(bench: Bench) -> dict[str, float]:
    """Return instructions a call, by case."""
    command = [str(core.build()), core.object_name(bench), "count", str(_FEW), str(_MANY)]
    counts = _count(command)
    return {case: counts[case] for case in C_CASES}


def in_python(bench: Bench, cases: Mapping[str, str]) -> dict[str, float]:
    """Return instructions a call, by case; they depend a little on the cases before."""
    marks = str(core.build_marks())
    script = _SCRIPT.format(namespace=bench.namespace, marks=marks, cases=dict(cases), few=_FEW, many=_MANY)
    return _count([sys.executable, "-c", script])


def _count(command: Sequence[str]) -> dict[str, float]:
    """Run what counts each case _FEW and _MANY times; return the instructions a call."""
    counted: dict[str, list[int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        callgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out"]
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        done = subprocess.run([*callgrind, *command], env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"failed under valgrind: {command}\n{done.stderr}")
        for part in Path(folder).glob("out.*"):
            head = part.read_text()
            name = re.search(r"^desc: Trigger: Client Request: (.*)$", head, re.MULTILINE)
            total = re.search(r"^summary: (\d+)$", head, re.MULTILINE)
            if name and total:
                counted.setdefault(name[1], []).append(int(total[1]))
    if not counted:
        raise RuntimeError("nothing was counted: has the compiler not found valgrind/callgrind.h?")
    return {name: (max(both) - min(both)) / (_MANY - _FEW) for name, both in counted.items()}
