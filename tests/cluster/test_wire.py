"""Frames: every message survives, what is no frame ends the connection in bounded memory, and nothing waits behind the
log."""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import Callable
from typing import Any, get_args

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given, settings

from coopshm.cluster import messages as m
from coopshm.cluster import wire
from coopshm.cluster.relay import Stamp
from tests.cluster.loops import run

STAMP = Stamp(7, b'"v"', "web1#1")
KEY: dict[str, Any] = {"cache": "c", "stamp": STAMP, "key_id": b"k", "serial": 3}
EXAMPLES: list[Any] = [
    m.Hello(1, "web1", b"i" * 16, "shop"),
    m.Welcome(1, "web1", b"i" * 16, "no"),
    m.Ping(1),
    m.Pong(1),
    m.View(1, b"h" * 8, [m.Holding(**KEY)]),
    m.Standing(1, "c", None, {}, "web1#1", 1),
    m.Standing(1, "c", STAMP, {"web1#1": 7}, "web1#1", 1, True),
    m.Ask(**KEY, view=b"h" * 8),
    m.Withdraw(**KEY),
    m.Done(**KEY, stored=True),
    m.Fetch(**KEY),
    m.Granted(**KEY),
    m.Held(**KEY),
    m.Alone(**KEY),
    m.At(**KEY, node="web2"),
    m.Want(**KEY),
    m.Finished(**KEY, node="web2"),
    m.NotHere(**KEY),
    m.Subscribe(1, "c", STAMP, "web1#1", 4, 9),
    m.Take(1, [0, 5]),
    m.Log(1, "web1#1", 4, 9),
    m.Offer(1, [b"k", b"l"], 11),
    m.CaughtUp(1, 11),
    m.Over(1),
]


def begin(purpose: int = m.Purpose.LOG, size: int = 0, transfer: int = 0, payload: bytes = b"") -> m.Begin:
    return m.Begin(transfer, purpose, 1, "", None, b"", b"key", 2, 0, size, payload)


def frame(data: bytes, kind: int = 1, size: int | None = None) -> bytes:
    return struct.pack(">IB", len(data) if size is None else size, kind) + data


def received(data: bytes, budget: wire.Budget) -> list[Any]:
    """What is made of these bytes; the last item is what ended it."""

    async def collect() -> list[Any]:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        items: list[Any] = []
        try:
            async for item in wire.receive(reader, budget):
                if isinstance(item, wire.Arrived) and item.payload is not None:
                    item.payload = bytes(item.payload)
                items.append(item)
        except (wire.ProtocolError, EOFError) as exc:
            items.append(exc)
        return items

    return run(collect())


def sent(*steps: Callable[[wire.Sender], Any]) -> bytes:
    """What a Sender writes of these."""

    class Writer:
        data = bytearray()

        def write(self, data: bytes | memoryview) -> None:
            self.data += data

        async def drain(self) -> None:
            await asyncio.sleep(0)

    async def send() -> bytes:
        writer = Writer()
        writer.data = bytearray()
        sender = wire.Sender(writer)  # type: ignore[arg-type]
        waiting = [made for step in steps if asyncio.iscoroutine(made := step(sender))]
        task = asyncio.create_task(sender.run())
        await asyncio.gather(*waiting)
        while sender._frames or sender._answers or not sender._news.is_set() or not task.done():
            before = len(writer.data)
            for _ in range(3):
                await asyncio.sleep(0)
            if len(writer.data) == before and not sender._frames and not sender._answers:
                break
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return bytes(writer.data)

    return run(send())


def test_every_message_survives() -> None:
    assert {type(example) for example in EXAMPLES} | {m.Begin} == set(get_args(m.Message))
    data = sent(*(lambda sender, example=example: sender.send(example) for example in EXAMPLES))
    *items, end = received(data, wire.Budget(0, 0))
    assert items == EXAMPLES
    assert isinstance(end, EOFError)


@pytest.mark.parametrize("size", [0, 1, wire.INLINE_BYTES_MAX, wire.INLINE_BYTES_MAX + 1, wire.PIECE_BYTES * 3 + 5])
def test_entries_survive_in_pieces_and_at_once(size: int) -> None:
    payload = random.Random(size).randbytes(size)
    data = sent(
        lambda sender: sender.log([(begin(), memoryview(payload))]),
        lambda sender: sender.answer(begin(m.Purpose.ANSWER), payload),
    )
    budget = wire.Budget(10**6, 10**7)
    *items, _ = received(data, budget)
    assert sorted(item.begin.purpose for item in items) == [m.Purpose.LOG, m.Purpose.ANSWER]
    assert all(item.payload == payload for item in items)
    assert (budget.used, budget.dropped) == (0, 0)


def test_short_entries_of_the_log_share_writes_and_keep_their_order() -> None:
    sizes = [10, 0, 500, wire.INLINE_BYTES_MAX + 1, 20, wire.PIECE_BYTES * 2, 30, *[wire.INLINE_BYTES_MAX] * 8]
    entries = [(m.Begin(0, 0, 1, "", None, b"", b"%d" % at, 2, 0, 0, b"", at), bytes(n)) for at, n in enumerate(sizes)]
    writes: list[bytes] = []

    class Writer:
        def write(self, data: bytes | memoryview) -> None:
            writes.append(bytes(data))

        async def drain(self) -> None: ...

    async def send() -> None:
        sender = wire.Sender(Writer())  # type: ignore[arg-type]
        running = asyncio.create_task(sender.run())
        await sender.log(entries)
        await sender.log([(begin(), b"next")])  # whoever sends next is not held up
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    run(send())
    assert max(map(len, writes)) < wire.PIECE_BYTES + 2 * wire.INLINE_BYTES_MAX
    # 3 short ones; a longer one and its piece; a short one; a longer one, its 2 pieces; 5 and 4 short ones; the next.
    assert len(writes) == 1 + 2 + 1 + 3 + 2 + 1
    *items, end = received(b"".join(writes), wire.Budget(10**6, 10**6))
    assert isinstance(end, EOFError)
    assert [(item.begin.position, len(item.payload)) for item in items] == [*enumerate(sizes), (0, 4)]


def test_messages_overtake_answers_and_those_overtake_the_log() -> None:
    big = bytes(10 * wire.PIECE_BYTES)

    async def late(sender: wire.Sender) -> None:
        while sender.bytes_sent < 2 * wire.PIECE_BYTES:
            await asyncio.sleep(0)
        sender.answer(begin(m.Purpose.ANSWER), big)
        while sender.bytes_sent < 5 * wire.PIECE_BYTES:
            await asyncio.sleep(0)
        sender.send(m.Ping(1))

    *items, _ = received(sent(lambda sender: sender.log([(begin(), big)]), late), wire.Budget(10**7, 10**7))
    assert isinstance(items[0], m.Ping)
    assert [item.begin.purpose for item in items[1:]] == [m.Purpose.ANSWER, m.Purpose.LOG]


def test_entries_beyond_the_memory_allowed_are_dropped_and_counted() -> None:
    payload = bytes(wire.PIECE_BYTES * 2)
    data = sent(lambda sender: sender.log([(begin(), payload)]), lambda sender: sender.send(m.Ping(1)))
    budget = wire.Budget(len(payload) - 1, 10**7)
    *items, _ = received(data, budget)
    assert [item.payload for item in items if isinstance(item, wire.Arrived)] == [None]
    assert (budget.used, budget.dropped) == (0, 1)


def test_who_does_not_read_is_cut_off() -> None:
    async def check() -> None:
        class Stuck:
            def write(self, data: bytes) -> None: ...

            async def drain(self) -> None: ...

        for flood in (
            lambda sender: sender.send(m.Welcome(1, "", b"i" * 16, "x" * 500)),
            lambda sender: sender.answer(begin(), b""),
        ):
            sender = wire.Sender(Stuck())  # type: ignore[arg-type]
            for _ in range(wire.QUEUE_BYTES_MAX // 500 + 1):
                flood(sender)
            with pytest.raises(wire.ProtocolError, match="does not read"):
                await sender.run()

    run(check())


PIECE = struct.pack(">Q", 1) + b"abc"


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        frame(b"", size=2**32 - 1),
        frame(b"", kind=9),
        frame(b"\xc1"),
        frame(b""),
        frame(b"\x93\x01\xdd\xff\xff\xff\xff"),
        frame(b"\x91" * 5000),
        frame(m.encode(begin(size=10, payload=b"abc"))),
        frame(PIECE, kind=2),
        frame(b"short", kind=2),
        frame(m.encode(begin(size=2**20, transfer=1))) * 2,
        frame(m.encode(begin(size=2**20, transfer=1))) + frame(m.encode(begin(size=2**20, transfer=2))),
        frame(m.encode(begin(size=2, transfer=1))) + frame(PIECE, kind=2),
        frame(msgspec.msgpack.encode([6, 1, "c", None, {str(i): 1 for i in range(300)}, "o", 1])),
        frame(msgspec.msgpack.encode([30, -1, "c", [1, b"1", ""], "o", 1, 1])),
        frame(msgspec.msgpack.encode([30, 1, "c" * 101, [1, b"1", ""], "o", 1, 1])),
        frame(msgspec.msgpack.encode([31, 1, [2**20]])),
    ],
    ids=range(17),
)
def test_what_is_no_frame_ends_the_connection(data: bytes) -> None:
    budget = wire.Budget(2**30, 2**30)
    *_, end = received(data, budget)
    assert isinstance(end, wire.ProtocolError)
    assert len(str(end)) < 1000
    assert budget.used == 0


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_damaged_bytes_are_an_error_or_other_messages(data: st.DataObject) -> None:
    """Valid frames with bytes changed, cut out, doubled and put in; nothing else than these two ends comes of it."""
    frames = [frame(m.encode(data.draw(st.sampled_from(EXAMPLES)))) for _ in range(data.draw(st.integers(0, 4)))]
    if data.draw(st.booleans()):
        frames.append(frame(m.encode(begin(size=5, transfer=1))) + frame(struct.pack(">Q", 1) + b"abcde", kind=2))
    raw = bytearray(b"".join(data.draw(st.permutations(frames))))
    for _ in range(data.draw(st.integers(0, 5))):
        at = data.draw(st.integers(0, len(raw)))
        cut = data.draw(st.integers(0, 20))
        raw[at : at + cut] = data.draw(st.binary(max_size=20))
    budget = wire.Budget(2**16, 2**17)
    *_, end = received(bytes(raw), budget)
    assert isinstance(end, (wire.ProtocolError, EOFError))
    assert budget.used == 0


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=500))
def test_random_bytes_are_no_message_or_a_bounded_one(data: bytes) -> None:
    try:
        message = m.decode(data)
    except ValueError:
        return
    assert m.decode(m.encode(message)) == message
