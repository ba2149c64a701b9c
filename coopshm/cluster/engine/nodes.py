"""Who else is there: what each node has said of where it stands, and whether it still gives signs of life.

A node says so in the log whenever that changes, and keeps what it said last in a hash, for those who come later. Its
signs of life go by the engine's clock. Who is away is found by each node for itself, and matters only to who waits for
a reset and to who looks at the status: leases end by themselves.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence

import msgspec

from ..resets import Cache
from .connection import FullError, LostError, Reply
from .context import Context
from .sayings import Joined, Left, decode
from .scripts import ANNOUNCE, LEAVE
from .seal import TamperedError

__all__ = ["Nodes"]

logger = logging.getLogger("coopshm.cluster")

#: Instances that have said that they end, and are remembered: what the hash had of them may be read after that.
_LEFT_MAX = 1024


class Nodes:
    """The nodes of one cache's cluster."""

    def __init__(self, context: Context, cache: Cache) -> None:
        self._context = context
        self._cache = cache
        self._said: dict[str, Joined] = {}
        self._since: dict[str, float] = {}
        self._silent: set[str] = set()
        self._left: deque[bytes] = deque(maxlen=_LEFT_MAX)
        self._wanted = asyncio.Event()
        self._warned: set[bytes] = set()
        self._alive = False  # a sign of life was given on this connection
        self.announcement = b""
        self._announce()

    # -- this one

    def _announce(self) -> bytes:
        config, context = self._context.config, self._context
        self.announcement = context.sealed(
            Joined(config.name, context.instance, self._cache.announcement(), list(context.knows))
        )
        return self.announcement

    def announce(self) -> None:
        """Say where this node stands, soon. After a loss that comes with the first sign of life, which must be
        first: it is what begins a new epoch, and a message before it would be of one that readers are past."""
        self._wanted.set()

    async def run(self) -> None:
        """Say it whenever that is wished, until cancelled."""
        context = self._context
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if not self._alive:
                continue
            keys = (context.keys.head, context.keys.log, context.keys.nodes)
            said = self._announce()
            try:
                await context.link.call(
                    ANNOUNCE, keys, ("", context.config.name, said, said, context.config.messages_max)
                )
            except LostError:
                pass  # it is said anew when there is a connection again
            except FullError:
                pass  # and with the next sign of life

    async def leave(self) -> None:
        """Say that this node ends."""
        context = self._context
        keys = (context.keys.head, context.keys.log, context.keys.nodes, context.keys.beats)
        left = context.sealed(Left(context.config.name, context.instance))
        args = ("", context.config.name, self.announcement, left, context.config.messages_max)
        await context.link.call(LEAVE, keys, args)

    # -- the others

    def live(self) -> dict[str, float]:
        """Those that give signs of life, each with when it was first heard."""
        return {name: since for name, since in self._since.items() if name not in self._silent}

    def knows(self) -> list[list[str]]:
        """Of those that give signs of life, which secrets each one knows."""
        return [said.knows for name, said in self._said.items() if name not in self._silent]

    def known(self) -> dict[str, Joined]:
        """What each has said last."""
        return dict(self._said)

    def heard(self, said: Joined) -> None:
        name = said.node
        if name == self._context.config.name:
            self._check_own(said)
            return
        if said.instance in self._left:
            return
        before = self._said.get(name)
        if before is not None and before.instance != said.instance:
            self._cache.lost(name)  # it has begun anew, and so its numbers
            before = None
        if before is None:
            self._since[name] = time.time()
        elif said.standing.number < before.standing.number:
            return  # repeated
        self._said[name] = said
        self._silent.discard(name)
        self._cache.heard(name, said.standing)

    def left(self, name: str, instance: bytes) -> None:
        self._left.append(instance)
        said = self._said.get(name)
        if said is not None and said.instance == instance:
            self._forget(name)

    def beat(self, silent: Sequence[str], before: bytes | None) -> None:
        """What a sign of life of this node was answered with."""
        first, self._alive = not self._alive, True
        now = set(silent) & set(self._said)
        for name in now - self._silent:
            self._cache.lost(name)
        back = self._silent - now
        self._silent = now
        for name in back & set(self._said):
            self._cache.heard(name, self._said[name].standing)
        if first or before != self.announcement:  # the engine had forgotten it, or another one has this name
            said = self._open(before) if before is not None else None
            if isinstance(said, Joined) and before != self.announcement:
                self._check_own(said)
            self.announce()

    def take(self, found: Reply | dict[bytes, bytes], before: Mapping[str, Joined]) -> None:
        """What all nodes have said last (HGETALL); `before`: who was known when that was asked for, and by what.

        The log comes by another connection. So who has been heard since may be missing in the answer, and is there.
        """
        if not isinstance(found, dict):
            return
        names = set()
        for blob in found.values():
            opened = self._open(blob)
            if isinstance(opened, Joined):
                names.add(opened.node)
                self.heard(opened)
        for name, said in before.items():
            if name not in names and self._said.get(name) is said:
                self._forget(name)

    def elsewhere(self) -> None:
        """It is another place from now on."""
        self._announce()

    def down(self) -> None:
        """The engine is lost, and with it all nodes."""
        self._alive = False
        for name in list(self._said):
            self._forget(name)

    def _forget(self, name: str) -> None:
        self._said.pop(name, None)
        self._since.pop(name, None)
        self._silent.discard(name)
        self._cache.lost(name)

    def _open(self, blob: bytes) -> object:
        purpose = (b"message", self._context.name.encode())
        try:
            return decode(self._context.codec.seal.open(purpose, blob))
        except (TamperedError, msgspec.MsgspecError):
            self._context.counters["tampered"] += 1
            return None

    def _check_own(self, said: Joined) -> None:
        mine = self._context.instance
        if said.instance != mine and said.instance not in self._warned:
            # One that was killed has left its own behind: that is no second one, but cannot be told from one at first.
            if self._warned:
                logger.error("another sidecar is node %r as well: each needs a name of its own", said.node)
            self._warned.add(said.instance)
