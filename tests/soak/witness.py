"""Who had the write lock, and who owned which flight, and could not run: seen from outside, in the segment itself.

The contract bounds how long a call hangs on account of others. It cannot mean the time for which the machine gives
those others no CPU, nor that for which the owner of the computation is stopped (it looks like a slow function).
Histories know when a computation began and ended, but an owner is owner before its function runs, and nobody writes
down who has the lock. So this looks every few hundredths of a second.

What is seen between two looks is counted for the whole time between them. It excuses
    a wait for key k    while the live owner of k's flight was stopped, or was runnable and had no CPU;
    any call            while the lock's holders, be it one or one after the other, were runnable and had no CPU: it is
                        held at both looks, and has changed hands less than once a millisecond in between. Not when a
                        holder was stopped: against that the product has its own remedy, which the soak is there to try.
"""

from __future__ import annotations

import os
from collections import defaultdict
from typing import Any

from . import goods
from .intervals import Interval
from .records import now

_EVERY_NS = 40_000_000
_LOCK_AT, _GEOMETRY_AT, _ROWS_OFF = 320 // 8, 64 // 8, 14  # csrc/layout.h
_ROW_WORDS, _PID = 4096 // 8, 1
_KEPT_NS = 30_000_000_000
_LONG_TURN_NS = 1_000_000  # a critical section takes less than a thousandth of that


class _Process:
    """State and waiting time of a process at one moment."""

    def __init__(self, pid: int) -> None:
        try:
            with open(f"/proc/{pid}/stat") as file:
                self.letter = file.read().rpartition(")")[2].split()[0]
            with open(f"/proc/{pid}/schedstat") as file:
                self.delay = int(file.read().split()[1])
        except (FileNotFoundError, ProcessLookupError, IndexError):
            self.letter, self.delay = "X", 0

    def was_stopped(self, before: _Process) -> bool:
        return "T" in (self.letter, before.letter)

    def was_starved(self, before: _Process, ns: int) -> bool:
        return self.letter == "R" and before.delay > 0 and self.delay - before.delay > ns // 2


class Witness:
    def __init__(self, segment: Any) -> None:
        self.lock: list[Interval] = []
        self.of_key: dict[int, list[Interval]] = defaultdict(list)
        self.longest_stall = 0  # of the lock in a stopped process's hands
        self._segment = segment
        self._words = segment.memory.cast("Q")
        self._rows = self._words[_GEOMETRY_AT + _ROWS_OFF] // 8
        mine = self._rows + int(segment.describe().my_row) * _ROW_WORDS + _PID
        assert self._words[mine] == os.getpid(), "the layout has changed"
        self._numbers = {key: n for n, key in enumerate(goods.encoded_keys())}
        self._last = now()
        self._held: tuple[int, int] = (0, 0)
        self._stalled_from = 0
        self._holder: _Process | None = None
        self._owners: dict[tuple[int, int], _Process] = {}

    def look(self) -> None:
        at = now()
        if at - self._last < _EVERY_NS:
            return
        before, self._last = self._last, at
        self._look_at_lock(before, at)
        self._look_at_flights(before, at)

    def _look_at_lock(self, before: int, at: int) -> None:
        word, turns = int(self._words[_LOCK_AT]), int(self._words[_LOCK_AT + 1])
        holder = _Process(int(self._words[self._rows + ((word >> 40) - 1) * _ROW_WORDS + _PID])) if word else None
        (last_word, last_turns), last_holder = self._held, self._holder
        self._held, self._holder = (word, turns), holder
        if (word, turns) != (last_word, last_turns):
            self._stalled_from = at
        if holder is None or last_holder is None:
            return
        if "T" in (holder.letter, last_holder.letter):
            self.longest_stall = max(self.longest_stall, at - self._stalled_from)
        elif (
            holder.letter in "RD" and last_holder.letter in "RD" and (turns - last_turns) * _LONG_TURN_NS < at - before
        ):
            self.lock.append((before, at))

    def _look_at_flights(self, before: int, at: int) -> None:
        owners: dict[tuple[int, int], _Process] = {}
        for flight in self._segment.flights():
            number = self._numbers.get(flight.key)
            if number is None or not flight.alive:
                continue
            owner = (flight.started_ns, flight.pid)
            if owner not in self._owners:
                if at - flight.started_ns > _EVERY_NS // 2:  # else too young to matter
                    owners[owner] = _Process(flight.pid)
                continue
            process = owners[owner] = _Process(flight.pid)
            known = self._owners[owner]
            if process.was_stopped(known) or process.was_starved(known, at - before):
                self.of_key[number].append((before, at))
        self._owners = owners

    def forget(self, before: int) -> None:
        before -= _KEPT_NS
        self.lock = [i for i in self.lock if i[1] > before]
        for intervals in self.of_key.values():
            intervals[:] = [i for i in intervals if i[1] > before]
