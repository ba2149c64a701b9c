"""What this host's workers want to compute, and the leases for it. One task follows each wish to its end.

    ASKED    the engine is asked                 -> COMPUTED: deliver · HELD · GRANTED
    HELD     somebody else computes (holding.py); woken by what comes of it, and when the lease would end: ask again
    GRANTED  a worker of this host computes; the lease is renewed until the entry is written (writing.py), or released
             with what it came to instead

What if the holder's sidecar dies: nobody renews, the lease ends after lease_ttl, and those who wait ask again; the
first of them is granted. Its worker's value stays on its host; a new sidecar there offers it, and it is refused while
another holds the lease. What if the engine dies or forgets the lease: two may compute the same key, under one stamp;
the first one to write is kept. What if it answers no more: the link is lost (connection.py), and whoever waits here
computes, at once.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import os
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field

from ..relay import Delivered, Ended, Entry, KeyId, Stamp
from ..waits import wait_some
from .connection import BULK, FullError, LostError
from .context import Context, Current
from .entries import UnreadableError, kept
from .fetching import open_entry
from .holding import Watch, proof_of
from .sayings import Abandoned, Message, Outcome, Wanted
from .scripts import LEASE, RELEASE, RENEW
from .seal import TamperedError
from .standing import Standings

__all__ = ["Wishes"]

logger = logging.getLogger("coopshm.cluster")

#: Outcomes up to this size are in the log itself, in bytes; larger ones beside it, for so many seconds.
INLINE_BYTES = 4096
PASSING_SECONDS = 30

#: Longest pause of one who waits, in seconds: should what it waits for have gone by unheard.
ASK_AGAIN_SECONDS = 5.0


class _State(enum.Enum):
    ASKED = 0
    HELD = 1
    GRANTED = 2


@dataclass(eq=False)
class _Wish:
    key_id: KeyId
    stamp: Stamp
    token: bytes = field(default_factory=lambda: os.urandom(16))
    state: _State = _State.ASKED
    fence: int = 0
    current: Current | None = None  # of the lease
    ended: bool = False
    wanted: bool = False
    outcome: Entry | Ended | None = None
    there: int | None = None  # the size of its entry, if that is known to be in the engine
    early: Outcome | None = None  # came before the answer that it belongs to
    timer: asyncio.TimerHandle | None = None
    watch: Watch | None = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    def over(self) -> bool:
        """Nobody waits for what this task brings any more."""
        return self.ended


class Wishes:
    """Of one cache on this host."""

    def __init__(
        self,
        context: Context,
        standings: Standings,
        unasked: Callable[[KeyId, int], None],
        spawn: Callable[[Coroutine[None, None, None]], asyncio.Task[None]],
    ) -> None:
        self._context = context
        self._unasked = unasked
        self._standings = standings
        self._spawn = spawn
        self._wishes: dict[KeyId, _Wish] = {}
        self._serial = 0
        self._serials: dict[bytes, int] = {}  # of outcomes, by the instance that sent them
        self._releases: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._wishes)

    def granted(self) -> int:
        return sum(wish.state is _State.GRANTED for wish in self._wishes.values())

    # -- what workers do

    def ask(self, stamp: Stamp, key_id: KeyId, nested: bool) -> None:
        wish = self._wishes.get(key_id)
        if wish is not None and wish.state is _State.GRANTED:
            self._end(wish, Ended.ABANDONED)  # the host would not ask if it went on
            wish = None
        if wish is None:
            if not self._context.link.up:
                self._context.host.grant(stamp, key_id)
                return
            wish = self._wishes[key_id] = _Wish(key_id, stamp)
            self._spawn(self._pursue(wish))
        if nested and wish.timer is None:
            # Might be one of a cycle across hosts, which nobody looks for: this is what ends it.
            loop = asyncio.get_running_loop()
            wish.timer = loop.call_later(self._context.config.lease_timeout, self._no_longer, wish)

    def _no_longer(self, wish: _Wish) -> None:
        if not wish.over() and wish.state is not _State.GRANTED:
            self._alone(wish)

    def ended(self, stamp: Stamp, key_id: KeyId, outcome: Entry | Ended) -> None:
        wish = self._wishes.get(key_id)
        if wish is None or wish.stamp != stamp or wish.state is not _State.GRANTED:
            return
        if outcome is not Ended.STORED:  # else until it is written
            self._end(wish, outcome)

    def withdrawn(self, stamp: Stamp, key_id: KeyId) -> None:
        wish = self._wishes.get(key_id)
        if wish is not None and wish.stamp == stamp:
            # If it was granted meanwhile, the worker had gone on without: it writes without a lease.
            self._end(wish, Ended.ABANDONED)

    # -- what else happens

    def moved(self, stamp: Stamp | None) -> None:
        """The cache stands there now. Leases of another stamp end by themselves: nobody asks for them any more."""
        for wish in [wish for wish in self._wishes.values() if wish.stamp != stamp]:
            self._drop(wish)

    def restarted(self) -> None:
        """The cache is another one, under the same stamp: what its processes wanted and held is void."""
        for wish in list(self._wishes.values()):
            self._end(wish, Ended.ABANDONED)

    def down(self) -> None:
        """The engine is lost: whoever waits computes. Leases that are held may still be held when it is back."""
        for wish in list(self._wishes.values()):
            if wish.state is not _State.GRANTED:
                self._alone(wish)

    async def stop(self) -> None:
        """Release all leases."""
        for wish in list(self._wishes.values()):
            self._end(wish, Ended.ABANDONED)
        if self._releases:
            await asyncio.wait(self._releases, timeout=self._context.config.answer_timeout)

    # -- what the log says

    def stored(self, key_id: KeyId, size: int) -> bool:
        """Its entry is in the engine; whether somebody waits for it here. If he goes, `unasked` is told."""
        wish = self._wishes.get(key_id)
        if wish is None or wish.state is _State.GRANTED:
            return False
        wish.there = size
        wish.wake.set()
        return True

    def wanted(self, key_id: KeyId) -> None:
        wish = self._wishes.get(key_id)
        if wish is not None and wish.state is _State.GRANTED and not wish.wanted:
            wish.wanted = True
            self._context.host.want(wish.stamp, key_id)
        elif wish is not None:
            wish.wanted = True  # the answer that grants it is on its way

    def again(self, key_id: KeyId | None = None) -> None:
        """The lease on this key, or any, may be free."""
        for wish in list(self._wishes.values()) if key_id is None else [self._wishes.get(key_id)]:
            if wish is not None and wish.state is not _State.GRANTED:
                wish.wake.set()

    def outcome(self, said: Outcome) -> None:
        if said.serial <= self._serials.get(said.instance, 0):
            return  # repeated, by whoever can write to the engine
        self._serials[said.instance] = said.serial
        wish = self._wishes.get(said.key_id)
        if wish is None or wish.state is _State.GRANTED:
            return
        if wish.state is _State.HELD and wish.fence == said.fence:
            self._spawn(self._take(wish, said))
        else:
            wish.early = said
            wish.wake.set()

    # -- for writing.py

    def holding(self, key_id: KeyId, current: Current) -> tuple[bytes, int]:
        """The token and fence with which to write the entry of a key; b"" and 0 if this host has no lease on it."""
        wish = self._wishes.get(key_id)
        if wish is None or wish.state is not _State.GRANTED or wish.current is None:
            return b"", 0
        return (wish.token, wish.fence) if wish.current.generation == current.generation else (b"", 0)

    def written(self, key_id: KeyId) -> None:
        """The script has ended the lease, or found that another holds it."""
        wish = self._wishes.get(key_id)
        if wish is not None and wish.state is _State.GRANTED:
            self._drop(wish)

    def passed(self, key_id: KeyId, entry: Entry) -> None:
        """The entry cannot be kept: those who wait get it all the same."""
        wish = self._wishes.get(key_id)
        if wish is not None and wish.state is _State.GRANTED:
            self._end(wish, entry)

    # -- one wish

    def _drop(self, wish: _Wish) -> None:
        wish.ended = True
        if wish.timer is not None:
            wish.timer.cancel()
        if self._wishes.get(wish.key_id) is wish:
            del self._wishes[wish.key_id]
        wish.wake.set()
        if wish.there is not None:
            self._unasked(wish.key_id, wish.there)

    def _end(self, wish: _Wish, outcome: Entry | Ended) -> None:
        self._drop(wish)
        if wish.state is _State.GRANTED and wish.current is not None:
            if isinstance(outcome, Entry):
                outcome = outcome._replace(payload=bytes(outcome.payload))
            task = self._spawn(self._release(wish, wish.current, outcome))
            self._releases.add(task)
            task.add_done_callback(self._releases.discard)

    def _alone(self, wish: _Wish) -> None:
        self._drop(wish)
        self._context.host.grant(wish.stamp, wish.key_id)

    async def _pursue(self, wish: _Wish) -> None:
        while not wish.over():
            current = await self._standings.settled(wish.stamp)
            if wish.over():
                return
            if current is None:
                self._alone(wish)
                return
            wish.wake.clear()  # before it asks: what is said from now on is news
            try:
                reply = await self._lease(wish, current)
                if reply[0] == b"GRANTED":
                    await self._granted(wish, current, int(reply[1]))
                    return
                if wish.over():
                    return
                if reply[0] == b"COMPUTED":
                    await self._computed(wish, current, reply[1])
                elif reply[0] == b"HELD":
                    await self._held(wish, current, reply[1:])
                else:
                    self._standings.stir()
            except (LostError, FullError):
                if not wish.over() and wish.state is not _State.GRANTED:
                    self._alone(wish)
                return

    async def _lease(self, wish: _Wish, current: Current) -> list[bytes]:
        context, keys, generation = self._context, self._context.keys, current.generation
        lease = keys.lease(generation, wish.key_id)
        said = context.sealed(Wanted(generation, wish.key_id))
        ttl = int(context.config.lease_ttl * 1000)
        proof = self._proof(wish, current, 0)
        reply = await context.link.call(
            LEASE,
            (keys.head, keys.log, keys.values(generation), lease),
            (generation, wish.key_id, wish.token, ttl, said, context.config.messages_max, proof),
        )
        assert isinstance(reply, list)
        return [part if isinstance(part, bytes) else b"%d" % part for part in reply if isinstance(part, (bytes, int))]

    async def _computed(self, wish: _Wish, current: Current, blob: bytes) -> None:
        context = self._context
        entry = await open_entry(context, current, wish.key_id, blob)
        if wish.over():
            return
        if entry is None:
            self._alone(wish)  # it has been removed
            return
        context.counters["entries_received"] += 1
        result = await context.host.deliver(wish.stamp, entry)
        self.delivered(wish.key_id, wish.stamp, result, answered=True)

    def delivered(self, key_id: KeyId, stamp: Stamp, result: Delivered, answered: bool = False) -> None:
        """An entry or outcome of this key was handed to the host; `answered`: because of a wish."""
        counters = self._context.counters
        counters["entries_known"] += result is Delivered.KNOWN
        counters["entries_stale"] += result is Delivered.STALE
        counters["entries_without_room"] += result in (Delivered.FULL, Delivered.PASSED)
        wish = self._wishes.get(key_id)
        if wish is None or wish.stamp != stamp or wish.state is _State.GRANTED:
            return
        if result is Delivered.GONE:
            self._alone(wish)
        elif answered or result not in (Delivered.FULL, Delivered.UNWANTED):
            self._drop(wish)
        # Else nobody waited when it was handed over, and it was not stored: who has asked since is yet to be answered.

    def _proof(self, wish: _Wish, current: Current, serial: int) -> bytes:
        context, ttl = self._context, int(self._context.config.lease_ttl * 1000)
        return proof_of(context.codec.seal, context.name, current.generation, wish.key_id, wish.token, serial, ttl)

    async def _held(self, wish: _Wish, current: Current, reply: Sequence[bytes]) -> None:
        context, now = self._context, asyncio.get_running_loop().time()
        if wish.watch is None:
            wish.watch = Watch(2 * context.config.answer_timeout)
        try:
            fence, left, (token, proof) = int(reply[0]), int(reply[1]) / 1000, reply[2:]
            worth = wish.watch.left(
                context.codec.seal, context.name, current.generation, wish.key_id, token, proof, now
            )
        except ValueError:  # TamperedError is one
            worth = 0.0
        if not worth:
            context.counters["tampered"] += 1
            logger.warning("cache %r: a lease in the engine is held by no node: %r", context.name, wish.key_id[:40])
            self._alone(wish)
            return
        if wish.state is _State.ASKED:
            wish.state = _State.HELD
            self._context.host.hold(wish.stamp, wish.key_id)
        wish.fence = fence
        early, wish.early = wish.early, None
        if early is not None and early.fence == fence:
            await self._take(wish, early)
            return
        pause = min(max(left, 0.0) + 0.02, worth + 0.02, ASK_AGAIN_SECONDS)
        await wait_some(wish.wake, pause)

    async def _take(self, wish: _Wish, said: Outcome) -> None:
        """Hand on the outcome that this wish waits for."""
        context, current = self._context, self._standings.current
        if current is None or current.generation != said.generation or wish.over():
            return
        blob: object = said.entry
        try:
            if said.place:
                blob = await context.link.command("GET", context.keys.passing(said.generation, said.place), lane=BULK)
            if not isinstance(blob, bytes):
                wish.wake.set()  # it came too late for it
                return
            purpose = self._purpose(current, said.fence)
            entry = await context.codec.read(*await context.codec.open(purpose, blob, wish.key_id))
        except (TamperedError, UnreadableError):
            context.counters["tampered"] += 1
            wish.wake.set()
            return
        except LostError:
            return
        self.delivered(wish.key_id, wish.stamp, await context.host.deliver(wish.stamp, entry), answered=True)

    def _purpose(self, current: Current, fence: int) -> tuple[bytes, ...]:
        return kept(self._context.name, current.stamp, b"outcome", f"{current.generation} {fence}".encode())

    async def _granted(self, wish: _Wish, current: Current, fence: int) -> None:
        wish.state, wish.current, wish.fence = _State.GRANTED, current, fence
        if wish.over():  # nobody waits any more
            await self._release(wish, current, Ended.ABANDONED)
            return
        context = self._context
        wish.wake.clear()
        context.host.grant(wish.stamp, wish.key_id)
        if wish.wanted:
            context.host.want(wish.stamp, wish.key_id)
        keys = (context.keys.head, context.keys.log, context.keys.lease(current.generation, wish.key_id))
        ttl, serial = context.config.lease_ttl, 0
        while not wish.over():
            if not await wait_some(wish.wake, ttl / 3):
                serial += 1
                args = (current.generation, wish.token, int(ttl * 1000), self._proof(wish, current, serial))
                try:
                    await context.link.call(RENEW, keys, args)
                except (LostError, FullError):
                    pass  # if it is not renewed in time, another one may compute as well

    async def _release(self, wish: _Wish, current: Current, outcome: Entry | Ended) -> None:
        context, keys = self._context, self._context.keys
        generation = current.generation
        said: Message = Abandoned(generation, wish.key_id)
        if await self._standings.settled(wish.stamp) != current:
            return  # of another generation, or lost meanwhile: there is nothing to release
        try:
            if isinstance(outcome, Entry) and len(outcome.payload) <= context.config.entry_bytes_max:
                made = await context.codec.make(self._purpose(current, wish.fence), outcome, in_pieces=False)
                place = b""
                if len(made.blob) > INLINE_BYTES:
                    place = os.urandom(16)
                    where = keys.passing(generation, place)
                    await context.link.command("SET", where, made.blob, "PX", PASSING_SECONDS * 1000, lane=BULK)
                self._serial += 1  # in the order in which they are sent
                inline = made.blob if not place else b""
                said = Outcome(
                    generation, wish.key_id, wish.fence, context.instance, self._serial, inline, place
                )  # fmt: skip
            await context.link.call(
                RELEASE,
                (keys.head, keys.log, keys.lease(generation, wish.key_id)),
                (generation, wish.token, context.sealed(said), context.config.messages_max),
            )
        except (LostError, FullError):
            pass  # the lease ends by itself
