"""The stamps of the caches of this host: told to the others, heard from them, adopted when they are larger.

One `Cache` per cache. A failing on_reset callback leaves the host at its old stamp: that is logged, told to the others,
and tried again, less and less often, at once when there is another stamp.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable

from . import messages as m
from .relay import CacheStatus, Host, MovedError, NodeState, ResetFailedError, Stamp, Standing
from .stamps import Claim, Heard, History
from .waits import wait_some

__all__ = ["Cache"]

logger = logging.getLogger("coopshm.cluster")

#: Seconds between attempts to adopt a stamp: the first, and the longest.
RETRY_SECONDS = 0.1
RETRY_SECONDS_MAX = 30.0

#: Seconds for which a raise is left to the one whose reset was passed over: some messages, and its on_reset callback.
#: At most twice that, at random, so that not all hosts lose patience at once.
PATIENCE_SECONDS = 1.0


class Cache:
    """Where one cache stands, here and on the other nodes.

    `tell(name)` sends `announcement()` to a node, to all for None; `moved()` is called when this host has come to
    another standing.
    """

    def __init__(
        self, name: str, host: Host, tell: Callable[[str, str | None], None], moved: Callable[[str], None]
    ) -> None:
        self.name = name
        self.host = host
        self.failing = False
        self.adopted = 0
        self._tell = tell
        self._moved = moved
        self._history = History()
        self._number = 0
        self._theirs: dict[str, m.Standing] = {}
        self._wake = asyncio.Event()
        self._last: Standing | None = None

    # -- this host

    def standing(self) -> Standing | None:
        return self.host.standing()

    def standing_told(self) -> Standing | None:
        """Where it stood when that was last told to the others."""
        return self._last

    def changed(self) -> bool:
        """Look where the cache stands, tell all others if it is not where it was; whether it is not."""
        standing = self.host.standing()
        if standing == self._last:
            return False
        self._last = standing
        if standing is not None:
            for theirs in list(self._theirs.values()):
                if theirs.stamp is not None:
                    self._history.hear(standing, _claim(theirs))
            self._wake.set()
        self._tell(self.name, None)
        for node in list(self._theirs):
            self.acknowledge(node, True)
        return True

    def announcement(self) -> m.Standing:
        """What to tell others."""
        self._number += 1
        standing = self.host.standing()
        if standing is None:
            return m.Standing(self._number, self.name, None, {}, "", 0)
        claim = self._history.claim(standing)
        return m.Standing(
            self._number, self.name, claim.stamp, dict(claim.seen), standing.origin, standing.generation, self.failing
        )

    # -- the others

    def heard(self, node: str, theirs: m.Standing) -> bool:
        """Take note of where `node` stands; whether that is news."""
        before = self._theirs.get(node)
        if before is not None and theirs.number <= before.number:
            return False
        self._theirs[node] = theirs
        standing = self.host.standing()
        if standing is not None and theirs.stamp is not None:
            heard = self._history.hear(standing, _claim(theirs))
            if heard is Heard.BEHIND:
                self._tell(self.name, node)
            elif heard is Heard.AHEAD:
                self._wake.set()
        self.acknowledge(node, True)
        return True

    def hear(self, claim: Claim, news: bool) -> Heard | None:
        """What somebody who is no node says; None if the cache is not here. What is no news does not make a reset that
        fails here be tried again before its time."""
        standing = self.host.standing()
        if standing is None:
            return None
        heard = self._history.hear(standing, claim)
        if heard is Heard.AHEAD and news:
            self._wake.set()
        return heard

    def claim(self) -> Claim | None:
        """What this host says."""
        standing = self.host.standing()
        return self._history.claim(standing) if standing is not None else None

    def lost(self, node: str) -> None:
        """The node is not connected any more."""
        self._theirs.pop(node, None)
        self.acknowledge(node, False)

    def theirs(self, node: str) -> m.Standing | None:
        """What `node` has said last."""
        return self._theirs.get(node)

    def together(self, node: str) -> m.Standing | None:
        """What `node` has said last, if it stands where this host does."""
        theirs = self._theirs.get(node)
        standing = self.host.standing()
        return theirs if theirs and standing and theirs.stamp == standing.stamp else None

    def acknowledge(self, node: str, connected: bool) -> None:
        """Tell the host what that node has of this cache."""
        covers = 0
        standing, theirs = self.host.standing(), self._theirs.get(node)
        if standing is not None and theirs is not None and theirs.stamp is not None:
            together = theirs.stamp == standing.stamp
            covers = standing.own if together else _claim(theirs).covers(standing.origin)
        self.host.acknowledged(node, covers, self.status(node, connected).state)

    def status(self, node: str, connected: bool) -> CacheStatus:
        theirs, standing = self._theirs.get(node), self.host.standing()
        if not connected or theirs is None:
            return CacheStatus(None, NodeState.AWAY)
        if theirs.stamp is None:
            return CacheStatus(None, NodeState.ABSENT)
        stamp = Stamp(*theirs.stamp)
        if theirs.failing:
            return CacheStatus(stamp, NodeState.FAILING)
        together = standing is not None and stamp == standing.stamp
        return CacheStatus(stamp, NodeState.LIVE if together else NodeState.BEHIND)

    # -- adopting

    async def run(self) -> None:
        """Adopt what is to be adopted, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            pause, patient_until = RETRY_SECONDS, math.inf
            while (standing := self.host.standing()) is not None:
                claim = self._history.wanted(standing, patient=time.monotonic() < patient_until)
                if claim is None and not self._history.hesitates:
                    break
                if claim is None:
                    if patient_until == math.inf:
                        patient_until = time.monotonic() + PATIENCE_SECONDS * random.uniform(1, 2)
                    await self._woken_within(patient_until - time.monotonic())
                    continue
                if await self._adopt(claim, standing):
                    pause, patient_until = RETRY_SECONDS, math.inf
                    continue
                if not await self._woken_within(pause):  # else it is another reset's turn, and no later for this one's
                    pause = min(2 * pause, RETRY_SECONDS_MAX)
            self._set_failing(False)

    async def _woken_within(self, seconds: float) -> bool:
        woken = await wait_some(self._wake, seconds)
        self._wake.clear()
        return woken

    async def _adopt(self, claim: Claim, standing: Standing) -> bool:
        try:
            await self.host.adopt(claim.stamp, standing)
        except MovedError:
            return self.host.standing() != standing  # else it could not look at it: later
        except Exception as exc:  # a mistake as well: this host must not stay there for ever
            mistake = None if isinstance(exc, ResetFailedError) else exc
            logger.error(
                "cache %r: the reset to version %s by %s could not be applied here, and is tried again: %s",
                self.name,
                claim.stamp.version.decode("utf-8", "replace"),
                claim.stamp.node,
                exc.__cause__ or exc,
                exc_info=mistake,
            )
            self._set_failing(True)
            return False
        self.adopted += 1
        self._moved(self.name)
        self._set_failing(False)  # said by itself, since the host may have told of its standing before
        return True

    def _set_failing(self, failing: bool) -> None:
        if self.failing != failing:
            self.failing = failing
            self._tell(self.name, None)


def _claim(standing: m.Standing) -> Claim:
    assert standing.stamp is not None
    return Claim(Stamp(*standing.stamp), standing.seen)
