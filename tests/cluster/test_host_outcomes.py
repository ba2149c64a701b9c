"""Whose answer a delivered entry is: of the flight that it ended, and of no other one (coopshm.cluster.host)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import coopshm
from coopshm.cluster import segment
from coopshm.cluster.host import SegmentHost
from coopshm.cluster.keyids import key_id_of
from coopshm.cluster.relay import Delivered, Ended, Entry, KeyId, Kind, Stamp
from coopshm.values import codec
from tests.loops import go, until

from .hosting import encoded, hosted, worker

#: A key that goes by a digest in the cluster.
LONG_KEY = "x" * 1000


@pytest.fixture
def conf(settings: Any) -> dict[str, Any]:
    return settings(version=1)  # type: ignore[no-any-return]


def entry(key: object, value: object) -> Entry:
    format, pieces = codec("pickle").encode(value)
    data = encoded(key)
    return Entry(key_id_of(data), data, format, Kind.VALUE, b"".join(pieces))


def stamp_of(host: SegmentHost) -> Stamp:
    standing = host.standing()
    assert standing is not None
    return standing.stamp


async def fill(host: SegmentHost) -> None:
    """No value of half a chunk or more has room from now on."""
    n = 0
    while await host.deliver(stamp_of(host), entry(("filler", n), b"x" * 400_000)) is Delivered.STORED:
        n += 1


def around(
    host: SegmentHost, before: Callable[[], Awaitable[None]] | None, after: Callable[[], Awaitable[None]] | None
):  # type: ignore[no-untyped-def]
    """Have that happen before and after what the host's thread does next, while the event loop runs."""
    at = host._at
    assert at is not None
    original = at.worker.do

    async def do(call: Callable[[], Any]) -> Any:
        at.worker.do = original  # type: ignore[method-assign]
        if before is not None:
            await before()
        result = await original(call)
        if after is not None:
            await after()
        return result

    at.worker.do = do  # type: ignore[method-assign,assignment]


@pytest.mark.parametrize("key", ["k", LONG_KEY], ids=["short", "long"])
def test_a_value_without_room_reaches_the_waiters_of_another_host(conf, tally, key) -> None:
    async def main() -> None:
        w = await worker(conf, tally)
        async with hosted(conf) as (host, heard):

            def answer(stamp: Stamp, key_id: KeyId) -> None:
                host.grant(stamp, key_id)
                host.want(stamp, key_id)

            heard.answer = answer
            coopshm.configure(conf)
            cache = coopshm.open("c")
            await fill(host)
            assert await w.ask(key, "large", slow=True) == ("computing", key)
            await until(lambda: cache.stats().waiters == 1)  # the sidecar itself
            w.child.send("go")
            value = ("got", b"y" * 400_000)
            assert await asyncio.to_thread(w.child.receive) == value
            await until(lambda: bool(heard.ends))
            ((stamp, key_id, passed),) = heard.ends
            assert key_id == key_id_of(encoded(key))
            assert isinstance(passed, Entry)

            # The other host: as full as this one.
            heard.answer = None
            asked = w.ask(key)
            await until(lambda: len(heard.asks) == 2)
            host.hold(stamp, key_id)
            assert await host.deliver(stamp, passed) is Delivered.PASSED
            assert await asked == value
            assert host.find(stamp, key_id) is None
            assert heard.withdrawals == []
        assert len(tally) == 1

    go(main)


def test_a_value_of_another_key_than_it_says_is_nobodys(conf, tally) -> None:
    async def main() -> None:
        w = await worker(conf, tally)
        async with hosted(conf) as (host, heard):
            asked = w.ask(LONG_KEY)
            await until(lambda: bool(heard.asks))
            stamp, key_id = stamp_of(host), heard.asks[0][1]
            host.hold(stamp, key_id)
            for key in (b"", encoded("another")):
                forged = entry(LONG_KEY, "forged")._replace(key=key)
                assert await host.deliver(stamp, forged) is Delivered.GONE
                assert host.find(stamp, key) is None
            host.grant(stamp, key_id)
            assert await asked == ("got", f"computed {LONG_KEY}")

    go(main)


def test_who_begins_after_the_flight_that_was_answered_is_asked_for_anew(conf, tally) -> None:
    async def main() -> None:
        first, second = await worker(conf, tally), await worker(conf, tally)
        async with hosted(conf) as (host, heard):
            await fill(host)
            stamp, value = stamp_of(host), entry("k", b"y" * 400_000)
            one = first.ask("k")
            await until(lambda: len(heard.asks) == 1)
            host.hold(stamp, encoded("k"))
            other: list[asyncio.Task[Any]] = []

            async def begin() -> None:
                assert await one == ("got", b"y" * 400_000)
                other.append(second.ask("k"))
                await until(lambda: len(heard.asks) == 2)
                host.hold(stamp, encoded("k"))  # as a relay does that takes both for one

            around(host, None, begin)
            await host.deliver(stamp, value)
            await until(lambda: len(heard.asks) == 3)
            assert heard.asks == [(stamp, encoded("k"), False)] * 3
            assert await host.deliver(stamp, value) is Delivered.PASSED
            assert await other[0] == ("got", b"y" * 400_000)
            assert len(heard.asks) == 3
        assert len(tally) == 0

    go(main)


def test_a_flight_that_is_granted_while_a_value_comes_for_it_has_its_end(conf, tally) -> None:
    async def main() -> None:
        w = await worker(conf, tally)
        async with hosted(conf) as (host, heard):
            await fill(host)
            stamp = stamp_of(host)
            asked: list[asyncio.Task[Any]] = []

            async def begin() -> None:
                asked.append(w.ask("k"))
                await until(lambda: len(heard.asks) == 1)

            around(host, begin, None)
            at = host._at
            assert at is not None
            grant = at.segment.grant
            at.segment.grant = lambda *_: False  # type: ignore[method-assign]  # it comes when the flight is taken
            taking = asyncio.ensure_future(host.deliver(stamp, entry("k", b"y" * 400_000)))
            await until(lambda: bool(heard.asks))
            host.grant(stamp, encoded("k"))
            at.segment.grant = grant  # type: ignore[method-assign]
            assert await taking is Delivered.PASSED
            assert await asked[0] == ("got", b"y" * 400_000)
            await until(lambda: bool(heard.ends))
            assert heard.ends == [(stamp, encoded("k"), Ended.ABANDONED)]
        assert len(tally) == 0

    go(main)


def test_what_meets_too_many_computations_has_room_later(conf, tally) -> None:
    async def main() -> None:
        await worker(conf, tally)
        async with hosted(conf) as (host, _):
            at = host._at
            assert at is not None
            take = at.segment.take
            at.segment.take = lambda *_: (segment.NO_FLIGHT, at.segment.segment.call())  # type: ignore[method-assign]
            assert await host.deliver(stamp_of(host), entry("k", "v")) is Delivered.GONE  # so it is taken anew
            at.segment.take = take  # type: ignore[method-assign]
            assert await host.deliver(stamp_of(host), entry("k", "v")) is Delivered.STORED

    go(main)
