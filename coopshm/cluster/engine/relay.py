"""The relay of nodes that meet in an engine: puts the parts together (see the head of the package)."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence

import msgspec

from ..relay import CacheStatus, Ended, Entry, Host, KeyId, NodeState, NodeStatus, Relay, Stamp, Status
from ..resets import Cache
from ..waits import end, wait_some
from .connection import FullError, Link, LostError
from .context import COUNTERS, Context, EngineConfig
from .entries import Codec
from .keyring import Keyring, choose
from .keys import Keys
from .nodes import Nodes
from .reading import Reading
from .sayings import Joined, decode
from .scripts import WHO
from .seal import TamperedError
from .standing import Standings
from .wishes import Wishes
from .writing import Writing

__all__ = ["EngineRelay"]

logger = logging.getLogger("coopshm.cluster")

#: Seconds for which that stays in the engine which nobody uses any more, since all nodes have another secret.
LEFT_SECONDS = 60


class _Part:
    """One cache."""

    def __init__(self, relay: EngineRelay, name: str, host: Host, context: Context) -> None:
        self.context = context
        self.cache = Cache(name, host, self._tell, relay.moved)
        self.nodes = Nodes(context, self.cache)
        self.reading = Reading(
            context, lambda: self.standings, self.nodes, lambda: self.wishes, self._offer, relay.spawn
        )
        self.standings = Standings(context, self.cache, self.nodes, self.reading, self._changed)
        self.wishes = Wishes(context, self.standings, self.reading.unasked, relay.spawn)
        self.writing = Writing(context, self.standings, self.wishes)

    def _tell(self, cache: str, node: str | None) -> None:
        if node is None:  # who is behind reads the head
            self.nodes.announce()

    def _offer(self) -> None:
        self.writing.anew()

    def _changed(self) -> None:
        self.writing.changed()
        self.reading.changed()

    def elsewhere(self, keys: Keys) -> None:
        """From now on it is kept under these names. While it is down."""
        self.context.keys = keys
        self.nodes.elsewhere()
        self.reading.elsewhere()
        self.standings.elsewhere()

    def up(self) -> None:
        self.standings.up()

    def down(self) -> None:
        self.reading.down()
        self.nodes.down()
        self.standings.down()
        self.wishes.down()


class EngineRelay(Relay):
    """See the head of the package."""

    def __init__(self, config: EngineConfig) -> None:
        """Takes a twentieth of a second for each secret, to derive a key from it.

        Raises:
            ImportError: it is to compress, and `zstandard` is not installed.
        """
        self._config = config
        self._keyring = Keyring((config.secret, *config.others), config.namespace)
        self._place = self._keyring.known[0]  # where the nodes meet, by the secret that it is sealed with
        self._arrived = False  # it has been chosen on this connection
        self._look = asyncio.Event()
        self._codec = Codec(self._keyring.first, config.entry_bytes_max, config.compress_above)
        self._instance = os.urandom(16)
        self._parts: dict[str, _Part] = {}
        self._counters: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._link: Link | None = None

    def spawn(self, what: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run it as a task that ends with the relay. One that fails is told of."""
        task = asyncio.get_running_loop().create_task(what)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a bug: please report it", exc_info=task.exception())

    # -- the relay protocol

    async def start(self, hosts: Mapping[str, Host]) -> None:
        config = self._config
        codec = self._codec
        self._link = link = Link(
            config.address, config.tls, config.answer_timeout, config.bulk_timeout, len(hosts), self._up, self._down
        )
        for name, host in hosts.items():
            keys = Keys(config.namespace, name, self._place)
            context = Context(
                name, host, config, link, keys, codec, self._instance, self._counters, self._keyring.known
            )
            self._parts[name] = _Part(self, name, host, context)
        for name, part in self._parts.items():
            self.moved(name)
            self.spawn(part.cache.run())
            self.spawn(part.nodes.run())
            self.spawn(part.standings.run())
        self.spawn(link.run())
        self.spawn(self._watch())

    async def stop(self, drain: float) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + drain
        parts = list(self._parts.values())
        while self._up_now() and loop.time() < until:
            if all([await part.writing.finished() for part in parts]):
                break
            await asyncio.sleep(0.01)
        for part in parts:
            await part.writing.stop()
        if self._up_now():
            # Others need not wait for what would end by itself anyway.
            farewells = [asyncio.ensure_future(self._leave(part)) for part in parts]
            await asyncio.wait(farewells, timeout=self._config.answer_timeout)
        for part in parts:
            await part.reading.stop()
        await end(self._tasks)

    async def _leave(self, part: _Part) -> None:
        try:
            await part.wishes.stop()
            await part.nodes.leave()
        except (LostError, FullError):
            pass

    def ask(self, cache: str, stamp: Stamp, key_id: KeyId, nested: bool) -> None:
        part = self._parts[cache]
        standing = part.cache.standing()
        if standing is not None and standing.stamp == stamp:
            part.wishes.ask(stamp, key_id, nested)

    def ended(self, cache: str, stamp: Stamp, key_id: KeyId, outcome: Entry | Ended) -> None:
        self._parts[cache].wishes.ended(stamp, key_id, outcome)

    def withdrawn(self, cache: str, stamp: Stamp, key_id: KeyId) -> None:
        self._parts[cache].wishes.withdrawn(stamp, key_id)

    def moved(self, cache: str) -> None:
        part = self._parts[cache]
        before = part.cache.standing_told()
        if not part.cache.changed():
            return
        standing = part.cache.standing()
        part.standings.moved()
        part.wishes.moved(standing.stamp if standing is not None else None)
        if standing is not None and before is not None and before.stamp == standing.stamp:
            part.wishes.restarted()

    def status(self) -> Status:
        parts = self._parts
        live = {cache: part.nodes.live() for cache, part in parts.items()}
        names = {name for part in parts.values() for name in part.nodes.known()}
        address, error = str(self._config.address), self._link.error if self._link is not None else ""
        own = {cache: CacheStatus(*_own(part.cache)) for cache, part in parts.items()}
        nodes = [NodeStatus(self._config.name, [address], self._up_now(), 0.0, own, error)]
        for name in sorted(names):
            since = [found[name] for found in live.values() if name in found]
            caches = {cache: part.cache.status(name, name in live[cache]) for cache, part in parts.items()}
            silent = "" if since else "gives no signs of life"
            nodes.append(NodeStatus(name, [], bool(since), min(since, default=0.0), caches, silent))
        counters = {name: self._counters[name] for name in COUNTERS} | {
            "leases": sum(part.wishes.granted() for part in parts.values()),
            "asks": sum(len(part.wishes) for part in parts.values()),
            "adopted": sum(part.cache.adopted for part in parts.values()),
            "losses": self._link.losses if self._link is not None else 0,
        }
        return Status(self._config.name, nodes, counters)

    async def reload(self, nodes: Sequence[str]) -> None:
        """Nodes are those that meet there: nothing is to be done."""

    async def secrets(self, secrets: Sequence[bytes]) -> None:
        """Know these from now on, the first of them to be used if all nodes say so (keyring.py)."""
        self._keyring = await asyncio.to_thread(Keyring, secrets, self._config.namespace)
        for part in self._parts.values():
            part.context.knows = self._keyring.known
            part.nodes.announce()
        self._look.set()

    # -- the connection

    def _up_now(self) -> bool:
        return self._link is not None and self._link.up

    def _up(self) -> None:
        if self._keyring.known == (self._place,):
            self._arrive(self._place)
        else:
            self.spawn(self._choose())

    def _down(self) -> None:
        self._arrived = False
        for part in self._parts.values():
            part.down()

    # -- where the nodes meet: see keyring.py

    def _arrive(self, place: str) -> None:
        if place != self._place:
            logger.info("goes on with the secret %s, after %s", place, self._place)
            self._place, self._codec.seal = place, self._keyring.seals[place]
            for name, part in self._parts.items():
                part.elsewhere(Keys(self._config.namespace, name, place))
        self._arrived = True
        for part in self._parts.values():
            part.up()

    async def _choose(self) -> None:
        while not self._arrived:
            keyring = self._keyring
            try:
                others = {place: await self._who(keyring, place) for place in keyring.known}
            except LostError:
                return
            except FullError as exc:  # as if it were lost
                if self._link is not None:
                    self._link.fail(exc)
                return
            if keyring is self._keyring:
                self._arrive(choose(keyring.known, self._place if others.get(self._place) else None, others))

    async def _watch(self) -> None:
        """Move on when all others are ready to or have moved; until cancelled."""
        while True:
            await wait_some(self._look, self._config.heartbeat)
            self._look.clear()
            keyring, here = self._keyring, self._place
            if not self._arrived or keyring.known == (here,):
                continue
            try:
                if here in keyring.seals:
                    known = [knows for part in self._parts.values() for knows in part.nodes.knows()]
                    others = {place: await self._who(keyring, place) for place in keyring.known if place != here}
                    if choose(keyring.known, here, {**others, here: known}) == here:
                        continue
                    # What is known of those here may be less than there is.
                    others[here] = await self._who(keyring, here)
                    if choose(keyring.known, here, others) == here:
                        continue
                await asyncio.gather(*(self._move_out(part) for part in self._parts.values()))
            except LostError:
                continue
            except FullError:
                pass  # it goes without saying so
            if self._link is not None:
                self._link.again()

    async def _who(self, keyring: Keyring, place: str) -> list[list[str]]:
        """What each other node that is there knows."""
        config, link = self._config, self._link
        assert link is not None
        found = []
        for name in self._parts:
            keys = Keys(config.namespace, name, place)
            blobs = await link.call(WHO, (keys.nodes, keys.beats), ("", int(config.away_after * 1000)))
            for blob in blobs if isinstance(blobs, list) else []:
                try:
                    assert isinstance(blob, bytes)
                    said = decode(keyring.seals[place].open((b"message", name.encode()), blob))
                except (TamperedError, msgspec.MsgspecError):
                    continue  # it is counted by who is there
                if isinstance(said, Joined) and said.node != config.name:
                    found.append(said.knows)
        return found

    async def _move_out(self, part: _Part) -> None:
        """What is left there without a node goes soon; if somebody stays, each sign of life gives it more time."""
        part.standings.rest()
        await part.nodes.leave()
        part.context.instance = os.urandom(16)  # the former one has left, should it come back
        keys, current, link = part.context.keys, part.standings.current, part.context.link
        generation = current.generation if current is not None else "-"
        left = (keys.head, keys.log, keys.nodes, keys.beats, keys.values(generation), keys.pieces(generation))
        for key in left:
            await link.command("PEXPIRE", key, LEFT_SECONDS * 1000)


def _own(cache: Cache) -> tuple[Stamp | None, NodeState]:
    standing = cache.standing()
    if standing is None:
        return None, NodeState.ABSENT
    return standing.stamp, NodeState.FAILING if cache.failing else NodeState.LIVE
