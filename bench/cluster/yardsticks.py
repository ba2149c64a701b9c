"""What the network between two hosts gives to the plainest of programs, in workers on those hosts.

Round trips and bytes, by sockets and by asyncio's streams, with and without the TLS that the sidecars use. All of these
are module-level functions, called in a worker (nodes.py), which has one server and one connection of each kind.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import Coroutine
from typing import Final, TypeVar

from coopshm.cluster import trust

from ..procs import CLOCK

__all__ = ["connect", "connect_all", "echo", "echo_all", "push", "serve", "stream_echo", "stream_push"]

T = TypeVar("T")

#: What a client says first: what is to be done with what follows.
_ECHO, _SINK, _FRAMES = b"e", b"s", b"f"
_SECRET: Final = b"of a yardstick, thirty-two bytes or more"
_CHUNK: Final = 64 * 1024
#: A frame: the length of what follows.
_HEAD: Final = struct.Struct(">I")

_loop: asyncio.AbstractEventLoop | None = None
_address = ""
_ports: tuple[int, int, int] = (0, 0, 0)
_echo_socket: socket.socket | None = None
_echo_sockets: list[socket.socket] = []
_echo_streams: dict[bool, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}


def _run(what: Coroutine[None, None, T]) -> T:
    """Run on this worker's event loop, which has a thread of its own."""
    global _loop
    if _loop is None:
        _loop = asyncio.new_event_loop()
        threading.Thread(target=_loop.run_forever, daemon=True).start()
    return asyncio.run_coroutine_threadsafe(what, _loop).result()


# ---- servers


def serve(address: str) -> tuple[int, int, int]:
    """Serve on this host's address; return the ports of the socket, of the streams, and of the streams over TLS."""
    listener = socket.create_server((address, 0))
    threading.Thread(target=_accept, args=[listener], daemon=True).start()
    plain, secure = (_run(_serve_streams(address, context)) for context in (None, _trusted().server))
    return int(listener.getsockname()[1]), plain, secure


def _trusted() -> trust.Trust:
    return trust.from_secret(_SECRET, "bench")


async def _serve_streams(address: str, context: ssl.SSLContext | None) -> int:
    server = await asyncio.start_server(_serve_stream, address, 0, ssl=context, limit=4 * _CHUNK)
    return int(server.sockets[0].getsockname()[1])


async def _serve_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    kind = await reader.readexactly(1)
    if kind == _ECHO:
        while data := await reader.read(_CHUNK):
            writer.write(data)
    elif kind == _FRAMES:
        while size := _HEAD.unpack(await reader.readexactly(_HEAD.size))[0]:
            await reader.readexactly(size)
        writer.write(b"!")
    else:
        left = int.from_bytes(await reader.readexactly(8), "big")
        while left:
            left -= len(await reader.read(4 * _CHUNK))
        writer.write(b"!")
    await writer.drain()
    await reader.read(1)  # until the other side goes
    writer.close()


def _accept(listener: socket.socket) -> None:
    while True:
        accepted, _ = listener.accept()
        threading.Thread(target=_serve_socket, args=[accepted], daemon=True).start()


def _serve_socket(accepted: socket.socket) -> None:
    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with accepted:
        if accepted.recv(1) == _ECHO:
            while data := accepted.recv(_CHUNK):
                accepted.sendall(data)
            return
        left = int.from_bytes(accepted.recv(8, socket.MSG_WAITALL), "big")
        memory = memoryview(bytearray(4 * _CHUNK))
        while left:
            left -= accepted.recv_into(memory)
        accepted.sendall(b"!")


# ---- clients


def connect(address: str, ports: tuple[int, int, int]) -> None:
    """Connect to what another worker serves."""
    global _address, _ports, _echo_socket
    _address, _ports = address, ports
    _echo_socket = _connect(_ECHO)
    for secure in (False, True):
        _echo_streams[secure] = _run(_open(secure, _ECHO))


def _connect(kind: bytes) -> socket.socket:
    return _connect_to(_address, _ports[0], kind)


def _connect_to(address: str, port: int, kind: bytes) -> socket.socket:
    connection = socket.create_connection((address, port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(kind)
    return connection


async def _open(secure: bool, kind: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context = _trusted().client if secure else None
    reader, writer = await asyncio.open_connection(
        _address, _ports[1 + secure], ssl=context, server_hostname="coopshm" if secure else None
    )
    writer.write(kind)
    return reader, writer


def echo(size: int = 100) -> float:
    """Return the µs that so many bytes take to the other host and back, by sockets."""
    assert _echo_socket is not None
    before = CLOCK()
    _echo_socket.sendall(bytes(size))
    _echo_socket.recv(size, socket.MSG_WAITALL)
    return (CLOCK() - before) / 1000


def connect_all(servers: list[tuple[str, tuple[int, int, int]]]) -> None:
    """Connect to what workers on several hosts serve."""
    _echo_sockets.extend(_connect_to(address, ports[0], _ECHO) for address, ports in servers)


def echo_all(size: int = 100) -> float:
    """Return the µs that so many bytes take to each of those hosts and back."""
    before = CLOCK()
    for connection in _echo_sockets:
        connection.sendall(bytes(size))
    for connection in _echo_sockets:
        connection.recv(size, socket.MSG_WAITALL)
    return (CLOCK() - before) / 1000


def stream_echo(secure: bool, size: int = 100) -> float:
    """The same by asyncio's streams."""
    return _run(_stream_echo(*_echo_streams[secure], size))


async def _stream_echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int) -> float:
    before = CLOCK()
    writer.write(bytes(size))
    await reader.readexactly(size)
    return (CLOCK() - before) / 1000


def push(size: int) -> float:
    """Return the seconds until so many bytes have been sent and received, by sockets."""
    piece = bytes(_CHUNK)
    with _connect(_SINK) as connection:
        before = CLOCK()
        connection.sendall(size.to_bytes(8, "big"))
        for at in range(0, size, _CHUNK):
            connection.sendall(piece[: size - at])
        connection.recv(1)
        return (CLOCK() - before) / 1e9


def stream_push(secure: bool, size: int, frame: int = 0) -> float:
    """The same by asyncio's streams; with `frame`, as frames of so many bytes, each written and read for itself."""
    return _run(_stream_push(secure, size, frame))


async def _stream_push(secure: bool, size: int, frame: int) -> float:
    reader, writer = await _open(secure, _FRAMES if frame else _SINK)
    piece = bytes(frame or _CHUNK)
    before = CLOCK()
    if frame:
        head = _HEAD.pack(frame)
        for _ in range(0, size, frame):
            writer.write(head + piece)
            await writer.drain()
        writer.write(_HEAD.pack(0))
    else:
        writer.write(size.to_bytes(8, "big"))
        for at in range(0, size, _CHUNK):
            writer.write(piece[: size - at])
            await writer.drain()
    await reader.readexactly(1)
    took = (CLOCK() - before) / 1e9
    writer.close()
    return took
