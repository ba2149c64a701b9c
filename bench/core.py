"""what do hit, miss, view and reset cost in C alone?

core.c, linked with csrc/*.c and compiled by the system's compiler with -O2, does each in a loop: no Python,
no encoding of keys and values. Keys have 16 bytes. "find" is csm_find: hash, probe, compare the key; "hit
of 1 KiB" is what a whole hit of the Python layer does in shared memory, the copy included; "store" is claim
and publish, on pages that the segment has already; "miss" is a find before a store. The loop around a call
is not subtracted, it takes less than a nanosecond. A reset is one call after so many entries were stored,
so each of its rounds has a single call in it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .common import MIB, Bench, Sample, Table

ROOT = Path(__file__).parent.parent

#: Memory that core.c needs for its caches, in bytes, without the one of BIG entries: 110 MiB of small values
#: and 101 MiB of large ones, what is copied into it, and the index.
NEEDS = 512 * MIB
#: What an entry of 16 bytes takes, key, index and all, and as much again for safety.
_ENTRY = 2 * 112


def build() -> Path:
    """Return core.c, compiled."""
    return compiled_with_core("core")


def compiled_with_core(name: str) -> Path:
    """Return bench/NAME.c, compiled and linked with csrc/*.c."""
    csrc = ROOT / "csrc"
    return compiled(name, [ROOT / "bench" / f"{name}.c", *sorted(csrc.glob("*.c"))], [f"-I{csrc}", "-pthread"], "-lrt")


def build_marks() -> Path:
    """Return marks.c, compiled for ctypes."""
    return compiled("marks.so", [ROOT / "bench" / "marks.c"], ["-shared", "-fPIC"])


def compiled(name: str, sources: Sequence[Path], flags: Sequence[str], *libraries: str) -> Path:
    """Compile `sources`, if anything they are made of is newer than the program `name`; return the program."""
    program = ROOT / "build" / "bench" / name
    made_of = [*sources, *(ROOT / "csrc").glob("*.h"), *(ROOT / "bench").glob("*.h"), Path(__file__)]
    if not program.exists() or program.stat().st_mtime < max(path.stat().st_mtime for path in made_of):
        program.parent.mkdir(parents=True, exist_ok=True)
        # Renamed when it is complete: another run may be about to start the one that is there.
        new = program.with_name(f"{name}.{os.getpid()}")
        command = [os.environ.get("CC", "cc"), "-std=gnu11", "-O2", "-Wall", "-Wextra", *flags, "-o", str(new)]
        subprocess.run([*command, *map(str, sources), *libraries], check=True)
        new.replace(program)
    return program


def object_name(bench: Bench) -> str:
    """What the names of the program's shm objects begin with; `bench` removes what a kill leaves."""
    return f"/coopshm:{bench.namespace}:core"


def run(bench: Bench) -> list[Table]:
    if not bench.has_room(NEEDS, "everything"):
        return []
    big = bench.pick(10**7, 0)
    while big > 10**5 and not bench.has_room(NEEDS + big * _ENTRY, f"the reset of {big:,} entries"):
        big //= 10
    rounds, batch = bench.pick(21, 2), bench.pick(200_000, 2_000)
    command = [str(build()), object_name(bench), "time", str(rounds), str(batch), str(max(big, 1024))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    values: dict[str, list[float]] = {}
    for line in done.stdout.splitlines():
        case, nanoseconds = line.split("\t")
        values.setdefault(case, []).append(float(nanoseconds))
    samples = [Sample(case, "C", values[case]) for case in sorted(values, key=_order)]
    show = ("median", "quartiles", "n")
    return [Table("In C", "ns a call", samples, contender_is="in", show=show, plot="bars")]


def _order(case: str) -> tuple[int, int]:
    """Rounds are interleaved, so the lines do not begin with the first case."""
    kinds = ("find", "hit", "view", "store", "miss", "reset")
    digits = "".join(letter for letter in case if letter.isdigit())
    return kinds.index(case.split()[0].rstrip(",")), int(digits or 0)
