"""Where the cluster stands, as the engine has it: a claim (stamps.py) at the head, put there by compare and set.

The head is one more that is heard. What it says is reasoned about as what a peer says: a larger stamp is adopted or
raised over, a smaller one is replaced by ours, equal ones are merged. So it does not matter what the engine has
forgotten, or brought back: a stamp that it lost in a failover is put there again by whoever stands at it; a flushed
engine is given the claim of the first who comes. What it adds is that a host comes to the cluster's stamp although no
other host is there, and that the scripts can check, in one step with what they do, that the cluster stands where the
asker does.

`current` says where this host and the engine stand together. Without it nothing is asked, and hosts go on by
themselves: while the engine is lost, while this host cannot apply a reset, and for the moment of coming together.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple, Protocol

import msgspec

from ..relay import Stamp
from ..resets import Cache
from ..stamps import SEEN_MAX, Claim, Heard
from ..waits import wait_some
from .connection import FullError, LostError
from .context import Context, Current
from .keys import generation_of
from .nodes import Nodes
from .sayings import Head, Moved, decode_head, encode
from .scripts import BEAT, STAND
from .seal import TamperedError

__all__ = ["LogReader", "Place", "Standings"]

logger = logging.getLogger("coopshm.cluster")

#: Seconds after which a node that is silent is forgotten, and what no sidecar has touched is removed.
FORGET_SECONDS = 3600
KEEP_SECONDS = 86_400


class Place(NamedTuple):
    """In the engine's log: after this message. The next one hangs on that link of the chain (lua/common.lua), b"" if
    that is not known."""

    epoch: int
    seq: int
    link: bytes


class LogReader(Protocol):
    """Who reads the log."""

    def place(self) -> Place:
        """Where it has got to."""

    def began(self, ends: Place, undone: bool) -> None:
        """There is a connection, or another epoch, or what was read is `undone`: the log ends there now."""


class Standings:
    """Of one cache. `log` is told where the engine's log stands; `changed()`, that `current` is another."""

    def __init__(
        self,
        context: Context,
        cache: Cache,
        nodes: Nodes,
        log: LogReader,
        changed: Callable[[], None],
    ) -> None:
        self.current: Current | None = None
        self._context = context
        self._cache = cache
        self._nodes = nodes
        self._log = log
        self._changed = changed
        self._epoch: tuple[int, str] | None = None
        self._up = False
        self._fresh = True  # nothing has been heard on this connection yet
        self._heard: tuple[bytes, object] | None = None
        self._stirred = asyncio.Event()
        self._decided = asyncio.Event()

    def stir(self) -> None:
        """Something may have changed: look."""
        self._decided.clear()
        self._stirred.set()

    @property
    def decided(self) -> bool:
        """Whether `current` is known to be right, None included."""
        return self._decided.is_set()

    def up(self) -> None:
        self._up = self._fresh = True
        self.stir()

    def down(self) -> None:
        self._up = False
        self._set(None)

    def rest(self) -> None:
        """Give no more signs of life, until it is up anew."""
        self._up = False

    def elsewhere(self) -> None:
        """It is another head from now on."""
        self._epoch = self._heard = None

    def moved(self) -> None:
        """This host stands elsewhere."""
        if self.current is not None and self._context.host.standing() != self.current.standing:
            self._set(None)
        self.stir()

    async def settled(self, stamp: Stamp) -> Current | None:
        """Where this host stands together with the engine, as soon as that is known; None: go on without it."""
        while self._context.link.up:
            if self._decided.is_set():
                return self.current if self.current is not None and self.current.stamp == stamp else None
            await self._decided.wait()
        return None

    async def run(self) -> None:
        """Look whenever there is a reason to, and give signs of life; until cancelled."""
        while True:
            await wait_some(self._stirred, self._context.config.heartbeat)
            self._stirred.clear()
            if not self._up:
                continue
            try:
                await self._look()
            except LostError:
                pass
            except FullError as exc:
                logger.warning(
                    "cache %r: the engine is full (%s); this host goes on by itself", self._context.name, exc
                )
                self._set(None)

    def _set(self, current: Current | None) -> None:
        before, self.current = self.current, current
        self._decided.set()
        if before != current:
            self._changed()

    async def _look(self) -> None:
        context = self._context
        keys, config, link = context.keys, context.config, context.link
        generation = self.current.generation if self.current is not None else "-"
        read = self._log.place()
        reply = await link.call(
            BEAT,
            (keys.head, keys.log, keys.nodes, keys.beats, keys.values(generation), keys.pieces(generation)),
            (generation, config.name, self._nodes.announcement, int(config.away_after * 1000), FORGET_SECONDS * 1000,
             KEEP_SECONDS * 1000),
        )  # fmt: skip
        assert isinstance(reply, list)
        epoch, run, seq, there, claim, chain, silent, before = reply
        assert isinstance(epoch, bytes)
        assert isinstance(run, bytes)
        assert isinstance(seq, bytes)
        assert isinstance(chain, bytes)
        assert isinstance(silent, list)
        at = (int(epoch), run.decode())
        ends = Place(at[0], int(seq), chain)
        # What had been read before the engine was asked is not there, or something else is: all has been put back to
        # what it was earlier.
        undone = ends.epoch == read.epoch and (
            ends.seq < read.seq or (ends.seq == read.seq and read.link not in (b"", ends.link))
        )
        if self._fresh or at != self._epoch or undone:
            context.counters["epochs"] += self._epoch is not None and (at != self._epoch or undone)
            self._epoch, self._fresh = at, False
            self._log.began(ends, undone)
        self._nodes.beat(
            [name.decode(errors="replace") for name in silent if isinstance(name, bytes)],
            before if isinstance(before, bytes) else None,
        )
        await self._settle(there if isinstance(there, bytes) else b"", claim if isinstance(claim, bytes) else b"", at)

    async def _settle(self, there: bytes, blob: bytes, at: tuple[int, str]) -> None:
        context, cache = self._context, self._cache
        standing = context.host.standing()
        if standing is None:
            self._set(None)
            return
        claim, heard = self._open(blob), None
        if claim is not None:
            # Heard once for each place that this host stands at: each time, a reset that fails here is tried again.
            news = (blob, standing) != self._heard
            self._heard = (blob, standing)
            heard = cache.hear(claim, news)
            if heard is Heard.AHEAD:
                self._set(None)
                return
        mine = cache.claim()
        generation = generation_of(standing.stamp, *at)
        if mine is None or mine.stamp != standing.stamp:
            self.stir()
            return
        if claim is None or heard is Heard.BEHIND or there.decode() != generation or _adds(mine, claim):
            # The engine has forgotten our stamp, or has not heard of it, or has begun anew.
            if not await self._put(there, blob, generation, mine, at):
                self.stir()
                return
            if context.host.standing() != standing:
                self.stir()
                return
        self._set(Current(standing, generation))

    async def _put(self, there: bytes, blob: bytes, generation: str, mine: Claim, at: tuple[int, str]) -> bool:
        """If this host's sidecar dies here, whoever stands at that stamp does it; if nobody does, nobody needs it."""
        context, keys = self._context, self._context.keys
        old = there.decode() or "-"
        head = context.codec.seal.close(self._purpose(), encode(Head(mine.stamp, dict(mine.seen))))
        said = context.sealed(Moved(generation))
        reply = await context.link.call(
            STAND,
            (keys.head, keys.log, keys.values(old), keys.pieces(old)),
            (there, blob, generation, head, str(at[0]), at[1], said, context.config.messages_max),
        )
        return reply == b"OK"

    def _purpose(self) -> tuple[bytes, ...]:
        return (b"head", self._context.name.encode())

    def _open(self, blob: bytes) -> Claim | None:
        if not blob:
            return None
        try:
            head = decode_head(self._context.codec.seal.open(self._purpose(), blob))
        except (TamperedError, msgspec.MsgspecError):
            self._context.counters["tampered"] += 1
            logger.warning("cache %r: the claim in the engine is not authentic, and is replaced", self._context.name)
            return None
        return Claim(Stamp(*head.stamp), head.seen)


def _adds(mine: Claim, there: Claim) -> bool:
    """Whether ours says more of the same stamp. One that is full is left alone, or hosts would replace it in turn."""
    if len(there.seen) >= SEEN_MAX:
        return False
    return any(counter > there.seen.get(origin, 0) for origin, counter in mine.seen.items())
