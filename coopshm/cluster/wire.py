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
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from msgspec import structs

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


@dataclass
class _Waiting:
    """Entries of the log that have not begun, and who waits until all of them are written."""

    entries: deque[tuple[m.Begin, memoryview]]
    written: asyncio.Future[None]


class Sender:
    """The sending half of one connection. `run` does the writing and ends with the connection."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._answers: deque[tuple[m.Begin, memoryview]] = deque()
        self._log: _Waiting | None = None
        self._log_free = asyncio.Lock()
        self._news = asyncio.Event()
        self._transfers = 0
        self._broken: str | None = None
        self._ended = False
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
        if self._ended:
            return  # its payload would be pinned for as long as anybody has this sender
        self._answers.append((begin, memoryview(payload).cast("B")))
        if len(self._answers) > QUEUE_ANSWERS_MAX:
            self._broken = f"does not read: {len(self._answers)} answers wait for it"
        self._news.set()

    async def log(self, entries: Iterable[tuple[m.Begin, bytes | memoryview]]) -> None:
        """Send entries of the log; return when they are written.

        Short ones share a write: by itself each would cost a record of TLS, a call of the kernel, switches of tasks.
        """
        async with self._log_free:
            written = asyncio.get_running_loop().create_future()
            waiting = deque((begin, memoryview(payload).cast("B")) for begin, payload in entries)
            self._log = _Waiting(waiting, written)
            self._news.set()
            try:
                await written
            except asyncio.CancelledError:
                self._log = None  # what has not begun: nobody else can have set it
                raise
            finally:
                # What it raises has this frame, which would have the future, which has what it raises: the caller's
                # variables, payloads pinned in a segment, would live until the collector comes round.
                del written, waiting, entries

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
                    data = self._take_frames()
                elif answer is not None:
                    data, answer = self._piece(answer)
                elif self._answers:
                    data, answer = self._begin(*self._answers.popleft())
                elif log is not None:
                    data, log = self._piece(log)
                elif self._log is not None:
                    data, log = self._take_log(self._log)
                else:
                    self._news.clear()
                    await self._news.wait()
                    continue
                # Here, and not where it was made: what fails in a transport is kept by it, with the frames of all its
                # callers, and payloads pinned in a segment would be among their variables.
                self._writer.write(data)
                self.bytes_sent += len(data)
                await self._writer.drain()
        finally:
            self._ended = True
            self._answers.clear()
            if self._log is not None and not self._log.written.done():
                self._log.written.set_exception(ConnectionResetError("the connection ended"))
                self._log.written.exception()  # whoever waited may be gone as well
            self._log = None
            # What is raised here has this frame, and may be kept for long (a task's, another exception's context): with
            # these variables it would keep payloads pinned in a segment.
            answer = log = None

    def _take_frames(self) -> bytes:
        taken: list[bytes] = []
        size = 0
        while self._frames and size < PIECE_BYTES:
            taken.append(self._frames.popleft())
            taken.append(self._frames.popleft())
            size += len(taken[-1])
        self._bytes -= size
        return b"".join(taken)

    def _take_log(self, waiting: _Waiting) -> tuple[bytes, _Transfer | None]:
        """What is short of these entries, as much as a piece has; or the beginning of a longer one."""
        entries, taken, size = waiting.entries, [], 0
        while entries and size < PIECE_BYTES and len(entries[0][1]) <= INLINE_BYTES_MAX:
            taken.append(self._first(*entries.popleft()))
            size += len(taken[-1])
        if entries and not taken:
            return self._begin(*entries.popleft())
        if not entries:
            self._log = None
            if not waiting.written.done():
                waiting.written.set_result(None)  # whoever waits goes on after this step, in which it is written
        return b"".join(taken), None

    def _begin(self, begin: m.Begin, payload: memoryview) -> tuple[bytes, _Transfer | None]:
        """The message that an entry begins with, and the transfer if there is more to send."""
        first = self._first(begin, payload)
        return first, _Transfer(self._transfers, payload, 0) if len(payload) > INLINE_BYTES_MAX else None

    def _first(self, begin: m.Begin, payload: memoryview) -> bytes:
        """The message that an entry begins with, a new transfer; a short one has all of it."""
        self._transfers += 1
        inline = bytes(payload) if len(payload) <= INLINE_BYTES_MAX else b""
        data = m.encode(structs.replace(begin, transfer=self._transfers, size=len(payload), payload=inline))
        return _HEAD.pack(len(data), _MESSAGE) + data

    def _piece(self, transfer: _Transfer) -> tuple[bytes, _Transfer | None]:
        """The next piece, and the transfer if there is more of it."""
        piece = transfer.payload[transfer.sent : transfer.sent + PIECE_BYTES]
        transfer.sent += len(piece)
        head = _HEAD.pack(len(piece) + _TRANSFER.size, _PIECE) + _TRANSFER.pack(transfer.number)
        # A copy costs less than a write, and a record of TLS, of the head alone.
        return b"".join((head, piece)), transfer if transfer.sent < len(transfer.payload) else None


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
