"""Histories against the contract.

P2: a value's generation is not older than that of the last reset that had returned before the call's last look at the
generation. A resetter that was killed before it returned promised nothing.

P1: computations with a ticket of the same key and generation come one after the other, and none comes after one that
was stored. Each but the first needs a reason: the one before it was killed, or ended without being stored. One without
a ticket (a bypass) is counted by the product itself.

Hangs: P5 says that a call hangs at most one second on account of processes that are killed or stopped. So of a call's
time all is taken away that has another reason:
    - its process was stopped itself;
    - its process was runnable and had no CPU (the kernel counts that);
    - it computed itself;
    - somebody computed the key that it waited for: slow, stopped or starved meanwhile, which is the same to a waiter;
    - the owner of that computation was stopped or starved when its function had not begun yet; the holder of the write
      lock was starved (witness.py sees both);
    - the whole machine stood still (the process that looks on woke up late, without having waited for a CPU);
    - for a reset: other resets. They take turns, and have a figure of their own.
On an idle machine the reasons are small, on a busy one they grow by just what the machine withholds: the verdict does
not depend on its load. A stopped holder of the lock is no reason, nor is a dead owner. Reasons that may overlap are
counted twice where nobody can tell: a hang that is reported is one.

Records come late: a process may be stopped between a reset's end and writing it down. So everything is judged some
seconds after it happened, when whoever has not written it down yet is dead.
"""

from __future__ import annotations

import bisect
import itertools
import signal
from collections import Counter, defaultdict
from typing import Any, NamedTuple

import numpy as np

from coopshm import _codes, _segment

from . import records
from .intervals import Interval, covered
from .records import ALARM, BEGIN, CALL, CONT, DEAD, END, FORK, HELD, KILL, PUBLISH, RESET, STOP, UNFINISHED, name_of
from .witness import Witness

_STORED, _BUSY = _codes.OK, _segment.lib.CSM_BUSY
_CODES = {getattr(_segment.lib, name): name[4:].lower() for name in ("CSM_STALE", "CSM_FORKED", "CSM_BUSY")}
_CODES |= {
    _segment.lib.CSM_NOT_STORED: "failure or NoCache",
    _segment.lib.CSM_FULL_ARENA: "full",
    _segment.lib.CSM_FULL_ITEMS: "full",
    _segment.lib.CSM_TOO_LARGE: "too large",
    _segment.lib.CSM_NO_SPACE: "no space",
    records.ABANDONED: "left by an exception",
}
_FOREVER = 1 << 63
_LONG_NS = 50_000_000  # calls that are looked at one by one
_LIMIT_NS = 1_000_000_000  # P5


class Hang(NamedTuple):
    rest: int  # nanoseconds without a reason
    text: str


class Computation:
    __slots__ = ("begin", "code", "end", "key", "published", "ticket", "who")

    def __init__(self, who: int, key: int, begin: int, ticket: int) -> None:
        self.who, self.key, self.begin, self.ticket = who, key, begin, ticket
        self.published = self.end = _FOREVER
        self.code: int | None = None  # None: killed in the middle

    def __str__(self) -> str:
        end = "killed" if self.code is None else f"publish at {self.published}, code {self.code}"
        return f"{name_of(self.who)} from {self.begin}, {end}"


class Histories:
    """Takes records in, judges them when they are old enough, counts."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.duplicates: Counter[str] = Counter()
        self.violations: list[tuple[str, str]] = []
        self.longest = Hang(0, "none")
        self.longest_reset = Hang(0, "none")
        self._calls: list[Any] = []
        self._long: list[Any] = []
        self._reset_ends: list[tuple[int, int]] = []
        self._resets: list[tuple[int, int, int]] = []  # begin, end, who
        self._open: dict[tuple[int, int], Computation] = {}
        self._of_who: dict[int, list[Computation]] = defaultdict(list)
        self._of_key: dict[int, list[Computation]] = defaultdict(list)
        self._groups: dict[tuple[int, int], list[Computation]] = defaultdict(list)
        self._stops: dict[int, list[list[int]]] = defaultdict(list)
        self._killed: dict[int, int] = {}
        self.stopped_ns = 0
        self.pauses: list[Interval] = []  # in which the whole machine stood still
        self.witness: Witness | None = None

    # ---- taking in

    def feed(self, batch: Any) -> None:
        calls = batch[batch["kind"] == CALL]
        for how, name in enumerate(records.HOWS):
            self.counts[name] += int((calls["how"] == how).sum())
        for code, name in ((records.FAILURE, "failures"), (records.INTERRUPTED, "interrupted")):
            self.counts[name] += int((calls["code"] == code).sum())
        self._calls.append(calls[calls["generation"] > 0][["look", "generation", "key", "who", "end", "how"]])
        took = (calls["end"] - calls["begin"]).astype(np.int64) - calls["delay"].astype(np.int64) * 1000
        self._long += list(calls[took > _LONG_NS])
        for record in batch[batch["kind"] != CALL]:
            self._take(record)

    def _take(self, record: Any) -> None:
        kind, who, begin, end = int(record["kind"]), int(record["who"]), int(record["begin"]), int(record["end"])
        if kind == BEGIN:
            self.counts["computations"] += 1
            made = Computation(who, int(record["key"]), begin, int(record["generation"]))
            self._open[who, begin] = made
            self._of_who[who].append(made)
            self._of_key[made.key].append(made)
            if made.ticket:
                self._groups[made.key, made.ticket].append(made)
            if who in self._killed:  # after the signal was announced, and before it came
                self._close(who, self._killed[who])
        elif kind == PUBLISH:  # killed after this, it may have published
            publishes = self._open.get((who, begin))
            if publishes:
                publishes.published = int(record["look"])
        elif kind == END:
            ended = self._open.pop((who, begin), None)
            if ended:
                ended.published, ended.end, ended.code = int(record["look"]), end, int(record["code"])
        elif kind == RESET:
            self.counts["resets asked for"] += 1
            self.counts["resets refused (busy)"] += int(record["code"] == 1)
            self._resets.append((begin, end, who))
            if record["generation"]:
                self._reset_ends.append((end, int(record["generation"])))
            if end - begin > _LONG_NS:
                self._long.append(record)
        elif kind == HELD:
            self.counts["held checks"] += 1
        elif kind == KILL:
            self.counts["killed children"] += bool(who & 0xFFFF)
            self._killed[who] = begin
            self._close(who, begin)
        elif kind == STOP:
            stops = self._stops[who]
            if not stops or stops[-1][1] != _FOREVER:  # else announced before, by the one that stopped itself
                self.counts["stops"] += 1
                stops.append([begin, _FOREVER])
        elif kind == CONT:
            for stop in self._stops[who]:
                if stop[1] == _FOREVER:
                    stop[1] = end + 5_000_000  # until it has been scheduled again
                    self.stopped_ns += end - stop[0]
        elif kind == ALARM:
            self._close(who, begin, records.ABANDONED)
        elif kind == DEAD and who:
            self._close(who, begin or end)
            self.counts["lives"] += 1
            self.counts["killed"] += int(record["code"] == signal.SIGKILL)
            self.counts["own kills"] += int(record["how"] and record["code"] == signal.SIGKILL)
        elif kind == FORK:
            self.counts["forks"] += 1
        elif kind == UNFINISHED:
            self.counts["calls cut by a kill"] += 1
            # The herd ends the call when it buries the dead, which on a busy machine is late.
            end = min(end, self._killed.get(who, end))
            record = record.copy()
            record["end"] = end
            if record["how"] == records.RESETTING:
                self._resets.append((begin, end, who))
            if end - begin > _LONG_NS:
                self._long.append(record)

    def _close(self, who: int, at: int, code: int | None = None) -> None:
        """`who` was killed, or a signal handler raised: its computations end."""
        for computation in self._of_who.get(who, ()):
            if computation.code is None and computation.end == _FOREVER:
                computation.end = at
                computation.published = min(computation.published, at)
                computation.code = code
                self._open.pop((who, computation.begin), None)

    # ---- judging

    def settle(self, before: int) -> None:
        """Judge what ended before that moment, and forget it."""
        self._settle_p2(before)
        waiting, self._long = self._long, []
        for record in waiting:
            if int(record["end"]) < before:
                self._judge_long(record)
            else:
                self._long.append(record)
        past = max((generation for end, generation in self._reset_ends if end < before), default=0)
        if before == _FOREVER:
            past = _FOREVER
        for key, generation in [at for at in self._groups if at[1] < past]:
            self._judge_group(key, generation, self._groups.pop((key, generation)))
        for made in self._of_key.values():
            made[:] = [c for c in made if c.end > before - 10_000_000_000]
        for who, own in list(self._of_who.items()):
            own[:] = [c for c in own if c.end > before - 10_000_000_000]
            if not own:
                del self._of_who[who]
        for who in [w for w, own in self._stops.items() if own and own[-1][1] < before - 10_000_000_000]:
            del self._stops[who]
        if self.witness:
            self.witness.forget(before)
        self._resets = [r for r in self._resets if r[1] > before - 10_000_000_000]

    def _settle_p2(self, before: int) -> None:
        if not self._calls:
            return
        calls = np.concatenate(self._calls)
        old = calls["end"] < before
        self._calls, calls = [calls[~old]], calls[old]
        if not self._reset_ends:
            return
        self._reset_ends.sort()
        ends = np.array([end for end, _ in self._reset_ends], np.uint64)
        generations = np.maximum.accumulate(np.array([generation for _, generation in self._reset_ends], np.uint64))
        # The last reset that had returned when the call looked; its generation is the oldest allowed.
        finished = np.searchsorted(ends, calls["look"], side="left")
        oldest = np.concatenate([np.zeros(1, np.uint64), generations])[finished]
        late = calls["generation"] < oldest
        for call, allowed in zip(calls[late][:20], oldest[late], strict=False):
            self._violation(
                "P2",
                f"{records.HOWS[call['how']]} of key {call['key']} by {name_of(int(call['who']))}: value of generation"
                f" {call['generation']}, last look at {call['look']}; by then a reset to {allowed} had returned",
            )
        self.counts["P2 compared"] += len(calls)
        if before < _FOREVER:  # of those before, one is enough
            keep = bisect.bisect_left(self._reset_ends, (before - 60_000_000_000, 0))
            if keep > 1:
                top = max(generation for _, generation in self._reset_ends[:keep])
                self._reset_ends[:keep] = [(self._reset_ends[0][0], top)]

    def _judge_group(self, key: int, generation: int, made: list[Computation]) -> None:
        made.sort(key=lambda c: c.begin)
        for before, after in itertools.pairwise(made):
            reason = "killed" if before.code is None else _CODES.get(before.code, f"code {before.code}")
            if before.code == _STORED:
                self._violation(
                    "P1", f"key {key}, generation {generation}: stored by {before}; computed again by {after}"
                )
            elif after.begin < before.published and before.code not in (_BUSY, records.ABANDONED):
                self._violation("P1", f"key {key}, generation {generation}: at the same time by {before} and {after}")
            else:
                self.duplicates[reason] += 1

    def _judge_long(self, record: Any) -> None:
        kind, how, key, who = int(record["kind"]), int(record["how"]), int(record["key"]), int(record["who"])
        begin, end = int(record["begin"]), int(record["end"])
        is_reset = kind == RESET or how == records.RESETTING
        reasons: list[Interval] = [*self.pauses, *((stop[0], stop[1]) for stop in self._stops.get(who, ()))]
        reasons += [(c.begin, c.end) for c in self._of_who.get(who, ()) if c.end > begin and c.begin < end]
        if not is_reset:
            if self.witness:
                reasons += self.witness.of_key[key]
            reasons += [
                (c.begin, c.end)
                for c in self._of_key[key]
                if c.end > begin and c.begin < end and (c.ticket or c.who == who)
            ]
        if self.witness:
            reasons += self.witness.lock
        rest = end - begin - covered(reasons, begin, end) - int(record["delay"]) * 1000
        what = "reset" if is_reset else f"{records.HOWS[how]} of key {key}"
        cut = ", cut by a kill" if kind == UNFINISHED else ""
        text = f"{what} by {name_of(who)}, {(end - begin) / 1e6:.0f} ms from {begin}{cut}"
        if is_reset:
            turns = covered([*reasons, *((b, e) for b, e, by in self._resets if by != who)], begin, end)
            alone = end - begin - turns - int(record["delay"]) * 1000
            self.longest_reset = max(self.longest_reset, Hang(rest, text))
            rest = alone
        self.longest = max(self.longest, Hang(rest, text))
        if rest > _LIMIT_NS:
            self._violation("hang", f"{rest / 1e6:.0f} ms without a reason: {text}{self._meanwhile(begin, end, key)}")

    def _meanwhile(self, begin: int, end: int, key: int) -> str:
        """What else happened, for whoever has to find out why."""

        def when(first: int, last: int) -> str:
            return f"{(first - begin) / 1e6:.0f} to {'?' if last == _FOREVER else f'{(last - begin) / 1e6:.0f}'} ms"

        stops = [
            f"{name_of(who)} {when(stop[0], stop[1])}"
            for who, own in self._stops.items()
            for stop in own
            if stop[0] < end and stop[1] > begin and stop[1] - stop[0] > _LONG_NS
        ]
        made = [
            f"{name_of(c.who)} {when(c.begin, c.end)}" for c in self._of_key[key] if c.begin < end and c.end > begin
        ]
        return f"; stopped meanwhile: {', '.join(stops) or 'nobody'}; computed by {', '.join(made) or 'nobody'}"

    def _violation(self, what: str, text: str) -> None:
        self.violations.append((what, text))
