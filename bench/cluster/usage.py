"""What a process takes, as the kernel counts it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

__all__ = ["Cpu", "private_kib", "shared_kib"]

_TICKS = os.sysconf("SC_CLK_TCK")


def _rollup(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}


def private_kib(pid: int) -> int:
    """Its proportional set size, without what it shares of segments."""
    sizes = _rollup(pid)
    return sizes["Pss"] - sizes["Pss_Shmem"]


def shared_kib(pid: int) -> int:
    """Its part of the segments."""
    return _rollup(pid)["Pss_Shmem"]


class Cpu(NamedTuple):
    """Processor time of a process up to a moment, in seconds."""

    pid: int
    used: float
    at: float

    @classmethod
    def of(cls, pid: int) -> Cpu:
        # All of its threads, those that have ended as well; in ticks of 10 ms.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return cls(pid, (int(fields[11]) + int(fields[12])) / _TICKS, time.monotonic())

    def since(self) -> float:
        """Seconds of processor time from then to now."""
        return Cpu.of(self.pid).used - self.used

    def percent(self) -> float:
        """Of one core, from then to now."""
        return 100 * self.since() / (time.monotonic() - self.at)
