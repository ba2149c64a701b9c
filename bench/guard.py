"""`python -m bench.guard`: does a hit in C take more instructions than the committed results say?

No timed test: instructions are counted by callgrind, so the same source, compiler and C library give the same figures
on a busy machine as on a quiet one. A figure that is higher by more than the tolerance fails. Where the committed ones
were taken with another compiler or C library, differences are shown and fail nothing.
After a change that is meant to cost something: `python -m bench instructions`, and commit the result.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

__all__ = ["committed", "main"]

_COMMITTED = Path(__file__).parent / "results" / "instructions.json"

#: What a hit consists of, and an atomic more or less is no accident, but the compiler's choice of registers may be.
_TOLERANCE = 4.0
_GUARDED = (
    "find, hit, the same key",
    "find, miss",
    "hit of 1 KiB: generation, find, copy, generation",
    "view of 1 KiB: acquire, release",
)
#: What the figures depend on besides the source.
_DEPENDS_ON = ("C compiler", "libc", "kernel")


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
    from .instructions import in_c

    if shutil.which("valgrind") is None:
        print("guard: valgrind, whose callgrind counts the instructions, is not installed")
        return 0 if os.environ.get("CI") != "true" else 1
    before = committed()
    if not before:
        print(f"guard: there is no {_COMMITTED.name} to compare with")
        return 1
    with Bench(quick=True) as bench:
        now = in_c(bench)
    worse = False
    print(f"{'instructions a call':52}{'committed':>11}{'now':>9}{'more':>8}")
    for case in _GUARDED:
        was, more = before[("C", case)], now[case] - before[("C", case)]
        worse = worse or more > _TOLERANCE
        print(f"{case:52}{was:11.1f}{now[case]:9.1f}{more:+8.1f}{'  MORE' if more > _TOLERANCE else ''}")
    taken_on = json.loads(_COMMITTED.read_text())["machine"]
    here = machine.describe()
    # The kernel's line ends in the machine's architecture; its release does not matter here.
    other = [name for name in _DEPENDS_ON if here[name].split()[-1] != taken_on[name].split()[-1]]
    if worse and other:
        print(f"guard: the committed figures were taken with another {' and '.join(other)}, so this is no failure")
        return 0
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
