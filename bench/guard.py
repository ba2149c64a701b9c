"""`python -m bench.guard`: does a hit take more instructions than the committed results say?

No timed test: instructions are counted by callgrind, so the same source, compiler and C library (and, for a hit from
Python, the same interpreter) give the same figures on a busy machine as on a quiet one. A figure that is higher by more
than the tolerance fails. Where the committed ones were taken with other tools, differences are shown and fail nothing.
After a change that is meant to cost something: `python -m bench instructions`, and commit the result.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

__all__ = ["committed", "main"]

_COMMITTED = Path(__file__).parent / "results" / "instructions.json"

#: What a hit consists of, and an atomic more or less is no accident, but the compiler's choice of registers may be.
_TOLERANCE = 4.0
#: The same of a hit from Python, as a part of it: where objects lie, which decides about collisions in the
#: interpreter's tables, depends on the lengths of paths and on what ran before. One more call into Python is several
#: hundred instructions.
_TOLERANCE_PYTHON = 0.04

_C = (
    "find, hit, the same key",
    "find, miss",
    "hit of 1 KiB: generation, find, copy, generation",
    "view of 1 KiB: acquire, release",
)
_PYTHON = (
    "hit, int",
    "hit, int, key a tuple",
    "hit, int, coopshm.cached",
    "hit, bytes of 1 KiB, hot objects: off",
)
#: What the figures depend on besides the source. Of the kernel only the last word of its line, the architecture.
_C_DEPENDS_ON = ("C compiler", "libc", "kernel")
_PYTHON_DEPENDS_ON = (*_C_DEPENDS_ON, "Python", "Python built")


def committed() -> dict[tuple[str, str], float]:
    """Return the instructions in bench/results, by where ("C" or "Python") and case."""
    if not _COMMITTED.exists():
        return {}
    found = {}
    for table in json.loads(_COMMITTED.read_text())["tables"]:
        for sample in table["samples"]:
            if sample["contender"] == "now":
                found[table["title"].removeprefix("In "), sample["case"]] = float(sample["median"])
    return found


def main() -> int:
    from . import machine
    from .common import Bench
    from .instructions import PYTHON_CASES, in_c, in_python

    if shutil.which("valgrind") is None:
        print("guard: valgrind, whose callgrind counts the instructions, is not installed")
        return 0 if os.environ.get("CI") != "true" else 1
    before = committed()
    if not before:
        print(f"guard: {_COMMITTED} has nothing to compare with: run `python -m bench instructions` and commit it")
        return 1
    with Bench(quick=True) as bench:
        now = {("C", case): count for case, count in in_c(bench).items()}
        now.update({("Python", case): count for case, count in in_python(bench, PYTHON_CASES).items()})
    taken_on: Mapping[str, str] = json.loads(_COMMITTED.read_text())["machine"]
    here = machine.describe(peers=False)
    print(f"{'instructions a call':60}{'committed':>11}{'now':>9}{'more':>8}")
    good = [
        _compare("C", _C, before, now, _TOLERANCE, 0.0, _other(_C_DEPENDS_ON, taken_on, here)),
        _compare("Python", _PYTHON, before, now, 0.0, _TOLERANCE_PYTHON, _other(_PYTHON_DEPENDS_ON, taken_on, here)),
    ]
    return 0 if all(good) else 1


def _compare(
    where: str,
    cases: tuple[str, ...],
    before: Mapping[tuple[str, str], float],
    now: Mapping[tuple[str, str], float],
    tolerance: float,
    part: float,
    other: list[str],
) -> bool:
    """Print the cases; return False if one takes more, unless that is another tool's doing."""
    worse = False
    for case in cases:
        at, shown = (where, case), f"{where}: {case}"
        if at not in before:
            print(f"{shown:60}{'-':>11}{now[at]:9.1f}{'':8}  not committed")
            continue
        more = now[at] - before[at]
        too_much = more > tolerance + part * before[at]
        worse = worse or too_much
        print(f"{shown:60}{before[at]:11.1f}{now[at]:9.1f}{more:+8.1f}{'  MORE' if too_much else ''}")
    if worse and other:
        print(f"guard: {where}: the committed figures were taken with another {' and '.join(other)}: no failure")
    return not worse or bool(other)


def _other(names: tuple[str, ...], taken_on: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    def significant(name: str, said: Mapping[str, str]) -> str:
        text = said.get(name, "unknown")
        return text.split()[-1] if name == "kernel" else text

    return [name for name in names if significant(name, taken_on) != significant(name, here)]


if __name__ == "__main__":
    sys.exit(main())
