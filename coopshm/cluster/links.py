"""Connections: accepted and dialled, authenticated before a byte of them is looked at, limited in number and time.

What is refused costs a connection slot for HANDSHAKE_SECONDS at most and one line in the log; a flood of such lines is
cut short and counted.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence

from .trust import Trust, is_loopback
from .wire import tune

__all__ = ["Listener", "Refusals", "cancel", "dial", "format_address", "parse_address", "resolve", "why"]

logger = logging.getLogger("coopshm.cluster")

#: Seconds for connecting, for the handshake, and for the first message.
HANDSHAKE_SECONDS = 5.0

#: Connections that are open at a time, and those of them that have yet to prove who they are.
CONNECTIONS_MAX = 256
STRANGERS_MAX = 32

#: Lines about refused connections in a time.
REFUSALS_MAX = 10
REFUSALS_SECONDS = 60.0

#: Bytes that a stream holds before it stops reading from the socket.
READ_BYTES = 256 * 1024

Address = tuple[str, int]
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter, str], Awaitable[None]]


def parse_address(text: str) -> Address:
    """ "host:port", "[v6]:port" as host and port.

    Raises:
        ValueError: it is neither.
    """
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if not colon or not host or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError(f"{text!r} is no address: write host:port, or [address]:port for IPv6")
    return host, int(port)


def format_address(address: Sequence[object]) -> str:
    host, port = str(address[0]), address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def resolve(address: Address) -> list[Address]:
    """All that a name stands for.

    Raises:
        OSError: it cannot be resolved.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(*address, type=socket.SOCK_STREAM)
    return sorted({(str(entry[4][0]), int(entry[4][1])) for entry in found})


class Refusals:
    """The lines about what was refused, not too many of them."""

    def __init__(self) -> None:
        self.count = 0
        self._since = float("-inf")
        self._lines = 0

    def add(self, address: str, why: str) -> None:
        self.count += 1
        now = time.monotonic()
        if now - self._since > REFUSALS_SECONDS:
            if self._lines > REFUSALS_MAX:
                logger.warning("%d more connections were refused", self._lines - REFUSALS_MAX)
            self._since, self._lines = now, 0
        self._lines += 1
        if self._lines <= REFUSALS_MAX:
            more = "; further ones are only counted, for a minute" if self._lines == REFUSALS_MAX else ""
            logger.warning("connection from %s refused: %s%s", address, why, more)


def _loopback_only(host: str, trust: Trust, what: str) -> None:
    if trust.server is None and not is_loopback(host):
        raise ValueError(f"{what} {host}: without secret_file or tls_cert only loopback addresses are allowed")


class Listener:
    """Accepts connections and hands them, authenticated, to `handle`, which is cancelled when the listener is
    closed."""

    def __init__(self, trust: Trust, handle: Handler, refusals: Refusals) -> None:
        self.trust = trust  # may be changed: connections that are up stay
        self._handle = handle
        self._refusals = refusals
        self._tasks: set[asyncio.Task[None]] = set()
        self._strangers = 0
        self._sockets: list[socket.socket] = []
        self._later: deque[asyncio.TimerHandle] = deque(maxlen=16)
        self._unserved: set[socket.socket] = set()  # accepted, and their tasks have not begun
        self.addresses: list[str] = []

    async def open(self, address: Address) -> None:
        """Listen on all addresses that this one stands for.

        Raises:
            OSError: that is not possible.
            ValueError: it is no loopback address, and nobody could be trusted on it.
        """
        try:
            found = await resolve(address)
            for each in found:
                _loopback_only(each[0], self.trust, "listen")
            for each in found:
                family = socket.AF_INET6 if ":" in each[0] else socket.AF_INET
                self.adopt(socket.create_server(each, family=family, backlog=STRANGERS_MAX))
        except OSError as exc:
            said = os.strerror(exc.errno) if exc.errno and exc.errno > 0 else exc.strerror  # below: of the resolver
            raise OSError(exc.errno, f"cluster.listen: {format_address(address)}: {said}") from exc

    def adopt(self, sock: socket.socket) -> None:
        """Listen on a socket that listens."""
        sock.setblocking(False)
        self._sockets.append(sock)
        self.addresses.append(format_address(sock.getsockname()))
        asyncio.get_running_loop().add_reader(sock.fileno(), self._accept, sock)

    async def close(self) -> None:
        for timer in self._later:
            timer.cancel()
        for sock in self._sockets:
            asyncio.get_running_loop().remove_reader(sock.fileno())
        await cancel(self._tasks)
        for sock in [*self._sockets, *self._unserved]:
            sock.close()

    def _accept(self, sock: socket.socket) -> None:
        """Take what is there. (Not by loop.sock_accept, which loses a connection when it is cancelled at the wrong
        moment.)"""
        loop = asyncio.get_running_loop()
        for _ in range(STRANGERS_MAX):
            try:
                accepted, peer = sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as exc:  # no descriptors left, or the like
                self._refusals.add("somebody", str(exc))
                loop.remove_reader(sock.fileno())
                self._later.append(loop.call_later(1, loop.add_reader, sock.fileno(), self._accept, sock))
                return
            address = format_address(peer)
            if self._strangers >= STRANGERS_MAX or len(self._tasks) >= CONNECTIONS_MAX:
                self._refusals.add(address, f"{len(self._tasks)} connections are open, {self._strangers} of strangers")
                accepted.close()
                continue
            accepted.setblocking(False)
            self._strangers += 1
            task = asyncio.ensure_future(self._serve(accepted, address))
            self._unserved.add(accepted)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, sock: socket.socket, address: str) -> None:
        self._unserved.discard(sock)
        try:
            stream = await _stream(sock, self.trust, accepted=True)
        except (OSError, EOFError, asyncio.TimeoutError) as exc:
            self._refusals.add(address, why(exc, self.trust))
            return
        finally:
            self._strangers -= 1
        try:
            await self._handle(*stream, address)
        finally:
            stream[1].transport.abort()


async def dial(address: Address, trust: Trust) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to an address, authenticated.

    Raises:
        OSError: nobody is there, or the other side is not to be trusted (then ssl.SSLError), or it took too long.
        ValueError: it is no loopback address, and nobody could be trusted there.
    """
    _loopback_only(address[0], trust, "dial")
    loop = asyncio.get_running_loop()
    sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await asyncio.wait_for(loop.sock_connect(sock, address), HANDSHAKE_SECONDS)
    except BaseException as exc:
        sock.close()
        if isinstance(exc, asyncio.TimeoutError):
            raise TimeoutError(f"no answer in {HANDSHAKE_SECONDS:g} s") from None
        raise
    return await _stream(sock, trust, accepted=False)


async def cancel(tasks: Collection[asyncio.Future[None]]) -> None:
    """Cancel tasks, and return when all have ended. Once is not enough: until Python 3.12, wait_for may lose a
    cancellation."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        done, pending = await asyncio.wait(pending, timeout=0.2)
        for task in done:
            if not task.cancelled():
                task.exception()  # looked at: whoever cancels does not want to know


async def _stream(
    sock: socket.socket, trust: Trust, accepted: bool
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Streams over a socket, which is theirs from now on, after the handshake.

    Raises:
        OSError: it failed, or took too long, or the other side is not to be trusted. The socket is closed.
    """
    context = trust.server if accepted else trust.client
    loop = asyncio.get_running_loop()
    tune(sock)
    reader = asyncio.StreamReader(limit=READ_BYTES, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    limit = HANDSHAKE_SECONDS if context is not None else None
    transport: asyncio.Transport
    if accepted:
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol, sock, ssl=context, ssl_handshake_timeout=limit
        )
    else:
        transport, _ = await loop.create_connection(
            lambda: protocol,
            sock=sock,
            ssl=context,
            server_hostname="coopshm" if context is not None else None,
            ssl_handshake_timeout=limit,
        )
    try:
        trust.check(transport.get_extra_info("peercert"))
    except PermissionError:
        transport.abort()
        raise
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


def why(exc: BaseException, trust: Trust) -> str:
    """Why there is no connection, in a word that helps."""
    if isinstance(exc, (asyncio.TimeoutError, ConnectionAbortedError)):
        return f"it did not prove who it is within {HANDSHAKE_SECONDS:g} s"
    untrusted = isinstance(exc, ssl.SSLCertVerificationError) or "UNKNOWN_CA" in str(exc)
    if untrusted and trust.kind == "secret":
        return "it has another secret (secret_file), or another namespace, than this node"
    if isinstance(exc, ConnectionResetError) and trust.kind == "secret":
        return "it went in the handshake; it may have another secret (secret_file), or another namespace"
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"its certificate: {exc.verify_message}"
    if isinstance(exc, ssl.SSLError):
        return f"TLS: {exc.reason or exc}"
    return str(exc) or type(exc).__name__
