"""The events of a run, read in: all but the calls, which are many, and are read one by one when they are judged."""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .events import Stamp

FOREVER = 1 << 63

#: Nanoseconds.
KILLED_WITHIN = 2_000_000_000

#: A host's copy of a cache.
Place = tuple[str, str]


@dataclass
class Computation:
    id: str
    who: str
    host: str
    cache: str
    key: int | str
    asked: int
    looked: int
    at: int
    nested: bool
    patience: float | None  # seconds that its call was to wait at most
    ticket: int
    stamp: Stamp | None
    source: object
    publishing: int = FOREVER
    end: int = FOREVER
    code: int | str | None = None  # None: its process was killed in the middle of it

    @property
    def unanswered(self) -> int:
        """Nanoseconds for which its host may have been without a word of the sidecar when it began. Workers do not
        count from their call, if the sidecar had not looked for some time by then."""
        return self.at - min(self.asked, self.looked or self.asked)

    @property
    def place(self) -> Place:
        return (self.host, self.cache)

    def __str__(self) -> str:
        ended = "killed" if self.code is None else f"published at {self.publishing}, code {self.code}"
        return f"{self.id} (asked {self.asked}, from {self.at}, {ended}{', nested' if self.nested else ''})"


@dataclass
class Reset:
    who: str
    begin: int
    end: int
    stamp: Stamp | None


class Bound:
    """What must have come by a moment: the largest of all that had been seen by then."""

    def __init__(self, seen: Iterable[tuple[int, Any]]) -> None:
        self._times: list[int] = []
        self._most: list[Any] = []
        for time, value in sorted(seen):
            if not self._most or value > self._most[-1]:
                self._times.append(time)
                self._most.append(value)

    def before(self, time: int) -> Any:
        """None: nothing had."""
        at = bisect.bisect_left(self._times, time)
        return self._most[at - 1] if at else None


@dataclass
class Histories:
    """All that calls are compared with."""

    computations: dict[str, Computation] = field(default_factory=dict)
    resets: dict[Place, list[Reset]] = field(default_factory=lambda: defaultdict(list))
    begun: dict[str, list[Reset]] = field(default_factory=lambda: defaultdict(list))  # by cache; what became of it
    refused: Counter[str] = field(default_factory=Counter)  # resets that were none, by why
    seen: dict[Place, dict[Stamp, int]] = field(default_factory=lambda: defaultdict(dict))  # when first, at the latest
    published: dict[str, list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))  # by host
    faults: list[tuple[str, str, int, int]] = field(default_factory=list)  # what, on, begin, end
    stops: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))  # by who
    wholes: list[tuple[int, int]] = field(default_factory=list)
    lives: int = 0
    odd: list[tuple[str, str]] = field(default_factory=list)  # what is wrong at first sight
    last: int = 0
    _births: dict[tuple[str, int], list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))
    _deaths: dict[str, int] = field(default_factory=dict)
    _gone: dict[str, int] = field(default_factory=dict)  # hosts
    _stops_of_pids: list[dict[str, Any]] = field(default_factory=list)

    def read(self, events: Iterable[dict[str, Any]]) -> Histories:
        for event in events:
            self.last = max(self.last, event.get("end", event.get("at", 0)))
            getattr(self, f"_take_{event.pop('event')}")(event)
        for made in self.computations.values():
            if made.code is None:
                made.end = self._deaths.get(made.who, self._gone.get(made.host, FOREVER))
                made.publishing = min(made.publishing, made.end)
        for stop in self._stops_of_pids:
            born = self._births[stop["host"], stop["pid"]]
            at = bisect.bisect(born, (stop["begin"], "~"))
            if at:
                self.stops[born[at - 1][1]].append((stop["begin"], stop["end"]))
        return self

    # ---- one kind of event each

    def _take_call(self, call: dict[str, Any]) -> None:
        seen = self.seen[call["host"], call["cache"]]
        for stamp in (as_stamp(call["before"]), as_stamp(call["after"])):
            assert stamp is not None
            seen[stamp] = min(seen.get(stamp, FOREVER), call["end"])

    def _take_computes(self, event: dict[str, Any]) -> None:
        event["stamp"] = as_stamp(event["stamp"])
        self.computations[event["id"]] = Computation(**event)

    def _take_computed(self, event: dict[str, Any]) -> None:
        made = self.computations[event["id"]]
        made.publishing, made.end, made.code = event["before"], event["at"], event["code"]

    def _take_resets(self, event: dict[str, Any]) -> None:
        # If nothing more is heard of it: who made it was killed, and not stopped for long before.
        self.begun[event["cache"]].append(Reset(event["who"], event["at"], event["at"] + KILLED_WITHIN, None))

    def _take_reset(self, event: dict[str, Any]) -> None:
        for begun in self.begun[event["cache"]]:
            if (begun.who, begun.begin) == (event["who"], event["begin"]):
                begun.end, begun.stamp = event["end"], as_stamp(event["stamp"])
        place = event["host"], event["cache"]
        if event["done"] in ("yes", "unconfirmed"):
            stamp = as_stamp(event["stamp"])
            self.resets[place].append(Reset(event["who"], event["begin"], event["end"], stamp))
            if stamp is not None:
                seen = self.seen[place]
                seen[stamp] = min(seen.get(stamp, FOREVER), event["end"])
            return
        self.refused[event["done"]] += 1
        if event["done"] == "error":
            self.odd.append(("error", f"reset of {event['cache']} by {event['who']}: {event['text']}"))

    def _take_published(self, event: dict[str, Any]) -> None:
        self.published[event["host"]].append((event["at"], event["version"]))

    def _take_fault(self, event: dict[str, Any]) -> None:
        self.faults.append((event["what"], event["on"], event["begin"], event["end"]))

    def _take_stopped(self, event: dict[str, Any]) -> None:
        self._stops_of_pids.append(event)

    def _take_whole(self, event: dict[str, Any]) -> None:
        self.wholes.append((event["begin"], event["end"]))

    def _take_born(self, event: dict[str, Any]) -> None:
        self.lives += 1
        self._births[event["host"], event["pid"]].append((event["at"], event["who"]))

    def _take_died(self, event: dict[str, Any]) -> None:
        self._deaths[event["who"]] = event["at"]
        if event["status"] not in (0, -9):
            self.odd.append(("crash", f"{event['who']} ended with {event['status']}"))

    def _take_gone(self, event: dict[str, Any]) -> None:
        self._gone[event["host"]] = event["at"]

    def _take_lease(self, event: dict[str, Any]) -> None:
        """For people."""

    def _take_hangs(self, event: dict[str, Any]) -> None:
        self.odd.append(("hang", f"{event['host']} does not answer to {event['ask']!r}"))


def as_stamp(of: list[Any] | None) -> Stamp | None:
    return None if of is None else (of[0], of[1], of[2])
