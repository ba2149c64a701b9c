"""What every question needs: a namespace of its own, a look at the room left, the form of a result."""

from __future__ import annotations

import os
import shutil
import statistics
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, TypeVar

import coopshm

__all__ = ["MIB", "Bench", "CacheSettings", "Config", "Sample", "Table", "clean", "median", "quartiles"]

T = TypeVar("T")

MIB: Final = 1024 * 1024

CacheSettings = Mapping[str, "str | int"]
Config = Mapping[str, object]

_SHM: Final = Path("/dev/shm")

#: Rounds that are worth it however long they take.
_LEAST_ROUNDS: Final = 3


class Sample(NamedTuple):
    """What was measured of one contender in one case."""

    case: str
    contender: str
    values: Sequence[float]  # one a round, in the order of the rounds


class Table(NamedTuple):
    """Samples that belong side by side."""

    title: str
    unit: str  # of the values, per what: "ns a call"
    samples: Sequence[Sample]
    baseline: str | None = None  # the contender that the others are multiples of, case by case
    case_is: str = "case"  # heads the column of cases
    contender_is: str = "contender"
    show: tuple[str, ...] = ("median", "quartiles")  # columns, see report.py
    plot: str | None = None  # a picture of it, see plots.py


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """Return the first and the third quartile."""
    if len(values) < 2:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


class Bench:
    """One run of one question: a namespace that nobody else uses, removed at the end.

    Attributes:
        quick: a smoke run; the figures are worthless.
        peers: measure other libraries, too.
        seconds: that all rounds together should take at most.
        namespace: of all caches of the run.
        config: what `coopshm.configure` was called with; a child process calls it with the same.
        notes: what the reader of the figures has to know, in the order it turned up.
    """

    def __init__(self, quick: bool, peers: bool = True, seconds: float = 60.0) -> None:
        self.quick = quick
        self.peers = peers
        self.seconds = seconds
        self.namespace = f"{_prefix(os.getpid())}{uuid.uuid4().hex[:8]}"
        self.config: Config = {"namespace": self.namespace}
        self.notes: list[str] = []

    def __enter__(self) -> Bench:
        # They would override what a question configures; child processes get the environment as it is here.
        for name in ("COOPSHM_CONFIG", "COOPSHM_NAMESPACE"):
            os.environ.pop(name, None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        clean(os.getpid())

    def pick(self, full: T, quick: T) -> T:
        """Return what suits the kind of run: numbers of rounds, sizes."""
        return quick if self.quick else full

    def rounds(self, full: int, quick: int, part: float = 1.0) -> Iterator[int]:
        """Yield the number of each round; fewer than `full` when `part` of the question's time is spent."""
        wanted = self.pick(full, quick)
        enough = time.monotonic() + part * self.seconds
        for number in range(wanted):
            if number >= _LEAST_ROUNDS and time.monotonic() > enough:
                self.note("some of the tables have fewer rounds than they should have, since the time was up")
                return
            yield number

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def configure(self, **caches: CacheSettings) -> None:
        """Configure all caches of the run. To be called once: what is open stays as it was."""
        self.config = {"namespace": self.namespace, "caches": caches}
        coopshm.configure(self.config)

    def has_room(self, n_bytes: int, what: str) -> bool:
        """Is there memory for `n_bytes` more in /dev/shm? If not, a note says that `what` was left out."""
        if n_bytes <= room():
            return True
        self.note(f"left out, since /dev/shm or memory has less than {n_bytes // MIB} MiB to spare: {what}")
        return False


def clean(pid: int) -> None:
    """Remove what the run in process `pid` has in /dev/shm: files of coopshm and of peers, the folder of servers."""
    for path in _SHM.glob(f"*{_prefix(pid)}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _prefix(pid: int) -> str:
    return f"bench-{pid}-"


def room() -> int:
    """Return how many bytes of /dev/shm can be taken without driving the machine into a corner."""
    shm = os.statvfs(_SHM)
    available = shm.f_bavail * shm.f_frsize
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            available = min(available, int(rest.split()[0]) * 1024)
    return available * 3 // 4
