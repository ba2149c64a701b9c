"""Batches of calls, timed in interleaved rounds.

A case is a Python statement. A batch runs it as often as takes some milliseconds, in timeit's loop, without
garbage collection, between two looks at time.perf_counter_ns(). A round times one batch of every case, and
each round starts with another case, so that whatever the machine does meanwhile hits all alike. What the
statement holds besides the call (at least the loop itself) is timed in each round too; its median is
subtracted.

A case may also live in another process, one that uWSGI started for instance: `Remote` stands for it here, and
has it time a batch when it is its turn. Nothing else runs here meanwhile.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter_ns

from .common import Bench, Sample, median
from .procs import Asked

__all__ = ["Order", "Remote", "Timed", "attend", "measure", "note_loops"]

#: The shortest batch, in nanoseconds: the clock's resolution and an interrupt are small beside it.
_BATCH_NS = 5_000_000
_QUICK_BATCH_NS = 500_000


@dataclass(eq=False)
class Timed:
    """One contender in one case.

    Attributes:
        statement: what is timed, one call.
        names: its global names.
        before: called before each batch, untimed, with the number of calls in it.
        loop: what of the statement does not count.
        most: how many calls a batch may have, if not any number.
        optional: if it fails, it is left out and a note says why.
        calls: how many a batch has; found by `measure`.
    """

    case: str
    contender: str
    statement: str
    names: dict[str, object]
    before: Callable[[int], object] | None = None
    loop: str = "pass"
    most: int | None = None
    optional: bool = False
    calls: int = 1
    _values: list[float] = field(default_factory=list)
    _loop_values: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._timer = timeit.Timer(self.statement, timer=perf_counter_ns, globals=self.names)
        self._loop_timer = timeit.Timer(self.loop, timer=perf_counter_ns, globals=self.names)

    def calibrate(self, batch_ns: int) -> None:
        """Find how many calls fill a batch. This also warms up."""
        while True:
            took = self.batch() * self.calls
            if took >= batch_ns or self.calls == self.most:
                return
            wanted = self.calls * min(10.0, 1.2 * batch_ns / max(took, 1.0))
            self.calls = min(int(wanted) + 1, self.most or int(wanted) + 1)

    def round(self) -> None:
        self._loop_values.append(self.batch(loop=True))
        self._values.append(self.batch())

    def sample(self) -> Sample:
        loop = median(self._loop_values)
        return Sample(self.case, self.contender, [value - loop for value in self._values])

    @property
    def measured(self) -> bool:
        return bool(self._values)

    def loop_ns(self) -> float:
        return median(self._loop_values)

    def batch(self, loop: bool = False) -> float:
        """Return the nanoseconds a call took, or the loop alone."""
        if self.before:
            self.before(self.calls)
        return (self._loop_timer if loop else self._timer).timeit(self.calls) / self.calls


#: Which case, how many calls, the loop alone?
Order = tuple[str, int, bool]


class Remote(Timed):
    """A case in a process that runs `attend`; `name` is what that process knows it by."""

    def __init__(self, case: str, contender: str, worker: Asked[Order, float], name: str, loop: str = "pass") -> None:
        super().__init__(case, contender, "pass", {}, loop=loop, optional=True)
        self._worker = worker
        self._name = name

    def batch(self, loop: bool = False) -> float:
        self._worker.send((self._name, self.calls, loop))
        return self._worker.receive()


def attend(make: Callable[[], Callable[[str], Timed]]) -> Callable[[Order], float]:
    """Return what times batches by order, in a process of its own. `make()(name)` gives the case of that name."""
    named, cases = make(), dict[str, Timed]()

    def answer(order: Order) -> float:
        name, calls, loop = order
        if name not in cases:
            cases[name] = named(name)
        cases[name].calls = calls
        return cases[name].batch(loop)

    return answer


def measure(bench: Bench, rounds: Iterable[int], *groups: Sequence[Timed]) -> list[list[Sample]]:
    """Time all cases of all groups, once a round; return each group's samples, in ns a call."""
    batch_ns = bench.pick(_BATCH_NS, _QUICK_BATCH_NS)
    cases = [case for group in groups for case in group]
    cases = [case for case in cases if _goes_well(bench, case, partial(case.calibrate, batch_ns))]
    failed: list[Timed] = []
    for number in rounds:
        for at in range(len(cases)):
            case = cases[(at + number) % len(cases)]
            if case not in failed and not _goes_well(bench, case, case.round):
                failed.append(case)
    good = [case for case in cases if case not in failed]
    return [[case.sample() for case in group if case in good] for group in groups]


def note_loops(bench: Bench, *groups: Sequence[Timed]) -> None:
    """Say what was subtracted."""
    cases = [case for group in groups for case in group if case.measured]
    for loop in dict.fromkeys(case.loop for case in cases):
        costs = [case.loop_ns() for case in cases if case.loop == loop]
        bench.note(f"subtracted: what the loop takes with `{loop}` in it, {median(costs):.1f} ns a call")


def _goes_well(bench: Bench, case: Timed, action: Callable[[], object]) -> bool:
    try:
        action()
    except Exception as exc:
        if not case.optional:
            raise
        lines = str(exc).strip().splitlines()
        bench.note(f"left out: {case.contender}, {case.case}: {type(exc).__name__}: {lines[-1] if lines else ''}")
        return False
    return True
