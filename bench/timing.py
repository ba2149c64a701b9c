"""Batches of calls, timed in interleaved rounds.

A case is a Python statement. A batch runs it as often as takes some milliseconds, in timeit's loop, without
garbage collection, between two looks at time.perf_counter_ns(). A round times one batch of every case, and
each round starts with another case, so that whatever the machine does meanwhile hits all alike. What the
statement holds besides the call (at least the loop itself) is timed in each round too; its median is
subtracted.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter_ns

from .common import Bench, Sample, median

__all__ = ["Timed", "measure"]

#: The shortest batch, in nanoseconds: the clock's resolution and an interrupt are small beside it.
_BATCH_NS = 20_000_000
_QUICK_BATCH_NS = 500_000


@dataclass
class Timed:
    """One contender in one case.

    Attributes:
        statement: what is timed, one call.
        names: its global names.
        before: called before each batch, untimed, with the number of calls in it.
        loop: what of the statement does not count.
        most: how many calls a batch may have, if not any number.
        calls: how many a batch has; found by `measure`.
    """

    case: str
    contender: str
    statement: str
    names: dict[str, object]
    before: Callable[[int], object] | None = None
    loop: str = "pass"
    most: int | None = None
    calls: int = 1
    _values: list[float] = field(default_factory=list)
    _loop_values: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._timer = timeit.Timer(self.statement, timer=perf_counter_ns, globals=self.names)
        self._loop_timer = timeit.Timer(self.loop, timer=perf_counter_ns, globals=self.names)

    def calibrate(self, batch_ns: int) -> None:
        """Find how many calls fill a batch. This also warms up."""
        while True:
            took = self._batch(self._timer) * self.calls
            if took >= batch_ns or self.calls == self.most:
                return
            wanted = self.calls * min(10.0, 1.2 * batch_ns / max(took, 1.0))
            self.calls = min(int(wanted) + 1, self.most or int(wanted) + 1)

    def round(self) -> None:
        self._loop_values.append(self._batch(self._loop_timer))
        self._values.append(self._batch(self._timer))

    def sample(self) -> Sample:
        loop = median(self._loop_values)
        return Sample(self.case, self.contender, [value - loop for value in self._values])

    def loop_ns(self) -> float:
        return median(self._loop_values)

    def _batch(self, timer: timeit.Timer) -> float:
        """Return the nanoseconds a call took."""
        if self.before:
            self.before(self.calls)
        return timer.timeit(self.calls) / self.calls


def measure(bench: Bench, rounds: int, *groups: Sequence[Timed]) -> list[list[Sample]]:
    """Time all cases of all groups, `rounds` times each; return each group's samples, in ns a call."""
    batch_ns = bench.pick(_BATCH_NS, _QUICK_BATCH_NS)
    cases = [case for group in groups for case in group]
    for case in cases:
        case.calibrate(batch_ns)
    for number in range(rounds):
        for at in range(len(cases)):
            cases[(at + number) % len(cases)].round()
    for loop in dict.fromkeys(case.loop for case in cases):
        costs = [case.loop_ns() for case in cases if case.loop == loop]
        bench.note(f"subtracted: what the loop takes with `{loop}` in it, {median(costs):.1f} ns a call")
    return [[case.sample() for case in group] for group in groups]
