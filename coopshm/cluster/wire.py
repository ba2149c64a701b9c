"""Frames on a stream: what is sent before what, how much of it, and how it is put together again.

A frame is a length (4 bytes, of what follows the head), a type (1 byte), and that many bytes: a message (messages.py),
or a piece of an entry's payload, which begins with its transfer's number (8 bytes). Whoever breaks a limit loses the
connection.

Sending (`Sender`), in this order: messages; pieces of what somebody waits for; pieces of the log. So a heartbeat or a
grant waits for one piece at most, whatever is under way. Messages and answers are queued up to a limit, beyond which
the connection ends: the other side does not read. The log is not queued: who reads it waits until its entry is written.

Receiving (`receive`): at most two transfers are put together at a time, one of each kind. What is too large for this
node, or for the memory that is left for this purpose on it, is read and dropped.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from . import messages as m

__all__ = ["FRAME_BYTES_MAX", "PIECE_BYTES", "Arrived", "Budget", "ProtocolError", "Sender", "receive", "tune"]

_HEAD = struct.Struct(">IB")
_TRANSFER = struct.Struct(">Q")
_MESSAGE, _PIECE = 1, 2

#: Longest frame, in bytes: a view with all holdings that may be in it.
FRAME_BYTES_MAX = 4 * 1024 * 1024

#: Longest first frame of each side, in bytes: it is read before anything is known of the sender but that it may
# connect.
HELLO_BYTES_MAX = 1024

#: Payload bytes in one frame: what a heartbeat waits for at most. At 20 KB/s that is as long as is waited for a
# heartbeat.
PIECE_BYTES = 64 * 1024

#: Payloads up to this many bytes are in the message itself.
INLINE_BYTES_MAX = 16 * 1024

#: What is queued for a node that does not read, in bytes and in answers, before the connection ends.
QUEUE_BYTES_MAX = 16 * 1024 * 1024
QUEUE_ANSWERS_MAX = 4096


class ProtocolError(Exception):
    """The other side does what no node does."""


def tune(sock: socket.socket) -> None:
    """Small messages go at once, and few bytes wait in the kernel, where nothing could overtake them."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, "TCP_NOTSENT_LOWAT", 25), 2 * PIECE_BYTES)


@dataclass
class _Transfer:
    number: int
    payload: memoryview
    sent: int
    written: asyncio.Future[None] | None


class Sender:
    """The sending half of one connection. `run` does the writing and ends with the connection."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._answers: deque[tuple[m.Begin, memoryview]] = deque()
        self._log: tuple[m.Begin, memoryview, asyncio.Future[None]] | None = None
        self._log_free = asyncio.Lock()
        self._news = asyncio.Event()
        self._transfers = 0
        self._broken: str | None = None
        self.bytes_sent = 0

    def send(self, message: m.Message) -> None:
        """Queue a message."""
        data = m.encode(message)
        self._frames.append(_HEAD.pack(len(data), _MESSAGE))
        self._frames.append(data)
        self._bytes += len(data)
        if self._bytes > QUEUE_BYTES_MAX:
            self._broken = f"does not read: {self._bytes} bytes of messages wait for it"
        self._news.set()

    def answer(self, begin: m.Begin, payload: bytes | memoryview) -> None:
        """Queue an entry that somebody waits for."""
        self._answers.append((begin, memoryview(payload)))
        if len(self._answers) > QUEUE_ANSWERS_MAX:
            self._broken = f"does not read: {len(self._answers)} answers wait for it"
        self._news.set()

    async def log(self, begin: m.Begin, payload: bytes | memoryview) -> None:
        """Send an entry of the log; return when it is written."""
        async with self._log_free:
            written = asyncio.get_running_loop().create_future()
            self._log = (begin, memoryview(payload), written)
            self._news.set()
            try:
                await written
            except asyncio.CancelledError:
                self._log = None  # if it has not begun: nobody else can have set it
                raise
            finally:
                # What it raises has this frame, which would have the future, which has what it raises: the caller's
                # variables, payloads pinned in a segment, would live until the collector comes round.
                del written

    async def run(self) -> None:
        """Write what is queued until cancelled.

        Raises:
            OSError: the connection ended.
            ProtocolError: the other side does not read.
        """
        answer: _Transfer | None = None
        log: _Transfer | None = None
        try:
            while True:
                if self._broken is not None:
                    raise ProtocolError(self._broken)
                if self._frames:
                    self._write_frames()
                elif answer is not None:
                    answer = self._write_piece(answer)
                elif self._answers:
                    answer = self._begin(*self._answers.popleft(), None)
                elif log is not None:
                    log = self._write_piece(log)
                elif self._log is not None:
                    log, self._log = self._begin(*self._log), None
                else:
                    self._news.clear()
                    await self._news.wait()
                    continue
                await self._writer.drain()
        finally:
            for written in (log.written if log else None, self._log[2] if self._log else None):
                if written is not None and not written.done():
                    written.set_exception(ConnectionResetError("the connection ended"))
                    written.exception()  # whoever waited may be gone as well
            self._log = None
            # What is raised here has this frame, and may be kept for long (a task's, another exception's context): with
            # these variables it would keep payloads pinned in a segment.
            answer = log = written = None

    def _write(self, data: bytes | memoryview) -> None:
        self._writer.write(data)
        self.bytes_sent += len(data)

    def _write_frames(self) -> None:
        taken: list[bytes] = []
        size = 0
        while self._frames and size < PIECE_BYTES:
            taken.append(self._frames.popleft())
            taken.append(self._frames.popleft())
            size += len(taken[-1])
        self._bytes -= size
        self._write(b"".join(taken))

    def _begin(self, begin: m.Begin, payload: memoryview, written: asyncio.Future[None] | None) -> _Transfer | None:
        """Send the message that an entry begins with; the transfer if there is more to send."""
        payload = payload.cast("B")
        self._transfers += 1
        inline = len(payload) <= INLINE_BYTES_MAX
        values = {name: getattr(begin, name) for name in begin.__struct_fields__}
        values.update(transfer=self._transfers, size=len(payload), payload=bytes(payload) if inline else b"")
        data = m.encode(m.Begin(**values))
        self._write(_HEAD.pack(len(data), _MESSAGE) + data)
        if inline:
            _done(written)
            return None
        return _Transfer(self._transfers, payload, 0, written)

    def _write_piece(self, transfer: _Transfer) -> _Transfer | None:
        piece = transfer.payload[transfer.sent : transfer.sent + PIECE_BYTES]
        self._write(_HEAD.pack(len(piece) + _TRANSFER.size, _PIECE) + _TRANSFER.pack(transfer.number))
        self._write(piece)
        transfer.sent += len(piece)
        if transfer.sent < len(transfer.payload):
            return transfer
        _done(transfer.written)
        return None


def _done(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)


class Budget:
    """Bytes for entries that are being put together, on all connections of a node."""

    def __init__(self, each: int, total: int) -> None:
        self.each = each
        self.total = total
        self.used = 0
        self.dropped = 0

    def take(self, size: int) -> bytearray | None:
        """Memory for one entry; None: there is none, and that is counted."""
        if size > self.each or self.used + size > self.total:
            self.dropped += 1
            return None
        self.used += size
        return bytearray(size)

    def give(self, size: int) -> None:
        self.used -= size


@dataclass
class Arrived:
    """An entry. `payload` is None if it was dropped."""

    begin: m.Begin
    payload: bytes | memoryview | None


@dataclass
class _Assembly:
    begin: m.Begin
    memory: bytearray | None
    filled: int


async def read_message(reader: asyncio.StreamReader, limit: int = HELLO_BYTES_MAX) -> m.Message:
    """The next frame, which must be a message of at most `limit` bytes.

    Raises:
        ProtocolError: it is not.
        OSError, EOFError: the connection ended.
    """
    size, kind = _HEAD.unpack(await reader.readexactly(_HEAD.size))
    if kind != _MESSAGE or size > limit:
        raise ProtocolError(f"a frame of type {kind} and {size} bytes")
    try:
        return m.decode(await reader.readexactly(size))
    except ValueError as exc:
        raise ProtocolError(str(exc)) from None


async def receive(reader: asyncio.StreamReader, budget: Budget) -> AsyncIterator[m.Message | Arrived]:
    """What comes, until the connection ends. An `Arrived` counts against the budget until the next item is asked for.

    Raises:
        ProtocolError: a frame that no node sends.
        OSError, EOFError: the connection ended.
    """
    open_transfers: dict[int, _Assembly] = {}
    try:
        while True:
            size, kind = _HEAD.unpack(await reader.readexactly(_HEAD.size))
            if size > FRAME_BYTES_MAX or kind not in (_MESSAGE, _PIECE):
                raise ProtocolError(f"a frame of type {kind} and {size} bytes")
            data = await reader.readexactly(size)
            if kind == _PIECE:
                assembly = _add(open_transfers, data)
                if assembly is None:
                    continue
                memory = assembly.memory
                try:
                    yield Arrived(assembly.begin, memoryview(memory).toreadonly() if memory is not None else None)
                finally:
                    budget.give(len(memory) if memory is not None else 0)
                continue
            try:
                message = m.decode(data)
            except ValueError as exc:
                raise ProtocolError(str(exc)) from None
            if not isinstance(message, m.Begin):
                yield message
            elif len(message.payload) == message.size:
                yield Arrived(message, message.payload)
            else:
                _open(open_transfers, message, budget)
    finally:
        for assembly in open_transfers.values():
            if assembly.memory is not None:
                budget.give(len(assembly.memory))


def _open(transfers: dict[int, _Assembly], begin: m.Begin, budget: Budget) -> None:
    in_log = begin.purpose == m.Purpose.LOG
    if begin.payload or begin.transfer in transfers:
        raise ProtocolError("an entry that contradicts itself")
    if any((other.begin.purpose == m.Purpose.LOG) == in_log for other in transfers.values()):
        raise ProtocolError("more entries at a time than a node sends")
    transfers[begin.transfer] = _Assembly(begin, budget.take(begin.size), 0)


def _add(transfers: dict[int, _Assembly], data: bytes) -> _Assembly | None:
    """Put a piece in its place; the entry, if that was the last one."""
    if len(data) <= _TRANSFER.size:
        raise ProtocolError("an empty piece")
    (number,) = _TRANSFER.unpack_from(data)
    assembly = transfers.get(number)
    piece = memoryview(data)[_TRANSFER.size :]
    if assembly is None or assembly.filled + len(piece) > assembly.begin.size:
        raise ProtocolError("a piece of no entry")
    if assembly.memory is not None:
        assembly.memory[assembly.filled : assembly.filled + len(piece)] = piece
    assembly.filled += len(piece)
    if assembly.filled < assembly.begin.size:
        return None
    return transfers.pop(number)
