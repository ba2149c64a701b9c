"""The engine's log into this host.

Messages have the engine's epoch and an own number as their id. Who finds that one is missing (the log is bounded, and
this host was away) or that the epoch is another one takes all anew: it asks again for what its workers wait for, and
with `replicate = "all"` goes through all entries, while it goes on reading. What is read before a snapshot and what is
read after it may overlap; nothing is stored twice.

Should somebody put all keys back to what they were, numbers come twice, and the second ones would not be read. Each
message tells on which link of a chain it hangs, which follows from all before it (lua/common.lua). So the first number
after those shows it, and so does the head with each sign of life (standing.py). All is taken anew then, and offered
anew: the engine has lost entries. The chain is of authentic messages; what else is in the log breaks nothing.

With "all", entries are taken as the log says that they are there; with "on_demand", those that workers wait for. The
latter do not wait behind the former: they are asked for by wishes.py. What the host cannot take (its lock's holder is
stopped; a worker is computing it, and may come to nothing) is taken later, less and less often.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Coroutine

import msgspec

from ..relay import Delivered, KeyId
from ..waits import end, wait_some
from .connection import BULK, FullError, LostError
from .context import Context, Current
from .fetching import open_entry
from .nodes import Nodes
from .sayings import Abandoned, Joined, Left, Message, Moved, Outcome, Stored, Wanted, decode
from .seal import TamperedError
from .standing import Place, Standings
from .wishes import Wishes

__all__ = ["Reading"]

logger = logging.getLogger("coopshm.cluster")

#: Entries and bytes that are fetched together, and entries that are noted to be fetched: beyond, all is taken anew.
FETCH_ENTRIES = 128
FETCH_BYTES = 1024 * 1024
NOTED_MAX = 65_536

#: Entries of one step through all of them: the first, and the most. Steps are made so long that they bring FETCH_BYTES.
SCAN_FIRST = 16
SCAN_MAX = 1024

#: Seconds after which what the host could not take is tried again: the first time, and at most.
AGAIN_SECONDS = 1.0
AGAIN_SECONDS_MAX = 30.0

#: Of these so many are remembered by key. If there are more, all entries are gone through once more.
MISSED_MAX = 65_536


class Reading:
    """Of one cache."""

    def __init__(
        self,
        context: Context,
        standings: Callable[[], Standings],
        nodes: Nodes,
        wishes: Callable[[], Wishes],
        offer: Callable[[], None],
        spawn: Callable[[Coroutine[None, None, None]], asyncio.Task[None]],
    ) -> None:
        self._context = context
        self._standings_of = standings
        self._nodes = nodes
        self._wishes_of = wishes
        self._offer = offer
        self._spawn = spawn
        self._all = context.config.replicate == "all"
        self._at = Place(0, 0, b"")
        self._tail: asyncio.Task[None] | None = None
        self._fetch: asyncio.Task[None] | None = None
        self._noted: dict[KeyId, int] = {}
        self._missed: dict[KeyId, int] = {}  # the host could not take them,
        self._more_missed = False  # nor others than these
        self._again, self._pause = 0.0, AGAIN_SECONDS  # when they are tried again
        self._fetching = False  # some that were noted are on their way
        self._more = asyncio.Event()
        self._taken: Current | None = None  # of which all has been taken
        self._warned = 0

    @property
    def _standings(self) -> Standings:
        return self._standings_of()

    @property
    def _wishes(self) -> Wishes:
        return self._wishes_of()

    # -- where it reads

    def place(self) -> Place:
        return self._at

    def began(self, ends: Place, undone: bool) -> None:
        self.down()
        if self._at.epoch != ends.epoch or undone:
            self._at = ends
            self._anew()
        if undone:
            self._undone()
        self._spawn(self._meet())
        self._tail = asyncio.ensure_future(self._read())

    def elsewhere(self) -> None:
        """It is another log from now on."""
        self._at, self._taken = Place(0, 0, b""), None

    def down(self) -> None:
        if self._tail is not None:
            self._tail.cancel()
            self._tail = None

    def changed(self) -> None:
        """This host and the engine stand elsewhere."""
        if self._fetch is not None:
            self._fetch.cancel()
            self._fetch = None
        if self._noted or self._missed or self._fetching:
            self._taken = None  # the log will not tell of these again
        self._noted.clear()
        self._missed.clear()
        self._more_missed = False
        self._fetching = False
        current = self._standings.current
        if self._all and current is not None:
            self._fetch = asyncio.ensure_future(self._take(current))

    async def stop(self) -> None:
        tasks = [task for task in (self._tail, self._fetch) if task is not None]
        self._tail = None
        await end(tasks)

    def _undone(self) -> None:
        logger.warning(
            "cache %r: the engine was put back to what it was earlier; all is taken anew", self._context.name
        )
        self._offer()

    def _anew(self) -> None:
        """Something may have gone by unread."""
        self._taken = None
        self._wishes.again()
        self.changed()

    async def _meet(self) -> None:
        before = self._nodes.known()
        try:
            self._nodes.take(await self._context.link.command("HGETALL", self._context.keys.nodes), before)
        except (LostError, FullError):
            pass

    async def _read(self) -> None:
        log = self._context.keys.log
        try:
            while self._tail is asyncio.current_task():  # there may be another one by now (waits.py)
                messages = await self._context.link.tail(log, f"{self._at.epoch}-{self._at.seq}")
                for name, blob, link in messages if self._tail is asyncio.current_task() else ():
                    epoch, _, seq = name.partition(b"-")
                    self._reach(int(epoch), int(seq), blob, link)
        except LostError:
            pass

    def _reach(self, epoch: int, seq: int, blob: bytes, link: bytes) -> None:
        """The next message that there is."""
        before, said = self._at, self._open(blob)
        missed = (epoch, seq) != (before.epoch, before.seq + 1)
        expected = b"" if missed else before.link
        chained = said is not None and bool(link or not expected)
        undone = chained and bool(expected) and link != expected
        self._at = Place(epoch, seq, _next(link, blob) if chained else expected)
        if missed or undone:
            self._context.counters["gaps"] += 1
            self._standings.stir()
            self._anew()
            self._spawn(self._meet())
        if undone:
            self._undone()
        if said is not None:
            self._hear(said)

    # -- what it says

    def _open(self, blob: bytes) -> Message | None:
        try:
            return decode(self._context.codec.seal.open((b"message", self._context.name.encode()), blob))
        except (TamperedError, msgspec.MsgspecError):
            self._context.counters["tampered"] += 1
            self._warned += 1
            if self._warned & (self._warned - 1) == 0:  # 1, 2, 4, 8, ...
                name = self._context.name
                logger.warning("cache %r: %d messages in the engine's log are not authentic", name, self._warned)
            return None

    def _hear(self, said: Message) -> None:
        if isinstance(said, Joined):
            self._nodes.heard(said)
            return
        if isinstance(said, Left):
            self._nodes.left(said.node, said.instance)
            return
        current = self._standings.current
        if current is None or said.generation != current.generation:
            if isinstance(said, Moved):
                self._standings.stir()
            return
        if isinstance(said, Stored):
            self._stored(current, said)
        elif isinstance(said, Wanted):
            self._wishes.wanted(said.key_id)
        elif isinstance(said, Abandoned):
            self._wishes.again(said.key_id)
        elif isinstance(said, Outcome):
            self._wishes.outcome(said)

    def _stored(self, current: Current, said: Stored) -> None:
        if not self._wishes.stored(said.key_id, said.size):
            self._note(current, said.key_id, said.size)

    def unasked(self, key_id: KeyId, size: int) -> None:
        """Its entry is in the engine, and who has waited for it does not any more."""
        if self._standings.current is not None:
            self._note(self._standings.current, key_id, size)

    def _note(self, current: Current, key_id: KeyId, size: int) -> None:
        if self._all and self._context.host.find(current.stamp, key_id) is None:
            self._noted[key_id] = size
            self._more.set()
            if len(self._noted) > NOTED_MAX:
                self._taken = None
                self.changed()

    # -- taking all

    async def _take(self, current: Current) -> None:
        try:
            if self._taken != current:
                await self._scan(current)
                self._taken = current
            while self._standings.current == current:
                self._more.clear()
                left = self._again - asyncio.get_running_loop().time()
                if self._missed and left <= 0:
                    await self._take_missed(current)
                    continue
                if not self._noted:
                    await (wait_some(self._more, left) if self._missed else self._more.wait())
                    continue
                keys: list[KeyId] = []
                size = 0
                for key_id, bytes_ in self._noted.items():
                    if keys and (len(keys) == FETCH_ENTRIES or size + bytes_ > FETCH_BYTES):
                        break
                    keys.append(key_id)
                    size += bytes_
                for key_id in keys:
                    del self._noted[key_id]
                self._fetching = True
                values = self._context.keys.values(current.generation)
                found = await self._context.link.command("HMGET", values, *keys, lane=BULK)
                blobs = found if isinstance(found, list) else []
                await self._deliver(current, {k: b for k, b in zip(keys, blobs, strict=True) if isinstance(b, bytes)})
                self._fetching = False
        except (LostError, FullError):
            pass

    async def _take_missed(self, current: Current) -> None:
        missed, self._missed = self._missed, {}
        if self._more_missed:
            self._more_missed, self._taken = False, None
            await self._scan(current)
            self._taken = current
        else:
            find = self._context.host.find
            self._noted |= {key: size for key, size in missed.items() if find(current.stamp, key) is None}

    async def _scan(self, current: Current) -> None:
        """Go through all entries. What is written meanwhile is in the log."""
        values = self._context.keys.values(current.generation)
        cursor, count = b"0", SCAN_FIRST
        while self._standings.current == current:
            reply: object = await self._context.link.command("HSCAN", values, cursor, "COUNT", count, lane=BULK)
            assert isinstance(reply, (list, tuple))
            at, found = reply
            assert isinstance(found, dict)
            await self._deliver(current, found)
            if int(at) == 0:
                return
            cursor = b"%d" % int(at)
            mean = sum(len(blob) for blob in found.values()) // max(len(found), 1) + 1
            count = max(1, min(SCAN_MAX, FETCH_BYTES // mean))

    async def _deliver(self, current: Current, found: dict[KeyId, bytes]) -> None:
        host = self._context.host
        burst: list[tuple[KeyId, asyncio.Future[Delivered]]] = []
        for key_id, blob in found.items():
            if host.find(current.stamp, key_id) is not None:
                continue
            entry = await open_entry(self._context, current, key_id, blob)
            if entry is not None:
                self._context.counters["entries_received"] += 1
                burst.append((key_id, asyncio.ensure_future(host.deliver(current.stamp, entry))))
            del entry
        for key_id, delivered in burst:
            result = await delivered
            self._wishes.delivered(key_id, current.stamp, result)
            if self._all and result in (Delivered.GONE, Delivered.JOINED):
                self._miss(key_id, len(found[key_id]))
        if not self._missed:
            self._pause = AGAIN_SECONDS

    def _miss(self, key_id: KeyId, size: int) -> None:
        if not self._missed:
            self._again = asyncio.get_running_loop().time() + self._pause
            self._pause = min(2 * self._pause, AGAIN_SECONDS_MAX)
        if len(self._missed) < MISSED_MAX:
            self._missed[key_id] = size
        else:
            self._more_missed = True


def _next(link: bytes, message: bytes) -> bytes:
    """The link that the next message hangs on, as lua/common.lua makes it."""
    return hashlib.sha1(link + message, usedforsecurity=False).hexdigest()[:16].encode()
