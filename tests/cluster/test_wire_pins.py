"""Payloads that are being sent are pinned in a segment for as long as anybody has them. A connection that ends lets go
of them, whatever keeps the exception that ended it; nothing here is left to the collector."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from coopshm.cluster import messages as m
from coopshm.cluster import wire
from tests.cluster.loops import run

LARGE = 3 * wire.PIECE_BYTES


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


class Payload(bytearray):
    """As a segment's."""


class Pinned(list["weakref.ref[Payload]"]):
    """Those that were made."""

    def make(self, size: int = LARGE) -> memoryview:
        payload = Payload(size)
        self.append(weakref.ref(payload))
        return memoryview(payload)

    def left(self) -> int:
        return sum(payload() is not None for payload in self)


class Writer:
    """To a connection that has ended."""

    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None:
        raise ConnectionResetError


class FullWriter(Writer):
    """To somebody who does not read."""

    def __init__(self) -> None:
        self.full = asyncio.Event()

    async def drain(self) -> None:
        self.full.set()
        await asyncio.Event().wait()


class FailingWriter(Writer):
    """As asyncio's: what fails in a write is kept, and told to who drains."""

    def __init__(self, fails_at: int) -> None:
        self.failed: Exception | None = None
        self._left = fails_at

    def write(self, data: bytes) -> None:
        self._left -= 1
        if self._left == 0:
            try:
                raise BrokenPipeError
            except OSError as exc:
                self.failed = exc

    async def drain(self) -> None:
        if self.failed is not None:
            raise self.failed


def begin() -> m.Begin:
    return m.Begin(0, m.Purpose.LOG, 1, "", None, b"", b"k", 1, 0, 0)


async def serve(sender: wire.Sender, pinned: Pinned) -> None:
    """As a task of the relay that passes the log on."""
    await sender.log([(begin(), pinned.make())])


def test_a_connection_that_ends_lets_go_of_what_it_was_sending() -> None:
    async def attempt() -> None:
        pinned, sender = Pinned(), wire.Sender(Writer())
        sending = asyncio.ensure_future(serve(sender, pinned))
        running = asyncio.ensure_future(sender.run())
        await asyncio.wait([running, sending])
        assert isinstance(running.exception(), ConnectionResetError)
        assert isinstance(sending.exception(), ConnectionResetError)
        del running, sending
        assert (len(pinned), pinned.left()) == (1, 0)

    run(attempt())


def test_what_ended_a_connection_has_nothing_of_what_was_being_sent() -> None:
    async def attempt() -> None:
        pinned, writer = Pinned(), FullWriter()
        sender = wire.Sender(writer)
        sending = asyncio.ensure_future(serve(sender, pinned))
        running = asyncio.ensure_future(sender.run())
        await writer.full.wait()
        for task in (sending, running):  # as when nobody follows any more, and then the connection is given up
            task.cancel()
        await asyncio.wait([sending])
        with pytest.raises(asyncio.CancelledError) as kept:  # as by whoever waited for it
            await running
        del sending, task
        assert (len(pinned), pinned.left()) == (1, 0)
        assert kept.value is not None

    run(attempt())


def test_a_connection_that_ends_lets_go_of_answers_that_wait() -> None:
    async def attempt() -> None:
        pinned, sender = Pinned(), wire.Sender(Writer())
        for _ in range(3):
            sender.answer(begin(), pinned.make(100))
        with pytest.raises(ConnectionResetError) as kept:  # which has the sender, in a frame of its traceback
            await sender.run()
        sender.answer(begin(), pinned.make(100))  # before whoever asks for it knows that it has ended
        assert (len(pinned), pinned.left()) == (4, 0)
        assert kept.value is not None

    run(attempt())


@pytest.mark.parametrize("answers", [False, True])
@pytest.mark.parametrize("fails_at", [1, 2, 3, 4])  # the beginning, each piece
def test_what_failed_in_a_transport_has_nothing_of_what_was_being_sent(fails_at: int, answers: bool) -> None:
    async def attempt() -> None:
        pinned, writer = Pinned(), FailingWriter(fails_at)
        sender = wire.Sender(writer)
        if answers:
            sender.answer(begin(), pinned.make())
        sending = asyncio.ensure_future(serve(sender, pinned))
        running = asyncio.ensure_future(sender.run())
        await asyncio.wait([running, sending])
        assert writer.failed is not None
        assert isinstance(running.exception(), BrokenPipeError)
        assert isinstance(sending.exception(), ConnectionResetError)
        del running, sending, sender
        assert (len(pinned), pinned.left()) == (1 + answers, 0)

    run(attempt())
