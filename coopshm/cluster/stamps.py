"""The order of resets: which stamp a cache goes on with when hosts have reset it without knowing of each other.

The larger stamp wins everywhere, but not as it is: a host that has made or applied a reset must not accept what was
computed elsewhere before it, and the winner may have been made by somebody who did not know of that reset. So a stamp
travels with `seen`: which resets (origin -> counter of its last one) it *includes*. A stamp S includes a reset R if
everything that is computed under S is computed after R; S includes itself, and whatever was included by what its maker
stood at when it made S. Such a statement is true for ever, so that claims may be repeated, late and reordered, two
truths about one stamp may be merged, and forgetting some is harmless. It costs a reset at worst.

On hearing of a larger stamp, a host adopts it if that includes all that the host's own stamp is known to include.
Otherwise somebody has to *raise*: make a reset above both, with the winner's version, that includes what either
includes. The one whose reset was passed over does so at once. Hosts that do so at the same time do it again, all but
the one whose stamp is the largest, and that one's reset is included from then on; so n hosts are done after n rounds.
All others, which have only applied that reset, stay where they are and hesitate, since they would have to raise over
each other in turn; they raise if the one whose business it is seems to be gone (`wanted`, `hesitates`). What a host has
come to know of its stamp is forgotten with its sidecar, but for the stamp itself and the last reset made on the host.

On hearing of a smaller one it keeps its own and tells the sender, who then reasons the same way.

Pure: no clock, no I/O. Held by tests/cluster/test_stamps.py, which has hosts, messages and restarts behave in every
way.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import NamedTuple

from .relay import Stamp, Standing

__all__ = ["COUNTER_MAX", "SEEN_MAX", "Claim", "Heard", "History"]

#: Largest counter that is believed: what JSON, C and msgpack agree on as a signed integer.
COUNTER_MAX = 2**63 - 1

#: Most origins in `seen`. Those of segments that are gone stay in it until then; the smallest counters are forgotten
# first.
SEEN_MAX = 256


class Claim(NamedTuple):
    """What a node says of a cache: where it stands, and which resets that includes."""

    stamp: Stamp
    seen: Mapping[str, int]

    def covers(self, origin: str) -> int:
        """The counter of the last reset by `origin` that is certainly included; 0: none."""
        return self.stamp.counter if self.stamp.node == origin else self.seen.get(origin, 0)


class Heard(enum.Enum):
    """What a claim is to the one who hears it."""

    SAME = "same"
    BEHIND = "behind"  #: the sender is; tell it
    AHEAD = "ahead"  #: `wanted` has something to do


class History:
    """What one cache's relay on one host remembers. The host's standing is passed in, since others change it as
    well."""

    def __init__(self) -> None:
        self._of: Standing | None = None
        self._seen: dict[str, int] = {}
        self._ahead: Claim | None = None  # the largest that was heard
        self._wanted: Claim | None = None  # what was last said to be adopted
        self.hesitates = False  #: said by `wanted`: it has nothing to adopt only because it was to be patient

    def claim(self, standing: Standing) -> Claim:
        """What to tell others."""
        self._follow(standing)
        return Claim(standing.stamp, dict(self._seen))

    def hear(self, standing: Standing, theirs: Claim) -> Heard:
        """Take note of what another node says."""
        self._follow(standing)
        if theirs.stamp == standing.stamp:
            self._seen = _merged(self._seen, theirs.seen, keep=(standing.origin, standing.stamp.node))
            return Heard.SAME
        if theirs.stamp < standing.stamp:
            return Heard.BEHIND
        if self._ahead is None or theirs.stamp > self._ahead.stamp:
            self._ahead = theirs
        elif theirs.stamp == self._ahead.stamp:
            seen = _merged(self._ahead.seen, theirs.seen, keep=(standing.origin, theirs.stamp.node))
            self._ahead = Claim(theirs.stamp, seen)
        return Heard.AHEAD

    def wanted(self, standing: Standing, patient: bool = False) -> Claim | None:
        """What the host is to adopt; None while it stands right.

        Args:
            patient: leave it to others to raise over what does not include *their* resets, which this host has applied.
        """
        self._follow(standing)
        self.hesitates = False
        ahead = self._ahead
        if ahead is None:
            return None
        if ahead.stamp <= standing.stamp:
            self._ahead = None
            return None
        if standing.own <= ahead.covers(standing.origin):
            if self._is_covered_by(ahead):
                self._wanted = ahead
                return ahead
            if patient:
                self.hesitates = True
                return None
        raised = Stamp(ahead.stamp.counter + 1, ahead.stamp.version, standing.origin)
        seen = _merged(ahead.seen, self._seen, keep=(standing.origin, ahead.stamp.node))
        seen = _merged(seen, _itself(ahead.stamp), keep=(standing.origin, ahead.stamp.node))
        self._wanted = Claim(raised, seen)
        return self._wanted

    def _is_covered_by(self, ahead: Claim) -> bool:
        """Does it include all that the present stamp includes? A full `seen` has forgotten some, which may be those."""
        if len(ahead.seen) >= SEEN_MAX:
            return True
        return all(counter <= ahead.covers(origin) for origin, counter in self._seen.items())

    def _follow(self, standing: Standing) -> None:
        """Note where the host stands. What moves it is an adoption, a reset made on it, or another segment."""
        before = self._of
        if before is not None and before.stamp == standing.stamp and before.origin == standing.origin:
            return
        made_here = standing.stamp.node == standing.origin
        if self._wanted is not None and self._wanted.stamp == standing.stamp:
            # Adopted; or a worker's reset that comes to the same stamp, which then was made after `wanted` was asked,
            # and so after all that it includes. Either way there is no moment at which less than that may be claimed:
            # who hears of a raised stamp without what it was raised over raises it in turn, for ever.
            self._set(standing, self._wanted.seen)
        elif made_here and before is not None and before.origin == standing.origin and before.stamp < standing.stamp:
            self._set(standing, self._seen)
        else:
            self._set(standing, {})

    def _set(self, standing: Standing, seen: Mapping[str, int]) -> None:
        self._of = standing
        known = dict(seen)
        # It stands there, so it includes the last reset made here: otherwise it would not have been adopted.
        if standing.own:
            known[standing.origin] = max(standing.own, known.get(standing.origin, 0))
        self._seen = _merged(known, _itself(standing.stamp), keep=(standing.origin, standing.stamp.node))


def _itself(stamp: Stamp) -> dict[str, int]:
    return {stamp.node: stamp.counter} if stamp.counter else {}


def _merged(one: Mapping[str, int], other: Mapping[str, int], keep: tuple[str, ...]) -> dict[str, int]:
    merged = dict(one)
    for origin, counter in other.items():
        if counter > merged.get(origin, 0):
            merged[origin] = counter
    if len(merged) > SEEN_MAX:
        ranked = sorted(merged, key=lambda origin: (origin in keep, merged[origin], origin), reverse=True)
        merged = {origin: merged[origin] for origin in ranked[:SEEN_MAX]}
    return merged
