"""Commit logs between nodes: each node follows the log of every other that stands where it does, cache by cache.

The follower says from where on: from where it was when the connection ended, if neither side's segment has begun anew
since, else from the beginning. There is no queue for a slow follower, it is simply further behind in a log that is
there anyway.

First it *catches up*: with all that the other has, whoever computed it, because that one may be gone. Keys are offered,
and what is missing is taken. So it does not matter how many nodes have the same; a newcomer takes everything from the
first one, and from the others what that one lacked. It catches up with one node at a time, so that no two send it the
same; if that one goes, or says nothing for a while, with the next. Then entries come as the workers of that host store
them.

What could not be stored when it came, since the segment's lock was not to be had, a worker was computing the same, or
there was no memory for it, is taken later: the place in that log stays before the first of these, and after a pause the
log is followed from there anew. (What there is no room for is not taken again: there will be none before a reset.)
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

from . import messages as m
from .relay import Delivered, Entry, Kind, Origin, StaleError, Stamp
from .resets import Cache
from .wire import PIECE_BYTES, Sender

__all__ = ["Followers", "Following"]

logger = logging.getLogger("coopshm.cluster")

#: Payload bytes of one read: they are pinned until sent.
READ_BYTES_MAX = 16 * 1024 * 1024
READ_ENTRIES_MAX = 512

#: Entries of one log that are being delivered at a time, if they are short: a host takes a burst in one go. Payload
# bytes of : those: longer ones count against the memory for what is received until they are delivered.
DELIVERIES_MAX = 128
SHORT_BYTES = 16 * 1024

#: Seconds until a log is followed anew of which something could not be stored, or whose node could not send it: at
#: first, and at most.
AGAIN_SECONDS = 1.0
AGAIN_SECONDS_MAX = 30.0

#: Seconds after which a node that says nothing while it is caught up with is no reason not to catch up with the next.
SILENT_SECONDS = 10.0


@dataclass
class _Place:
    """Where following a log ended, and of which log, and into which segment and generation here."""

    origin: str
    generation: int
    mine: tuple[str, int]
    position: int
    pause: float = field(default_factory=lambda: AGAIN_SECONDS)


@dataclass
class _Follow:
    stream: int
    cache: str
    stamp: Stamp
    place: _Place
    offered: int | None = None
    catching_up_to: int | None = None
    caught_up: bool = False
    delivering: deque[tuple[asyncio.Future[Delivered], int]] = field(default_factory=deque)
    missed: bool = False  # something could not be stored: the place stays before it
    again: float | None = None  # when that is to be taken
    news: bool = True  # something has come since the last tick
    silent_since: float = 0.0
    silent: bool = False


class Following:
    """The logs that this node follows. `send(node, message)`; `deliver(stamp, entry)` of a cache does what is to be
    done. `entry_bytes_max`: larger ones are never taken."""

    def __init__(
        self,
        caches: dict[str, Cache],
        send: Callable[[str, m.Message], None],
        arrived: Callable[[str, Stamp, Entry, Delivered], None],
        entry_bytes_max: int,
    ) -> None:
        self._entry_bytes_max = entry_bytes_max
        self._caches = caches
        self._send = send
        self._arrived = arrived
        self._nodes: set[str] = set()
        self._follows: dict[tuple[str, str], _Follow] = {}  # node, cache
        self._places: dict[tuple[str, str], _Place] = {}
        self._resting: dict[tuple[str, str], float | None] = {}  # could not send its log: when it is asked again
        self._streams = 0
        self.entries = 0
        self.known = 0
        self.stale = 0
        self.full = 0

    def connected(self, node: str) -> None:
        self._nodes.add(node)
        for cache in self._caches:
            self.consider(cache)

    def lost(self, node: str) -> None:
        self._nodes.discard(node)
        for key in [key for key in self._follows if key[0] == node]:
            self._end(key)
        for cache in self._caches:
            self._resting.pop((node, cache), None)
            self.consider(cache)

    def stands(self, node: str, cache: str) -> None:
        """That node has said where it stands."""
        self._resting.pop((node, cache), None)
        self.consider(cache)

    def tick(self, now: float) -> None:
        """What is to be done after some time."""
        changed = set()
        for key, follow in list(self._follows.items()):
            if follow.news or follow.caught_up:
                follow.news, follow.silent, follow.silent_since = False, False, now
            elif not follow.silent and now >= follow.silent_since + SILENT_SECONDS:
                follow.silent = True
                changed.add(key[1])
            if not follow.missed or not follow.caught_up:
                continue
            if follow.again is None:
                follow.again = now + follow.place.pause
                follow.place.pause = min(2 * follow.place.pause, AGAIN_SECONDS_MAX)
            elif now >= follow.again:
                self._end(key)
                changed.add(key[1])
        for key, until in list(self._resting.items()):
            if until is None:
                self._resting[key] = now + AGAIN_SECONDS
            elif now >= until:
                del self._resting[key]
                changed.add(key[1])
        for cache in changed:
            self.consider(cache)

    def consider(self, cache: str) -> None:
        """Somebody's standing has changed: begin to follow whom there is to follow, the next of them."""
        here = self._caches[cache]
        standing = here.standing()
        for key, follow in [item for item in self._follows.items() if item[0][1] == cache]:
            theirs, place = here.together(key[0]), follow.place
            logs = (theirs.origin, theirs.generation) if theirs is not None else None
            mine = (standing.origin, standing.generation) if standing is not None else None
            if logs != (place.origin, place.generation) or mine != place.mine:
                self._end(key)
        follows = [follow for (_, name), follow in self._follows.items() if name == cache]
        if standing is None or not all(follow.caught_up or follow.silent for follow in follows):
            return
        for node in sorted(self._nodes):
            theirs = here.together(node)
            if theirs is not None and (node, cache) not in self._follows and (node, cache) not in self._resting:
                self._begin(node, cache, theirs, standing.stamp, (standing.origin, standing.generation))
                return

    def _begin(self, node: str, cache: str, theirs: m.Standing, stamp: Stamp, mine: tuple[str, int]) -> None:
        place = self._places.get((node, cache))
        if place is None or (place.origin, place.generation, place.mine) != (theirs.origin, theirs.generation, mine):
            place = self._places[node, cache] = _Place(theirs.origin, theirs.generation, mine, 0)
        self._streams += 1
        self._follows[node, cache] = _Follow(self._streams, cache, stamp, place)
        subscribe = m.Subscribe(self._streams, cache, stamp, place.origin, place.generation, place.position)
        self._send(node, subscribe)

    def _end(self, key: tuple[str, str]) -> None:
        del self._follows[key]

    def behind(self, cache: str) -> set[str]:
        """The connected nodes that stand where this host does, and may have entries that it lacks."""
        here = self._caches.get(cache)
        if here is None or here.standing() is None:
            return set()
        return {node for node in self._nodes if here.together(node) and not self.follows(node, cache)}

    def follows(self, node: str, cache: str) -> bool:
        """Whether entries come from there as they are stored, and all that were there have come."""
        follow = self._follows.get((node, cache))
        return follow is not None and follow.caught_up and not follow.missed

    def _find(self, node: str, stream: int) -> _Follow | None:
        return next((f for (name, _), f in self._follows.items() if name == node and f.stream == stream), None)

    # -- what comes

    def hear(self, node: str, message: m.Log | m.Offer | m.CaughtUp | m.Over) -> None:
        follow = self._find(node, message.stream)
        if follow is None:
            return
        follow.news = True
        place = follow.place
        if isinstance(message, m.Log):
            place.origin, place.generation = message.origin, message.generation
            place.position = message.position
        elif isinstance(message, m.Offer):
            if follow.offered is not None and not follow.missed:
                place.position = follow.offered
            follow.offered = message.position
            host = self._caches[follow.cache].host
            missing = [at for at, key_id in enumerate(message.keys) if host.find(follow.stamp, key_id) is None]
            self._send(node, m.Take(message.stream, missing))
        elif isinstance(message, m.CaughtUp):
            follow.catching_up_to = message.position
            self._delivered(follow)
        else:
            self._end((node, follow.cache))
            self._resting[node, follow.cache] = None
            self.consider(follow.cache)

    async def entry(self, node: str, begin: m.Begin, payload: bytes | memoryview | None) -> None:
        """An entry of a log, with nothing but its stream to say of which. Short ones are handed over in bursts."""
        follow = self._find(node, begin.number)
        if follow is None:
            return
        entry = Entry(begin.key_id or begin.key, begin.key, begin.format, Kind(begin.kind), payload or b"")
        follow.news = True
        if payload is None:
            follow.missed |= begin.size <= self._entry_bytes_max
            self._arrived(follow.cache, follow.stamp, entry, Delivered.GONE)
            return
        task = asyncio.ensure_future(self._deliver(follow, entry))
        follow.delivering.append((task, begin.position))
        task.add_done_callback(lambda _: self._delivered(follow))
        if len(payload) > SHORT_BYTES or len(follow.delivering) >= DELIVERIES_MAX:
            await asyncio.wait([task])

    async def _deliver(self, follow: _Follow, entry: Entry) -> Delivered:
        result = await self._caches[follow.cache].host.deliver(follow.stamp, entry)
        # In the same step: who asks for the key next is another one than those whom this has answered.
        self._arrived(follow.cache, follow.stamp, entry._replace(payload=b""), result)
        return result

    def _delivered(self, follow: _Follow) -> None:
        """Some deliveries have ended: the place in the log moves on in its order."""
        while follow.delivering and follow.delivering[0][0].done():
            task, position = follow.delivering.popleft()
            if task.cancelled():
                continue
            error = task.exception()
            if error is not None:
                logger.error("an entry of cache %r could not be stored: %r", follow.cache, error, exc_info=error)
            result = Delivered.GONE if error is not None else task.result()
            self.entries += 1
            self.known += result is Delivered.KNOWN
            self.stale += result is Delivered.STALE
            self.full += result in (Delivered.FULL, Delivered.PASSED)
            follow.missed |= result in (Delivered.GONE, Delivered.JOINED)
            if not follow.missed:
                follow.place.position = max(follow.place.position, position)
        if follow.catching_up_to is not None and not follow.delivering:
            # Not before: who is said to be caught up with is not asked for what cannot be found here.
            if not follow.missed:
                follow.place.position, follow.place.pause = follow.catching_up_to, AGAIN_SECONDS
            follow.catching_up_to, follow.caught_up = None, True
            self.consider(follow.cache)


@dataclass
class _Stream:
    number: int
    task: asyncio.Task[None]
    taken: asyncio.Queue[list[int]]
    idle: bool = False


class Followers:
    """The other nodes' following of this one's logs."""

    def __init__(
        self,
        caches: dict[str, Cache],
        entry_bytes_max: int,
        spawn: Callable[[Coroutine[None, None, None]], asyncio.Task[None]],
    ) -> None:
        self._caches = caches
        self._entry_bytes_max = entry_bytes_max
        self._spawn = spawn
        self._streams: dict[tuple[str, str], _Stream] = {}
        self.entries = 0
        self.too_large = 0

    def lost(self, node: str) -> None:
        for key in [key for key in self._streams if key[0] == node]:
            self._streams.pop(key).task.cancel()

    def idle(self) -> bool:
        """Whether everything that there is has been handed on."""
        return all(stream.idle for stream in self._streams.values())

    def subscribe(self, node: str, out: Sender, message: m.Subscribe) -> None:
        key = (node, message.cache)
        before = self._streams.get(key)
        if message.cache not in self._caches or (before is not None and before.number >= message.stream):
            return
        if before is not None:
            before.task.cancel()
        taken: asyncio.Queue[list[int]] = asyncio.Queue(1)
        task = self._spawn(self._serve(key, out, message, taken))
        self._streams[key] = _Stream(message.stream, task, taken)

    def take(self, node: str, message: m.Take) -> None:
        for (name, _), stream in self._streams.items():
            if name == node and stream.number == message.stream and not stream.taken.full():
                stream.taken.put_nowait(message.indices)

    async def _serve(
        self, key: tuple[str, str], out: Sender, message: m.Subscribe, taken: asyncio.Queue[list[int]]
    ) -> None:
        cache = self._caches[message.cache]
        standing = cache.standing()
        try:
            if standing is None or standing.stamp != message.stamp:
                raise StaleError
            generation = standing.generation
            same = (message.origin, message.generation) == (standing.origin, generation)
            position = message.position if same else 0
            out.send(m.Log(message.stream, standing.origin, generation, position))
            position = await self._catch_up(cache, out, message.stream, generation, position, taken)
            out.send(m.CaughtUp(message.stream, position))
            while True:
                self._streams[key].idle = True
                await cache.host.changed(generation, position)
                self._streams[key].idle = False
                position = await self._pass_on(cache, out, message.stream, generation, position)
        except StaleError:
            out.send(m.Over(message.stream))
            self._streams[key].idle = True
        except ConnectionError:
            pass  # whoever follows comes again
        except Exception as exc:  # whatever it is: who follows must not wait for ever
            logger.error("the log of cache %r cannot be sent to %s: %r", *reversed(key), exc, exc_info=exc)
            out.send(m.Over(message.stream))
            self._streams[key].idle = True

    async def _catch_up(
        self,
        cache: Cache,
        out: Sender,
        stream: int,
        generation: int,
        position: int,
        taken: asyncio.Queue[list[int]],
    ) -> int:
        while True:
            batch = await cache.host.read(generation, position, Origin.ALL, READ_BYTES_MAX, READ_ENTRIES_MAX)
            entries = [entry for _, entry in batch.entries if len(entry.payload) <= self._entry_bytes_max]
            if entries:
                out.send(m.Offer(stream, [entry.key_id for entry in entries], batch.position))
                wanted = await taken.get()
                await self._send(out, stream, [(position, entries[at]) for at in wanted if at < len(entries)])
            position = batch.position
            if batch.end:
                return position

    async def _pass_on(self, cache: Cache, out: Sender, stream: int, generation: int, position: int) -> int:
        """Send what the log has from there on, a batch of it. A function of its own: its entries are pinned in the
        segment for as long as a variable has them, and the next batch may be long in coming."""
        batch = await cache.host.read(generation, position, Origin.LOCAL, READ_BYTES_MAX, READ_ENTRIES_MAX)
        await self._send(out, stream, [(place + 1, entry) for place, entry in batch.entries])
        return batch.position

    async def _send(self, out: Sender, stream: int, entries: list[tuple[int, Entry]]) -> None:
        """Send entries, each with where the log goes on after it; so many at a time that other caches have a turn."""
        together: list[tuple[m.Begin, bytes | memoryview]] = []
        size = 0
        for position, entry in entries:
            if len(entry.payload) > self._entry_bytes_max:
                self.too_large += 1
                continue
            self.entries += 1
            together.append((begin_of(m.Purpose.LOG, stream, "", None, entry, position), entry.payload))
            size += len(entry.payload)
            if size > PIECE_BYTES:
                await out.log(together)
                together, size = [], 0
        if together:
            await out.log(together)


def begin_of(purpose: int, number: int, cache: str, stamp: Stamp | None, entry: Entry, position: int = 0) -> m.Begin:
    """What an entry begins with; wire.Sender fills in the rest."""
    key_id = b"" if entry.key_id == entry.key else entry.key_id
    return m.Begin(0, purpose, number, cache, stamp, key_id, entry.key, entry.format, entry.kind, 0, b"", position)
