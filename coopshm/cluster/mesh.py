"""Which nodes are there: dialling, accepting, heartbeats, and who is live.

A node dials every address that it is given, and sends on the connections that it has dialled; what others have to say
comes on those that it has accepted. So two nodes have two connections, and there is nothing to agree upon when both
dial at once. The accepting side sends nothing but its name and the echo of heartbeats. A *peer* is live while both
connections are up; when one of them ends, or a heartbeat is not echoed for `dead_after` seconds, both are closed, so
that both nodes come to know. Who is dialled by a node that it has not reached dials at once, however long it had meant
to wait.

An address may be the node's own (it finds out, and leaves it alone), or a name that stands for several addresses (all
are dialled, and looked up again now and then). Two processes with one name are an error, which both say.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from . import messages as m
from .links import (
    HANDSHAKE_SECONDS,
    Address,
    Listener,
    Refusals,
    cancel,
    dial,
    format_address,
    parse_address,
    resolve,
    why,
)
from .trust import Trust
from .waits import wait_some
from .wire import Arrived, Budget, ProtocolError, Sender, read_message, receive

__all__ = ["Dialled", "Mesh", "Peer", "PeersConfig", "Users"]

logger = logging.getLogger("coopshm.cluster")

#: Seconds between attempts to connect: at first, at most. Each is varied by half of it.
REDIAL_SECONDS = 0.1
REDIAL_SECONDS_MAX = 5.0

#: Seconds after which a name is looked up again, and an address tried again that led to this node itself or a known
# one.
RESOLVE_SECONDS = 30.0


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
        self.up.set()  # who waits for that finds that it is not


@dataclass(eq=False)
class Peer:
    """A node that is live."""

    name: str
    instance: bytes
    out: Sender
    since: float


@dataclass
class Dialled:
    """An address that is dialled."""

    task: asyncio.Task[None] | None = None
    error: str = ""
    name: str = ""
    wake: asyncio.Event = field(default_factory=asyncio.Event)  # to be dialled now


def _same(connection: _Connection | None, instance: bytes) -> bool:
    return connection is not None and connection.instance == instance


class Users(ABC):
    """Who wants to know."""

    @abstractmethod
    def up(self, peer: Peer) -> None:
        """That peer is live. What it has said already is heard after this."""

    @abstractmethod
    def down(self, peer: Peer) -> None:
        """It is not any more."""

    @abstractmethod
    async def heard(self, peer: Peer, item: m.Message | Arrived) -> None:
        """It says that. The next item is read after this.

        Raises:
            ProtocolError: no node says that.
        """


class Mesh:
    """This node's connections to the others. `peers` has those that are live, by name."""

    def __init__(self, config: PeersConfig, users: Users, sockets: Sequence[socket.socket]) -> None:
        self.instance = os.urandom(16)
        self.peers: dict[str, Peer] = {}
        self.dials: dict[Address, Dialled] = {}
        self.found: dict[str, set[Address]] = {}  # what the configured addresses stand for
        self.refusals = Refusals()
        self.budget = Budget(config.entry_bytes_max, config.memory_bytes_max)
        self.listener = Listener(config.trust, self._accepted, self.refusals)
        self.connections = 0
        self._config = config
        self._name = config.name
        self._users = users
        self._sockets = sockets
        self._tasks: set[asyncio.Task[None]] = set()
        self._names: dict[str, asyncio.Task[None]] = {}  # what is configured
        self._dialled: dict[str, _Connection] = {}  # by node
        self._accepts: dict[str, _Connection] = {}
        self._unknown: set[str] = set()  # names that connect, and are not reached
        self._bytes_sent = 0

    async def start(self) -> None:
        for sock in self._sockets:
            self.listener.adopt(sock)
        if not self._sockets:
            await self.listener.open(parse_address(self._config.listen))
        if self._config.trust.server is None:
            logger.warning(
                "no secret_file and no tls_cert: listening on %s only, where every user of this host can be a node",
                ", ".join(self.listener.addresses),
            )
        self.reload(self._config.nodes)

    async def stop(self) -> None:
        await self.listener.close()
        await cancel(self._tasks)

    def reload(self, nodes: Sequence[str]) -> None:
        """Dial these from now on.

        Raises:
            ValueError: one of them is no address. Nothing is changed.
        """
        addresses = {text: parse_address(text) for text in nodes}
        for text in self._names.keys() - addresses.keys():
            self._names.pop(text).cancel()
            self.found.pop(text, None)
        for text, address in addresses.items():
            if text not in self._names:
                self.found[text] = set()
                self._names[text] = self.spawn(self._look_up(text, address))
        self._dial_found()

    def trust(self, trust: Trust) -> None:
        """Make and accept connections by this from now on. Those that are up stay."""
        self._config = self._config._replace(trust=trust)
        self.listener.trust = trust

    def accepted(self) -> set[str]:
        """The names of those that have connected to this node."""
        return set(self._accepts)

    def bytes_sent(self) -> int:
        return self._bytes_sent + sum(peer.out.bytes_sent for peer in self.peers.values())

    def spawn(self, what: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run a task that ends with the mesh at the latest."""
        task = asyncio.ensure_future(what)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            logger.error("a task of the relay ended: %r", exc, exc_info=exc)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    # -- dialling

    async def _look_up(self, text: str, address: Address) -> None:
        """What a name stands for, now and later."""
        while True:
            try:
                found = set(await resolve(address))
            except OSError as exc:
                logger.info("%s: %s", text, exc)  # those found before remain
            else:
                if found != self.found.get(text):
                    self.found[text] = found
                    self._dial_found()
            await asyncio.sleep(RESOLVE_SECONDS if self.found.get(text) else REDIAL_SECONDS_MAX)

    def _dial_found(self) -> None:
        wanted: set[Address] = set().union(*self.found.values())
        for address in self.dials.keys() - wanted:
            dial = self.dials.pop(address)
            if dial.task is not None:
                dial.task.cancel()
        for address in wanted - self.dials.keys():
            dial = self.dials[address] = Dialled()
            dial.task = self.spawn(self._keep_dialling(address, dial))

    async def _keep_dialling(self, address: Address, state: Dialled) -> None:
        pause = REDIAL_SECONDS
        while True:
            began = self._now()
            state.error = ""
            try:
                wait = await self._connect(address, state)
            except (OSError, EOFError, ProtocolError, ValueError, asyncio.TimeoutError) as exc:
                wait = 0.0
                told = why(exc, self._config.trust) if isinstance(exc, ssl.SSLError) else str(exc)
                state.error = told or type(exc).__name__
                logger.log(
                    logging.INFO if pause > REDIAL_SECONDS else logging.WARNING,
                    "%s: %s",
                    format_address(address),
                    state.error,
                )
            except Exception as exc:  # whatever it is, the address is dialled again
                wait, state.error = 0.0, repr(exc)
                logger.error("%s: %r", format_address(address), exc, exc_info=exc)
            if self._now() - began > self._config.dead_after:
                pause = REDIAL_SECONDS
            await wait_some(state.wake, wait or pause * random.uniform(0.5, 1.5))
            state.wake.clear()
            pause = min(2 * pause, REDIAL_SECONDS_MAX)

    async def _connect(self, address: Address, state: Dialled) -> float:
        """Connect, and stay connected. Returns how long to leave that address alone."""
        reader, writer = await dial(address, self._config.trust)
        try:
            sender = Sender(writer)
            sender.send(m.Hello(m.VERSION, self._name, self.instance, self._config.namespace))
            writing = asyncio.ensure_future(sender.run())
            try:
                welcome = await asyncio.wait_for(read_message(reader), HANDSHAKE_SECONDS)
                if not isinstance(welcome, m.Welcome):
                    raise ProtocolError("it answers, but not as a node does")
                state.name = welcome.name
                if welcome.instance == self.instance:
                    return RESOLVE_SECONDS
                if welcome.refused:
                    raise ProtocolError(f"refused by {welcome.name}: {welcome.refused}")
                if welcome.name == self._name:
                    raise ProtocolError(f"another node has this one's name, {self._name!r}: names must differ")
                known = self._dialled.get(welcome.name)
                if known is not None and known.instance == welcome.instance:
                    return RESOLVE_SECONDS  # another address of the same node
                if known is not None and not _same(self._accepts.get(welcome.name), welcome.instance):
                    raise ProtocolError(f"there is another node named {welcome.name!r}, at {known.address}")
                if known is not None:
                    known.close()
                    self._gone(known)
                connection = _Connection(welcome.name, welcome.instance, format_address(address), writer, sender)
                self._dialled[welcome.name] = connection
                self.connections += 1
                state.wake.clear()
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
            answer = m.encode(m.Welcome(m.VERSION, self._name, self.instance, refused))
            writer.write(len(answer).to_bytes(4, "big") + b"\x01" + answer)
            await writer.drain()
            if hello.instance == self.instance:
                return
            if refused:
                raise ProtocolError(refused)
        except (OSError, EOFError, ProtocolError, asyncio.TimeoutError) as exc:
            self.refusals.add(address, str(exc) or type(exc).__name__)
            return
        connection = _Connection(hello.name, hello.instance, address, writer)
        try:
            await self._read(reader, connection)
        except (OSError, EOFError) as exc:
            logger.info("%s at %s: connection ended: %s", hello.name, address, exc)
        except ProtocolError as exc:
            logger.warning("%s at %s: connection closed: %s", hello.name, address, exc)
        except Exception as exc:
            logger.error("%s at %s: connection closed: %r", hello.name, address, exc, exc_info=exc)
        finally:
            self._gone(connection)

    def _refuse(self, hello: m.Hello) -> str:
        if hello.version != m.VERSION:
            return f"it speaks version {hello.version} of the protocol, and this node version {m.VERSION}"
        if hello.namespace != self._config.namespace:
            return f"its namespace is {hello.namespace!r}, and this one's {self._config.namespace!r}"
        if hello.instance != self.instance and hello.name == self._name:
            return f"it has this node's name, {self._name!r}: names must differ"
        known = self._accepts.get(hello.name)
        # The first process of a name is the node, or that one to which there is a connection in the other direction. A
        # node that has been restarted is let in as soon as its former connections are found dead.
        mine = _same(known, hello.instance) or _same(self._dialled.get(hello.name), hello.instance)
        if known is not None and not mine:
            return f"there is another node named {hello.name!r}, at {known.address}: names must differ"
        return ""

    def _accept(self, connection: _Connection) -> None:
        known = self._accepts.get(connection.name)
        if known is not None:
            known.close()
            self._gone(known)
        self._accepts[connection.name] = connection
        self._pair(connection.name)
        if connection.name not in self._dialled:
            self._dial_now()

    def _dial_now(self) -> None:
        """A node is there that this one has not reached: where cannot be told, so all that may be it are tried."""
        for state in self.dials.values():
            if state.name != self._name and state.name not in self._dialled:
                state.wake.set()

    async def _read(self, reader: asyncio.StreamReader, connection: _Connection) -> None:
        loop = asyncio.get_running_loop()
        limit = self._config.dead_after
        accepted = False
        silence = loop.call_later(limit, connection.close)
        try:
            async for item in receive(reader, self.budget):
                if not accepted:
                    # Not before it has sent something: who finds that this is another address of a node that it is
                    # connected to leaves without a word, and the connection that there is must not end for that.
                    accepted = True
                    self._accept(connection)
                if isinstance(item, m.Ping):
                    silence.cancel()
                    silence = loop.call_later(limit, connection.close)
                    answer = m.encode(m.Pong(item.number))
                    connection.writer.write(len(answer).to_bytes(4, "big") + b"\x01" + answer)
                    await connection.writer.drain()
                    continue
                if not connection.up.is_set():
                    await connection.up.wait()  # what follows may be answered on the other connection only
                peer = self.peers.get(connection.name)
                if peer is None or peer.instance != connection.instance:
                    return
                await self._users.heard(peer, item)
        finally:
            silence.cancel()

    # -- who is live

    def _pair(self, name: str) -> None:
        """One of a node's connections is up: with the other one, it is live."""
        out, back = self._dialled.get(name), self._accepts.get(name)
        if out is None and name not in self._unknown and not any(d.name == name for d in self.dials.values()):
            self._unknown.add(name)
            logger.info("%s is connected, and will be live when this node has reached it as well", name)
        if out is None or back is None or out.sender is None:
            return
        if out.instance != back.instance:
            return  # one of them is of a former process, and about to end
        peer = self.peers[name] = Peer(name, out.instance, out.sender, time.time())
        self._unknown.discard(name)
        logger.info("%s is live, at %s", name, out.address)
        self._users.up(peer)
        back.up.set()

    def _gone(self, connection: _Connection) -> None:
        """A connection has ended; so has the other one of that node, then."""
        name = connection.name
        here, there = self._dialled, self._accepts
        if here.get(name) is not connection:
            here, there = there, here
        if here.get(name) is not connection:
            return  # said before
        del here[name]
        peer = self.peers.pop(name, None)
        if peer is None:
            return
        other = there.get(name)
        if other is not None:
            other.close()
        self._bytes_sent += peer.out.bytes_sent
        logger.warning("%s is not connected any more", name)
        self._users.down(peer)
