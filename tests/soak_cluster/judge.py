"""What must hold in the events of a run.

Of each call, against what its host had come to before it began:
    value      it is whole, and what a computation made for this very key of this very cache
    stamp      what it is under: not older than what was seen first in the call, not newer than what was seen last; and
               what was seen first is not older than what had been seen on the host before the call (nothing goes back)
    P2         it was not computed before a reset that had returned on this host before the call
    source     it was computed from the version of its stamp, or from one that the host's callback brought afterwards
    hang       it returned in time: see below
Of the computations of one key under one stamp (those with a ticket; the product counts the others by itself):
    once on the host      one after the other, none after one that was stored, and none after the host had the value
    once in the cluster   the same for all hosts, among those that began and ended while nothing was wrong. What the
                          documentation excepts is counted: within another computation; no answer for lease_timeout, or
                          for the call's own timeout; a reset that has not reached this host yet. Who takes over from
                          one who was killed goes on with what that one had a reason for

A reset that is made elsewhere and has been applied here counts for P2 in a figure of its own (`elsewhere`).

Hangs. Of a call's time all is taken away that has a reason: its process was stopped, or had no CPU; somebody, on
whatever host, computed the key, or held it while stopped; it computed itself. What is left is at most a second (P5),
plus, for each fault that overlaps with it, and for each stamp that it lived through, the time after which a cluster
goes on without an answer: lease_timeout, and with a lost node dead_after.
"""

from __future__ import annotations

import bisect
import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from coopshm import _codes
from coopshm._core import lib
from tests.soak.intervals import covered

from .events import Stamp
from .histories import FOREVER, Bound, Computation, Histories, Place, as_stamp
from .hosts import DEAD_AFTER

_OK = _codes.OK
_CODES: dict[object, str] = {
    _codes.STALE: "reset",
    _codes.NOT_STORED: "failure or NoCache",
    lib.CSM_BUSY: "busy",
    lib.CSM_TOO_LARGE: "too large",
    **dict.fromkeys(_codes.FULL, "full"),
    None: "killed",
    "alone": "left",
}
_SECOND = 1_000_000_000
_LONG = _SECOND // 2  # calls that are looked at one by one

#: Seconds that a call may take beyond all of its reasons.
_LIMIT = 1.0


class Judge:
    """Of one run. `violations` has (what, text)."""

    def __init__(self, histories: Histories, lease_timeout: float, dead_after: float = DEAD_AFTER) -> None:
        self.violations: list[tuple[str, str]] = list(histories.odd)
        self.counts: Counter[str] = Counter()
        self.again_on_host: Counter[str] = Counter()  # by why
        self.again_in_cluster: Counter[str] = Counter()
        self.elsewhere: list[int] = []  # ns by which a value was older than a reset from elsewhere
        self.longest = (0.0, "none")  # a call's time without a reason, in seconds
        self._h = histories
        self._lease_timeout, self._dead_after = lease_timeout, dead_after
        self._own = {place: Bound((r.end, r.begin) for r in resets) for place, resets in histories.resets.items()}
        self._stamps = {place: Bound((t, s) for s, t in seen.items()) for place, seen in histories.seen.items()}
        self._others = self._bounds_of_others()
        self._of_key: dict[tuple[str, int | str], list[Computation]] = defaultdict(list)
        self._of_who: dict[str, list[Computation]] = defaultdict(list)
        for made in histories.computations.values():
            self._of_key[made.cache, made.key].append(made)
            self._of_who[made.who].append(made)
        for published in histories.published.values():
            published.sort()
        self._have: dict[tuple[Place, int | str, Stamp], int] = {}  # when a host had a stored value, at the latest

    def _bounds_of_others(self) -> dict[Place, Bound]:
        """When which reset from elsewhere had been applied: its very stamp was seen there."""
        made = {(place[1], r.stamp): (place, r) for place, resets in self._h.resets.items() for r in resets if r.stamp}
        found: dict[Place, list[tuple[int, int]]] = defaultdict(list)
        for place, seen in self._h.seen.items():
            for stamp, time in seen.items():
                at, reset = made.get((place[1], stamp), (place, None))
                if reset is not None and at != place:
                    found[place].append((time, reset.begin))
        return {place: Bound(times) for place, times in found.items()}

    def judge(self, events: Iterable[dict[str, Any]]) -> Judge:
        """Judge the calls among these events, then the computations."""
        for event in events:
            if event["event"] == "call":
                self._judge_call(event)
        groups: dict[tuple[str, int | str, Stamp], list[Computation]] = defaultdict(list)
        for made in self._h.computations.values():
            self.counts["computations"] += 1
            self.counts["without a ticket"] += not made.ticket
            if made.ticket and made.stamp is not None:
                groups[made.cache, made.key, made.stamp].append(made)
            self._judge_source(made)
        for group in groups.values():
            group.sort(key=lambda made: made.at)
            for host in {made.host for made in group}:
                self._judge_host([made for made in group if made.host == host])
            self._judge_cluster(group)
        return self

    def _violation(self, what: str, text: str) -> None:
        self.violations.append((what, text))

    # ---- calls

    def _judge_call(self, call: dict[str, Any]) -> None:
        self.counts["calls"] += 1
        self.counts[call["came"]] += 1
        place = call["host"], call["cache"]
        times = f"{call['begin']} to {call['end']}"
        what = f"{call['how']} of key {call['key']!r} of {call['cache']} by {call['who']} ({times})"
        before, after = as_stamp(call["before"]), as_stamp(call["after"])
        assert before is not None
        assert after is not None
        known = self._stamps[place].before(call["begin"])
        if known is not None and before < known:
            self._violation("stamp", f"{what}: saw {before}, but {known} had been seen on the host before")
        if after < before:
            self._violation("stamp", f"{what}: saw {before} first, and then {after}")
        if call["came"] == "error":
            self._violation("error", f"{what}: {call['text']}")
        elif call["came"] == "wrong":
            self._violation("value", f"{what}: {call['text']}")
        elif call["meta"] is not None:
            self._judge_value(call, what, before, after)
        if call["end"] - call["begin"] - call["starved"] > _LONG:
            self._judge_long(call, what)

    def _judge_value(self, call: dict[str, Any], what: str, before: Stamp, after: Stamp) -> None:
        meta, place = call["meta"], (call["host"], call["cache"])
        made = self._h.computations.get(meta["id"])
        stamp = as_stamp(meta["stamp"])
        if made is None:
            self._violation("value", f"{what}: {meta} was never computed")
            return
        if (made.cache, made.key, made.at) != (call["cache"], call["key"], meta["at"]):
            self._violation(
                "value", f"{what}: came {meta}, which was computed as {made} for {made.key!r} of {made.cache}"
            )
        if stamp is None:
            self._violation("stamp", f"{what}: came {meta}, which was void when it was begun")
        elif not before <= stamp <= after:
            self._violation("stamp", f"{what}: came {meta} of {made}; the call saw {before} first and {after} last")
        reset = self._own[place].before(call["begin"]) if place in self._own else None
        if reset is not None:
            self.counts["compared with resets"] += 1
            if meta["at"] < reset:
                self._violation(
                    "P2", f"{what}: came {meta} of {made}; a reset begun at {reset} had returned on the host"
                )
        other = self._others[place].before(call["begin"]) if place in self._others else None
        if other is not None and meta["at"] < other:
            self.elsewhere.append(other - meta["at"])
        if made.code == _OK and stamp is not None and call["cache"] == "roomy":
            key = place, call["key"], stamp
            self._have[key] = min(self._have.get(key, FOREVER), call["end"])
        self.counts["own"] += made.who == call["who"] and made.at >= call["begin"]

    # ---- computations

    def _judge_source(self, made: Computation) -> None:
        """The callback had brought the host to the stamp's version; or to another one later, for a reset to come."""
        if made.cache != "roomy" or made.stamp is None:
            return
        published = self._h.published.get(made.host, [])
        wanted, read = made.stamp[1], json.dumps(made.source)
        at = bisect.bisect_left(published, (made.at, ""))
        since = next((time for time, version in [*reversed(published[:at]), (0, "1")] if version == wanted), None)
        if since is None:
            self._violation("source", f"{made} is under {made.stamp}, to which the callback had not been called")
            return
        allowed = {wanted, *(version for then, version in published if since <= then < made.end)}
        if read not in {json.dumps(json.loads(version)) for version in allowed}:
            self._violation("source", f"{made} is under {made.stamp}, and read version {read} of the source")

    def _judge_host(self, group: list[Computation]) -> None:
        for before, after in itertools.pairwise(group):
            text = f"key {after.key!r} of {after.cache} under {after.stamp}"
            if before.code == _OK:
                self._violation("once on the host", f"{text}: stored by {before}, computed again by {after}")
            elif after.at < before.publishing and before.code not in (None, "alone", lib.CSM_BUSY):
                self._violation("once on the host", f"{text}: at the same time by {before} and {after}")
            else:
                self.again_on_host[_CODES.get(before.code, f"code {before.code}")] += 1
        for made in group:
            assert made.stamp is not None
            had = self._have.get((made.place, made.key, made.stamp))
            if had is not None and had < made.asked:
                text = f"key {made.key!r} of {made.cache} under {made.stamp}: by {made}, though it was there at {had}"
                self._violation("once on the host", text)

    def _judge_cluster(self, group: list[Computation]) -> None:
        for begin, end in self._h.wholes:
            within = [made for made in group if made.asked >= begin and made.end <= end]
            # What was asked for while something was wrong may have no lease; and it may be taken over later.
            tainted = any(made.asked < begin < made.end for made in group)
            for before, after in itertools.pairwise(within):
                if before.host == after.host:
                    continue
                begun = [*_line(group, before), *_line(group, after)]
                overlap = after.at < before.publishing
                if not overlap and before.code != _OK:
                    self.again_in_cluster[_CODES.get(before.code, f"code {before.code}")] += 1
                elif before.code in (None, _codes.STALE, lib.CSM_BUSY):
                    self.again_in_cluster[_CODES[before.code]] += 1
                elif after.nested and overlap:
                    self.again_in_cluster["nested"] += 1
                elif tainted:
                    self.again_in_cluster["begun when something was wrong"] += 1
                elif self._is_reset(after.cache, after.stamp, before.at, after.at):
                    self.again_in_cluster["a reset on its way"] += 1
                elif any(
                    made.patience is not None and made.at - made.asked >= made.patience * _SECOND for made in begun
                ):
                    self.again_in_cluster["the call's timeout"] += 1
                elif max(made.unanswered for made in begun) >= self._lease_timeout * _SECOND:
                    self.again_in_cluster["no answer in lease_timeout"] += 1
                else:
                    text = (
                        f"key {after.key!r} of {after.cache} under {after.stamp}: {before} and {after}, nothing wrong"
                    )
                    self._violation("once in the cluster", f"{text} from {begin} to {end}")

    def _is_reset(self, cache: str, stamp: Stamp | None, begin: int, end: int) -> bool:
        """Was a reset to another stamp begun in that time, or before and is not known to have come to an older one?"""
        assert stamp is not None
        return any(
            each.begin < end and (each.end > begin if each.stamp is None else each.stamp > stamp)
            for each in self._h.begun[cache]
        )

    # ---- hangs

    def _judge_long(self, call: dict[str, Any], what: str) -> None:
        begin, end, who = call["begin"], call["end"], call["who"]
        reasons = [*self._h.stops.get(who, ())]
        reasons += [(made.at, made.end) for made in self._of_key[call["cache"], call["key"]]]
        reasons += [(made.at, made.end) for made in self._of_who[who]]
        rest = (end - begin - covered(reasons, begin, end) - call["starved"]) / _SECOND
        faults = [f"{fault} on {on}" for fault, on, first, last in self._h.faults if first < end and last > begin]
        # That which it came to itself included, even if it is the first to have seen it.
        stamps = sum(begin < time <= end for time in self._h.seen[call["host"], call["cache"]].values())
        self.longest = max(self.longest, (rest, f"{what}; meanwhile {', '.join(faults) or 'nothing wrong'}"))
        bound = _LIMIT + (1 + stamps) * self._lease_timeout + len(faults) * (self._lease_timeout + self._dead_after)
        if rest > bound:
            self._violation("hang", f"{rest:.1f} s without a reason, {bound:.1f} allowed: {what}; meanwhile {faults}")


def _line(group: list[Computation], made: Computation) -> list[Computation]:
    """A computation, and those of its host in whose place it is: killed ones that were still at it when its call
    began, which so waited for them, and not for the cluster."""
    killed = [one for one in group if one.host == made.host and one.code is None and one.at < made.at]
    return [made, *(one for one in killed if made.asked < one.end)]
