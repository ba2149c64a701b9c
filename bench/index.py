"""what does a look-up cost in an index that is nearly full, and in one of ten million entries?

index.c, linked with csrc/*.c and compiled by the system's compiler with -O2, calls csm_find for keys of 16
bytes: ones that are stored, in random order, and ones that are not. The caches that are filled to a part of
`max_items` have 10^5 of them, so that what they differ in is how far one has to probe, and not the memory;
`max_items` itself is 80 % of the slots, which is as full as an index gets. The large cache lies in memory that no
processor caches. A look-up there cannot cost less than two loads, the slot and then the entry; what two such
loads take is timed beside it, in a region as large, with pages of the same kind.
"""

from __future__ import annotations

import subprocess

from . import core
from .common import Bench, Sample, Table

_ITEMS = 10**5
_ENTRY = 2 * 128  # bytes of the large cache, index and all, and of the region to compare it with


def run(bench: Bench) -> list[Table]:
    big = bench.pick(10**7, 0)
    while big > 10**5 and not bench.has_room(big * _ENTRY * 2, f"{big:,} entries"):
        big //= 10
    rounds, batch = bench.pick(9, 2), bench.pick(300_000, 2000)
    program = core.compiled_with_core("index")
    name = core.object_name(bench)
    command = [str(program), name, str(rounds), str(batch), str(bench.pick(_ITEMS, 1000)), str(big)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    values: dict[str, list[float]] = {}
    for line in done.stdout.partition("warm\n")[2].splitlines():
        case, nanoseconds = line.split("\t")
        values.setdefault(case.replace(str(big), f"{big:,}") if big else case, []).append(float(nanoseconds))
    samples = [Sample(case, "C", values[case]) for case in sorted(values, key=_order)]
    show = ("median", "quartiles", "n")
    return [Table("A look-up in C", "ns a call", samples, contender_is="in", show=show, plot="bars")]


def _order(case: str) -> tuple[bool, bool, int]:
    digits = "".join(letter for letter in case if letter.isdigit())
    return case.startswith("two"), case.startswith("miss"), int(digits or 0)
