"""The peers relay: every node is connected to every other; no node is special, nothing else is needed.

This module is the middle: it hands what comes to the lease tables (leases.py, asks.py), the stamps (resets.py) and the
logs (logs.py), and what those say to the connections (mesh.py, wire.py).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Mapping, Sequence

from ..versions import decode_version
from . import messages as m
from .asks import Asker, Effects
from .keyids import key_id_of
from .leases import Carry, Owner
from .links import format_address
from .logs import Followers, Following, begin_of
from .mesh import Mesh, Peer, PeersConfig, Users
from .relay import Delivered, Ended, Entry, Host, KeyId, Kind, NodeStatus, Relay, Stamp, Status
from .resets import Cache
from .trust import Trust
from .views import Members
from .wire import Arrived, ProtocolError

__all__ = ["Peers", "PeersConfig"]

logger = logging.getLogger("coopshm.cluster")

#: Longest name of a maker of resets: csrc/layout.h has room for it.
ORIGIN_BYTES_MAX = 80

#: Seconds between repetitions of a node's view.
TELL_SECONDS = 2.0


class Peers(Relay, Users):
    """See the head of the module."""

    def __init__(self, config: PeersConfig, sockets: Sequence[socket.socket] = ()) -> None:
        """`sockets`: that listen already, to be used instead of `config.listen`."""
        self._config = config
        self._name = config.name
        self._mesh = Mesh(config, self, sockets)
        self._caches: dict[str, Cache] = {}
        self._to_self: deque[m.Message | Carry] = deque()
        self._hearing_self = False

    # -- the relay protocol

    async def start(self, hosts: Mapping[str, Host]) -> None:
        config = self._config
        now = asyncio.get_running_loop().time()
        for cache, host in hosts.items():
            self._caches[cache] = Cache(cache, host, self._announce, self.moved)
        self._following = Following(self._caches, self._send, self._delivered, config.entry_bytes_max)
        self._followers = Followers(self._caches, config.entry_bytes_max, self._mesh.spawn)
        effects = Effects(self._grant, self._hold, self._want, self._following.follows)
        settle = config.lease_timeout / 2
        self._owner = Owner(self._name, self._send, self._find, self._following.behind, settle, now)
        self._asker = Asker(self._name, self._send, effects, config.lease_timeout)
        self._new_view()
        for cache in self._caches:
            self.moved(cache)
            self._mesh.spawn(self._caches[cache].run())
        await self._mesh.start()
        self._mesh.spawn(self._tick())

    @property
    def addresses(self) -> list[str]:
        """What is listened on."""
        return self._mesh.listener.addresses

    async def stop(self, drain: float) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + drain
        while loop.time() < until and not self._followers.idle():
            await asyncio.sleep(0.01)
        await self._mesh.stop()

    def ask(self, cache: str, stamp: Stamp, key_id: KeyId, nested: bool) -> None:
        if self._stands(cache, stamp):
            self._asker.ask(cache, stamp, key_id, nested, self._now())
            self._hear_self()

    def ended(self, cache: str, stamp: Stamp, key_id: KeyId, outcome: Entry | Ended) -> None:
        self._asker.ended(cache, stamp, key_id, outcome)
        self._hear_self()

    def withdrawn(self, cache: str, stamp: Stamp, key_id: KeyId) -> None:
        self._asker.withdrawn(cache, stamp, key_id)
        self._hear_self()

    def moved(self, cache: str) -> None:
        here = self._caches[cache]
        before = here.standing_told()
        if not here.changed():
            return
        standing = here.standing()
        if standing is None:
            self._asker.restarted(cache)  # what it held is given back: the stamp of it is not over
        self._asker.moved(cache, standing.stamp if standing is not None else None)
        if standing is not None:
            self._owner.newest(cache, standing.stamp)
            if before is not None and before.stamp == standing.stamp:
                self._asker.restarted(cache)
        self._following.consider(cache)
        self._hear_self()

    def status(self) -> Status:
        nodes = []
        names = {self._name} | {dial.name for dial in self._mesh.dials.values()} - {""}
        for name in sorted(names | self._mesh.accepted()):
            dials = [(address, dial) for address, dial in self._mesh.dials.items() if dial.name == name]
            peer = self._mesh.peers.get(name)
            caches = {cache: here.status(name, peer is not None) for cache, here in self._caches.items()}
            # Also with this node's own name: another process may have it.
            error = "" if peer is not None else next((d.error for _, d in dials if d.error), "")
            addresses = [format_address(address) for address, _ in dials] or (
                self.addresses if name == self._name else []
            )
            connected = peer is not None or name == self._name
            nodes.append(NodeStatus(name, addresses, connected, peer.since if peer is not None else 0.0, caches, error))
        for address, unnamed in self._mesh.dials.items():
            if not unnamed.name:
                nodes.append(NodeStatus("", [format_address(address)], False, 0.0, {}, unnamed.error))
        for text, found in self._mesh.found.items():
            if not found:
                nodes.append(NodeStatus("", [text], False, 0.0, {}, "its name is not known"))
        counters = {
            "entries_received": self._following.entries,
            "entries_known": self._following.known,
            "entries_stale": self._following.stale,
            "entries_without_room": self._following.full,
            "entries_dropped": self._mesh.budget.dropped,
            "entries_sent": self._followers.entries,
            "entries_too_large": self._followers.too_large,
            "bytes_sent": self._mesh.bytes_sent(),
            "connections": self._mesh.connections,
            "refused": self._mesh.refusals.count,
            "leases": len(self._owner),
            "asks": len(self._asker),
            "adopted": sum(cache.adopted for cache in self._caches.values()),
        }
        return Status(self._name, nodes, counters)

    async def reload(self, nodes: Sequence[str]) -> None:
        self._mesh.reload(nodes)

    def trust(self, trust: Trust) -> None:
        """Make and accept connections by this from now on. Those that are up stay."""
        self._mesh.trust(trust)

    # -- time and tasks

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def _tick(self) -> None:
        told = self._now()
        while True:
            busy = len(self._asker) or len(self._owner)
            await asyncio.sleep(self._config.lease_timeout / (20 if busy else 5))
            now = self._now()
            try:
                self._owner.tick(now)
                self._asker.tick(now)
                self._following.tick(now)
                if now - told > TELL_SECONDS:
                    told = now
                    self._asker.tell()
                self._hear_self()
            except Exception as exc:  # whatever it is, the next one may be better; without any, asks wait for ever
                logger.error("what is done now and then failed: %r", exc, exc_info=exc)

    # -- who is live

    def up(self, peer: Peer) -> None:
        self._new_view()
        for cache in self._caches.values():
            peer.out.send(cache.announcement())
        self._following.connected(peer.name)
        self._hear_self()

    def down(self, peer: Peer) -> None:
        self._followers.lost(peer.name)
        for cache in self._caches.values():
            cache.lost(peer.name)
        self._following.lost(peer.name)
        self._new_view()
        self._hear_self()

    async def heard(self, peer: Peer, item: m.Message | Arrived) -> None:
        if isinstance(item, Arrived):
            await self._entry(peer, item)
        else:
            self._hear(peer, item)
        self._hear_self()

    def _new_view(self) -> None:
        members = Members({self._name: self._mesh.instance, **{p.name: p.instance for p in self._mesh.peers.values()}})
        now = self._now()
        self._owner.view(members, now)
        self._asker.view(members, now)

    # -- what is said

    def _announce(self, cache: str, node: str | None) -> None:
        for name in [node] if node is not None else list(self._mesh.peers):
            self._send(name, self._caches[cache].announcement())

    def _send(self, to: str, what: m.Message | Carry) -> None:
        if to == self._name:
            self._to_self.append(what)
            return
        peer = self._mesh.peers.get(to)
        if peer is None:
            return
        if not isinstance(what, Carry):
            peer.out.send(what)
        elif len(what.entry.payload) <= self._config.entry_bytes_max:
            begin = begin_of(what.purpose, what.number, what.cache, what.stamp, what.entry)
            peer.out.answer(begin, what.entry.payload)
        elif what.purpose == m.Purpose.OUTCOME_UP:
            peer.out.send(m.Done(what.cache, what.stamp, what.entry.key_id, what.number, False))
        else:
            peer.out.send(m.Alone(what.cache, what.stamp, what.entry.key_id, what.number))

    def _hear_self(self) -> None:
        """Take what was said to this node itself, in its order."""
        if self._hearing_self:
            return
        self._hearing_self = True
        try:
            while self._to_self:
                what = self._to_self.popleft()
                if isinstance(what, Carry):
                    self._carry(self._name, what)
                else:
                    self._hear_leases(self._name, what)
        finally:
            self._hearing_self = False

    def _hear(self, peer: Peer, message: m.Message) -> None:
        if isinstance(message, m.Standing):
            here = self._caches.get(message.cache)
            if message.stamp is not None:
                _check_stamp(Stamp(*message.stamp))
                self._owner.newest(message.cache, Stamp(*message.stamp))
            if here is not None and here.heard(peer.name, message):
                self._following.stands(peer.name, message.cache)
        elif isinstance(message, m.Subscribe):
            self._followers.subscribe(peer.name, peer.out, message)
        elif isinstance(message, m.Take):
            self._followers.take(peer.name, message)
        elif isinstance(message, (m.Log, m.Offer, m.CaughtUp, m.Over)):
            self._following.hear(peer.name, message)
        elif isinstance(message, m.Fetch):
            stamp = Stamp(*message.stamp)
            entry = self._find(message.cache, stamp, message.key_id)
            if entry is not None:
                self._send(peer.name, Carry(m.Purpose.ANSWER, message.serial, message.cache, stamp, entry))
            else:
                self._send(peer.name, m.NotHere(message.cache, stamp, message.key_id, message.serial))
        else:
            self._hear_leases(peer.name, message)

    def _hear_leases(self, sender: str, message: m.Message) -> None:
        now = self._now()
        if isinstance(message, m.Ask):
            self._owner.ask(sender, message, now)
        elif isinstance(message, (m.Granted, m.Held, m.Alone, m.At, m.Finished)):
            self._asker.hear(sender, message, now)
        elif isinstance(message, m.Done):
            self._owner.done(sender, message, now)
        elif isinstance(message, m.Withdraw):
            self._owner.withdraw(sender, message, now)
        elif isinstance(message, m.View):
            self._owner.told(sender, message, now)
        elif isinstance(message, m.Want):
            self._asker.want(sender, message)
        elif isinstance(message, m.NotHere):
            self._asker.not_here(message, now)
            self._owner.not_here(sender, message, now)
        elif isinstance(message, m.Fetch):
            # To this node itself, which has just not found it.
            self._asker.not_here(m.NotHere(message.cache, message.stamp, message.key_id, message.serial), now)
        else:
            raise ProtocolError(f"a {type(message).__name__} out of place")

    # -- entries

    async def _entry(self, peer: Peer, item: Arrived) -> None:
        begin = item.begin
        # An entry that is stored under one key and answers for another would leave who waits for that one waiting.
        is_value = begin.kind == Kind.VALUE
        if (is_value or begin.key) and (begin.key_id or begin.key) != key_id_of(begin.key):
            raise ProtocolError("an entry under another key's name")
        if begin.purpose == m.Purpose.LOG:
            await self._following.entry(peer.name, begin, item.payload)
            return
        if begin.stamp is None:
            raise ProtocolError("an entry without a stamp")
        stamp = Stamp(*begin.stamp)
        entry = Entry(begin.key_id or begin.key, begin.key, begin.format, Kind(begin.kind), item.payload or b"")
        carry = Carry(begin.purpose, begin.number, begin.cache, stamp, entry)
        if item.payload is not None:
            if begin.purpose != m.Purpose.OUTCOME_UP:
                await self._deliver(peer.name, carry)
            else:
                self._carry(peer.name, carry)
        elif begin.purpose == m.Purpose.OUTCOME_UP:
            done = m.Done(begin.cache, begin.stamp, entry.key_id, begin.number, False)
            self._owner.done(peer.name, done, self._now())
        else:
            self._asker.undeliverable(begin.cache, stamp, entry.key_id)

    def _carry(self, sender: str, carry: Carry) -> None:
        if carry.purpose == m.Purpose.OUTCOME_UP:
            self._owner.outcome(sender, carry)
        else:
            self._mesh.spawn(self._deliver(sender, carry))

    async def _deliver(self, sender: str, carry: Carry) -> None:
        here = self._caches.get(carry.cache)
        if here is None:
            return
        result = await here.host.deliver(carry.stamp, carry.entry)
        self._delivered(carry.cache, carry.stamp, carry.entry, result, answered=True)
        if carry.purpose == m.Purpose.ANSWER:
            self._owner.found(sender, carry)
        self._hear_self()

    def _delivered(self, cache: str, stamp: Stamp, entry: Entry, result: Delivered, answered: bool = False) -> None:
        """An entry or outcome was handed to the host; `answered`: because it was asked for."""
        if result is Delivered.GONE:
            self._asker.undeliverable(cache, stamp, entry.key_id)
        elif answered or result not in (Delivered.FULL, Delivered.UNWANTED):
            self._asker.arrived(cache, stamp, entry.key_id)
        # Else nobody waited when it was handed over, and it was not stored: who has asked since is yet to be answered.
        self._hear_self()

    # -- this host

    def _stands(self, cache: str, stamp: Stamp) -> bool:
        standing = self._caches[cache].standing()
        return standing is not None and standing.stamp == stamp

    def _find(self, cache: str, stamp: Stamp, key_id: KeyId) -> Entry | None:
        here = self._caches.get(cache)
        return here.host.find(stamp, key_id) if here is not None else None

    def _grant(self, cache: str, stamp: Stamp, key_id: KeyId) -> None:
        self._caches[cache].host.grant(stamp, key_id)

    def _hold(self, cache: str, stamp: Stamp, key_id: KeyId) -> None:
        self._caches[cache].host.hold(stamp, key_id)

    def _want(self, cache: str, stamp: Stamp, key_id: KeyId) -> None:
        self._caches[cache].host.want(stamp, key_id)


def _check_stamp(stamp: Stamp) -> None:
    """Whether a host can stand there: what cannot be adopted would be tried for ever, and wins over what can.

    Raises:
        ProtocolError: it cannot.
    """
    try:
        decode_version(stamp.version)
    except ValueError as exc:
        raise ProtocolError(f"a version that is none: {exc}") from None
    if len(stamp.node.encode("utf-8", "replace")) > ORIGIN_BYTES_MAX:
        raise ProtocolError("the maker of a reset has too long a name")
