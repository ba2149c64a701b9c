"""The peers relay: every node is connected to every other; no node is special, nothing else is needed.

A node dials every address that it is given, and sends on the connections that it has dialled; what others have to say
comes on those that it has accepted. So two nodes have two connections, and there is nothing to agree upon when both
dial at once. The accepting side sends nothing but its name and the echo of heartbeats. A *peer* is live while both
connections are up; when one of them ends, or a heartbeat is not echoed for `dead_after` seconds, both are closed, so
that both nodes come to know.

An address may be the node's own (it finds out, and does not dial it again), or a name that stands for several addresses
(all are dialled, and looked up again now and then). Two processes with one name are an error, which both say.

This module is the middle: it hands what comes to the lease tables (leases.py, asks.py), the stamps (resets.py) and the
logs (logs.py), and what those say to the connections (links.py, wire.py).
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import time
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from . import messages as m
from .asks import Asker, Effects
from .leases import Carry, Owner
from .links import HANDSHAKE_SECONDS, Address, Listener, Refusals, cancel, dial, format_address, parse_address, resolve
from .logs import Followers, Following, begin_of
from .relay import Delivered, Ended, Entry, Host, KeyId, Kind, NodeStatus, Relay, Stamp, Status
from .resets import Cache
from .trust import Trust
from .views import Members
from .wire import Arrived, Budget, ProtocolError, Sender, read_message, receive

__all__ = ["Peers", "PeersConfig"]

logger = logging.getLogger("coopshm.cluster")

#: Seconds between attempts to connect: at first, at most. Each is varied by half of it.
REDIAL_SECONDS = 0.1
REDIAL_SECONDS_MAX = 5.0

#: Seconds after which a name is looked up again, and an address tried again that led to this node itself or a known
# one.
RESOLVE_SECONDS = 30.0

#: Seconds between repetitions of a node's view.
TELL_SECONDS = 2.0


class PeersConfig(NamedTuple):
    name: str  #: of this node, unique in the cluster
    namespace: str
    listen: str  #: "host:port"
    nodes: Sequence[str]  #: addresses of all nodes; this one's may be among them
    trust: Trust
    lease_timeout: float = 1.0  #: as in the segments
    heartbeat: float = 1.0
    dead_after: float = 5.0  #: seconds without an echo
    entry_bytes_max: int = 64 * 1024 * 1024  #: larger values stay on their host
    memory_bytes_max: int = 512 * 1024 * 1024  #: for values that are being received


@dataclass(eq=False)
class _Connection:
    """One that is up: dialled (then with a sender) or accepted."""

    name: str
    instance: bytes
    address: str
    writer: asyncio.StreamWriter
    sender: Sender | None = None
    up: asyncio.Event = field(default_factory=asyncio.Event)  # when the peer is live

    def close(self) -> None:
        self.writer.transport.abort()


@dataclass(eq=False)
class _Peer:
    """A node that is live."""

    name: str
    instance: bytes
    out: Sender
    since: float


@dataclass
class _Dial:
    task: asyncio.Task[None] | None = None
    error: str = ""
    name: str = ""
    own: bool = False


class Peers(Relay):
    """See the head of the module."""

    def __init__(self, config: PeersConfig, sockets: Sequence[socket.socket] = ()) -> None:
        """`sockets`: that listen already, to be used instead of `config.listen`."""
        self._config = config
        self._sockets = sockets
        self._name = config.name
        self._instance = os.urandom(16)
        self._refusals = Refusals()
        self._listener = Listener(config.trust, self._accepted, self._refusals)
        self._tasks: set[asyncio.Task[None]] = set()
        self._names: dict[str, asyncio.Task[None]] = {}  # what is configured
        self._found: dict[str, set[Address]] = {}  # what it stands for
        self._dials: dict[Address, _Dial] = {}
        self._dialled: dict[str, _Connection] = {}  # by node
        self._accepts: dict[str, _Connection] = {}
        self._peers: dict[str, _Peer] = {}
        self._unknown: set[str] = set()  # names that connect, and are not reached
        self._budget = Budget(config.entry_bytes_max, config.memory_bytes_max)
        self._caches: dict[str, Cache] = {}
        self._to_self: deque[m.Message | Carry] = deque()
        self._hearing_self = False
        self._bytes_sent = 0
        self._connections = 0

    # -- the relay protocol

    async def start(self, hosts: Mapping[str, Host]) -> None:
        config = self._config
        now = asyncio.get_running_loop().time()
        for cache, host in hosts.items():
            self._caches[cache] = Cache(cache, host, self._announce, self.moved)
        self._following = Following(self._caches, self._send, self._delivered)
        self._followers = Followers(self._caches, config.entry_bytes_max, self._spawn)
        effects = Effects(self._grant, self._hold, self._want, self._following.follows)
        settle = config.lease_timeout / 2
        self._owner = Owner(self._name, self._send, self._find, self._following.behind, settle, now)
        self._asker = Asker(self._name, self._send, effects, config.lease_timeout)
        self._new_view()
        for cache in self._caches:
            self.moved(cache)
            self._spawn(self._caches[cache].run())
        for sock in self._sockets:
            self._listener.adopt(sock)
        if not self._sockets:
            await self._listener.open(parse_address(config.listen))
        if config.trust.server is None:
            logger.warning(
                "no secret_file and no tls_cert: listening on %s only, where every user of this host can be a node",
                ", ".join(self._listener.addresses),
            )
        self._spawn(self._tick())
        await self.reload(config.nodes)

    @property
    def addresses(self) -> list[str]:
        """What is listened on."""
        return self._listener.addresses

    async def stop(self, drain: float) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + drain
        while loop.time() < until and not self._followers.idle():
            await asyncio.sleep(0.01)
        await self._listener.close()
        await cancel(self._tasks)

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
        self._asker.moved(cache, standing.stamp if standing is not None else None)
        if standing is not None:
            self._owner.newest(cache, standing.stamp)
            if before is not None and before.stamp == standing.stamp:
                self._asker.restarted(cache)
        self._following.consider(cache)
        self._hear_self()

    def status(self) -> Status:
        nodes = []
        names = {self._name} | {dial.name for dial in self._dials.values()} - {""}
        for name in sorted(names | self._accepts.keys()):
            dials = [(address, dial) for address, dial in self._dials.items() if dial.name == name]
            peer = self._peers.get(name)
            caches = {cache: here.status(name, peer is not None) for cache, here in self._caches.items()}
            error = "" if peer is not None or name == self._name else next((d.error for _, d in dials if d.error), "")
            addresses = [format_address(address) for address, _ in dials] or (
                self.addresses if name == self._name else []
            )
            connected = peer is not None or name == self._name
            nodes.append(NodeStatus(name, addresses, connected, peer.since if peer is not None else 0.0, caches, error))
        for address, unnamed in self._dials.items():
            if not unnamed.name:
                nodes.append(NodeStatus("", [format_address(address)], False, 0.0, {}, unnamed.error))
        for text, found in self._found.items():
            if not found:
                nodes.append(NodeStatus("", [text], False, 0.0, {}, "its name is not known"))
        sent = self._bytes_sent + sum(peer.out.bytes_sent for peer in self._peers.values())
        counters = {
            "entries_received": self._following.entries,
            "entries_known": self._following.known,
            "entries_stale": self._following.stale,
            "entries_without_room": self._following.full,
            "entries_dropped": self._budget.dropped,
            "entries_sent": self._followers.entries,
            "entries_too_large": self._followers.too_large,
            "bytes_sent": sent,
            "connections": self._connections,
            "refused": self._refusals.count,
            "leases": len(self._owner),
            "asks": len(self._asker),
            "adopted": sum(cache.adopted for cache in self._caches.values()),
        }
        return Status(self._name, nodes, counters)

    async def reload(self, nodes: Sequence[str]) -> None:
        addresses = {text: parse_address(text) for text in nodes}
        for text in self._names.keys() - addresses.keys():
            self._names.pop(text).cancel()
            self._found.pop(text, None)
        for text, address in addresses.items():
            if text not in self._names:
                self._found[text] = set()
                self._names[text] = self._spawn(self._look_up(text, address))
        self._dial_found()

    # -- time and tasks

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _spawn(self, what: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(what)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            logger.error("a task of the relay ended: %r", exc, exc_info=exc)

    async def _tick(self) -> None:
        told = self._now()
        while True:
            busy = len(self._asker) or len(self._owner)
            await asyncio.sleep(self._config.lease_timeout / (20 if busy else 5))
            now = self._now()
            self._owner.tick(now)
            self._asker.tick(now)
            if now - told > TELL_SECONDS:
                told = now
                self._asker.tell()
            self._hear_self()

    # -- dialling

    async def _look_up(self, text: str, address: Address) -> None:
        """What a name stands for, now and later."""
        while True:
            try:
                found = set(await resolve(address))
            except OSError as exc:
                logger.info("%s: %s", text, exc)  # those found before remain
            else:
                if found != self._found.get(text):
                    self._found[text] = found
                    self._dial_found()
            await asyncio.sleep(RESOLVE_SECONDS if self._found.get(text) else REDIAL_SECONDS_MAX)

    def _dial_found(self) -> None:
        wanted: set[Address] = set().union(*self._found.values())
        for address in self._dials.keys() - wanted:
            dial = self._dials.pop(address)
            if dial.task is not None:
                dial.task.cancel()
        for address in wanted - self._dials.keys():
            dial = self._dials[address] = _Dial()
            dial.task = self._spawn(self._keep_dialling(address, dial))

    async def _keep_dialling(self, address: Address, state: _Dial) -> None:
        pause = REDIAL_SECONDS
        while True:
            began = self._now()
            state.error = ""
            try:
                wait = await self._connect(address, state)
            except (OSError, EOFError, ProtocolError, ValueError, asyncio.TimeoutError) as exc:
                wait = 0.0
                state.error = str(exc) or type(exc).__name__
                logger.log(
                    logging.INFO if pause > REDIAL_SECONDS else logging.WARNING,
                    "%s: %s",
                    format_address(address),
                    state.error,
                )
            if self._now() - began > self._config.dead_after:
                pause = REDIAL_SECONDS
            await asyncio.sleep(wait or pause * random.uniform(0.5, 1.5))
            pause = min(2 * pause, REDIAL_SECONDS_MAX)

    async def _connect(self, address: Address, state: _Dial) -> float:
        """Connect, and stay connected. Returns how long to leave that address alone."""
        reader, writer = await dial(address, self._config.trust)
        try:
            sender = Sender(writer)
            sender.send(m.Hello(m.VERSION, self._name, self._instance, self._config.namespace))
            writing = asyncio.ensure_future(sender.run())
            try:
                welcome = await asyncio.wait_for(read_message(reader), HANDSHAKE_SECONDS)
                if not isinstance(welcome, m.Welcome):
                    raise ProtocolError("it answers, but not as a node does")
                state.name = welcome.name
                if welcome.instance == self._instance:
                    state.own = True
                    return RESOLVE_SECONDS
                if welcome.refused:
                    raise ProtocolError(f"refused by {welcome.name}: {welcome.refused}")
                if welcome.name == self._name:
                    raise ProtocolError(f"another node has this one's name, {self._name!r}: names must differ")
                known = self._dialled.get(welcome.name)
                if known is not None and known.instance == welcome.instance:
                    return RESOLVE_SECONDS  # another address of the same node
                if known is not None:
                    known.close()
                    self._gone(known)
                connection = _Connection(welcome.name, welcome.instance, format_address(address), writer, sender)
                self._dialled[welcome.name] = connection
                self._connections += 1
                try:
                    self._pair(welcome.name)
                    await self._stay(reader, sender, writing)
                finally:
                    self._gone(connection)
            finally:
                await cancel([writing])
        finally:
            writer.transport.abort()
        return 0.0

    async def _stay(self, reader: asyncio.StreamReader, sender: Sender, writing: asyncio.Future[None]) -> None:
        """Send heartbeats and read their echoes until the connection ends."""
        heard = self._now()

        async def echoes() -> None:
            nonlocal heard
            while True:
                message = await read_message(reader)
                if not isinstance(message, m.Pong):
                    raise ProtocolError("it sends more than echoes")
                heard = self._now()

        async def heartbeats() -> None:
            number = 0
            while True:
                number += 1
                sender.send(m.Ping(number))
                await asyncio.sleep(self._config.heartbeat)
                if self._now() - heard > self._config.dead_after:
                    raise ProtocolError(f"no heartbeat for {self._config.dead_after:g} s")

        tasks = [writing, asyncio.ensure_future(echoes()), asyncio.ensure_future(heartbeats())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await cancel(tasks)

    # -- accepting

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str) -> None:
        try:
            hello = await asyncio.wait_for(read_message(reader), HANDSHAKE_SECONDS)
            if not isinstance(hello, m.Hello):
                raise ProtocolError("it does not say who it is")
            refused = self._refuse(hello)
            answer = m.encode(m.Welcome(m.VERSION, self._name, self._instance, refused))
            writer.write(len(answer).to_bytes(4, "big") + b"\x01" + answer)
            await writer.drain()
            if hello.instance == self._instance:
                return
            if refused:
                raise ProtocolError(refused)
        except (OSError, EOFError, ProtocolError, asyncio.TimeoutError) as exc:
            self._refusals.add(address, str(exc) or type(exc).__name__)
            return
        known = self._accepts.get(hello.name)
        if known is not None:
            known.close()
            self._gone(known)
        connection = self._accepts[hello.name] = _Connection(hello.name, hello.instance, address, writer)
        try:
            self._pair(hello.name)
            await self._read(reader, connection)
        except (OSError, EOFError) as exc:
            logger.info("%s at %s: connection ended: %s", hello.name, address, exc)
        except ProtocolError as exc:
            logger.warning("%s at %s: connection closed: %s", hello.name, address, exc)
        finally:
            self._gone(connection)

    def _refuse(self, hello: m.Hello) -> str:
        if hello.version != m.VERSION:
            return f"it speaks version {hello.version} of the protocol, and this node version {m.VERSION}"
        if hello.namespace != self._config.namespace:
            return f"its namespace is {hello.namespace!r}, and this one's {self._config.namespace!r}"
        if hello.instance != self._instance and hello.name == self._name:
            return f"it has this node's name, {self._name!r}: names must differ"
        known = self._accepts.get(hello.name)
        if known is not None and known.instance != hello.instance and hello.name in self._peers:
            # A node that has been restarted is let in as soon as its former connection is found dead.
            return f"there is another node named {hello.name!r}, at {known.address}: names must differ"
        return ""

    async def _read(self, reader: asyncio.StreamReader, connection: _Connection) -> None:
        loop = asyncio.get_running_loop()
        limit = self._config.dead_after
        silence = loop.call_later(limit, connection.close)
        try:
            async for item in receive(reader, self._budget):
                if isinstance(item, m.Ping):
                    silence.cancel()
                    silence = loop.call_later(limit, connection.close)
                    answer = m.encode(m.Pong(item.number))
                    connection.writer.write(len(answer).to_bytes(4, "big") + b"\x01" + answer)
                    await connection.writer.drain()
                    continue
                if not connection.up.is_set():
                    await connection.up.wait()  # what follows may be answered on the other connection only
                peer = self._peers.get(connection.name)
                if peer is None or peer.instance != connection.instance:
                    return
                if isinstance(item, Arrived):
                    await self._entry(peer, item)
                else:
                    self._hear(peer, item)
                self._hear_self()
        finally:
            silence.cancel()

    # -- who is live

    def _pair(self, name: str) -> None:
        """One of a node's connections is up: with the other one, it is live."""
        out, back = self._dialled.get(name), self._accepts.get(name)
        if out is None and name not in self._unknown and not any(d.name == name for d in self._dials.values()):
            self._unknown.add(name)
            logger.info("%s is connected, and will be live when this node has reached it as well", name)
        if out is None or back is None or out.sender is None:
            return
        if out.instance != back.instance:
            return  # one of them is of a former process, and about to end
        self._peers[name] = _Peer(name, out.instance, out.sender, time.time())
        self._unknown.discard(name)
        logger.info("%s is live, at %s", name, out.address)
        self._new_view()
        for cache in self._caches.values():
            out.sender.send(cache.announcement())
        self._following.connected(name)
        back.up.set()
        self._hear_self()

    def _gone(self, connection: _Connection) -> None:
        """A connection has ended; so has the other one of that node, then."""
        name = connection.name
        for connections in (self._dialled, self._accepts):
            other = connections.get(name)
            if other is connection:
                del connections[name]
            elif other is not None and name in self._peers:
                other.close()
        peer = self._peers.pop(name, None)
        if peer is None:
            return
        self._bytes_sent += peer.out.bytes_sent
        logger.warning("%s is not connected any more", name)
        self._followers.lost(name)
        for cache in self._caches.values():
            cache.lost(name)
        self._following.lost(name)
        self._new_view()
        self._hear_self()

    def _new_view(self) -> None:
        members = Members({self._name: self._instance, **{p.name: p.instance for p in self._peers.values()}})
        now = self._now()
        self._owner.view(members, now)
        self._asker.view(members, now)

    # -- what is said

    def _announce(self, cache: str, node: str | None) -> None:
        for name in [node] if node is not None else list(self._peers):
            self._send(name, self._caches[cache].announcement())

    def _send(self, to: str, what: m.Message | Carry) -> None:
        if to == self._name:
            self._to_self.append(what)
            return
        peer = self._peers.get(to)
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

    def _hear(self, peer: _Peer, message: m.Message) -> None:
        if isinstance(message, m.Standing):
            here = self._caches.get(message.cache)
            if message.stamp is not None:
                self._owner.newest(message.cache, Stamp(*message.stamp))
            if here is not None and here.heard(peer.name, message):
                self._following.consider(message.cache)
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

    async def _entry(self, peer: _Peer, item: Arrived) -> None:
        begin = item.begin
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
            self._spawn(self._deliver(sender, carry))

    async def _deliver(self, sender: str, carry: Carry) -> None:
        here = self._caches.get(carry.cache)
        if here is None:
            return
        result = await here.host.deliver(carry.stamp, carry.entry)
        self._delivered(carry.cache, carry.stamp, carry.entry, result)
        if carry.purpose == m.Purpose.ANSWER:
            self._owner.found(sender, carry)
        self._hear_self()

    def _delivered(self, cache: str, stamp: Stamp, entry: Entry, result: Delivered) -> None:
        if result is Delivered.GONE:
            self._asker.undeliverable(cache, stamp, entry.key_id)
        else:
            self._asker.arrived(cache, stamp, entry.key_id)

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
