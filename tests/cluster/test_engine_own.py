"""What is the engine relay's own: seals, scripts that a server has forgotten, fences, limits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from coopshm.cluster.engine import EngineRelay, reading
from coopshm.cluster.engine.scripts import LEASE, WRITE
from coopshm.cluster.relay import Delivered, Entry, Stamp
from tests.cluster.contract import LONG, Fn, until
from tests.cluster.engines import RedisServer, needs_redis
from tests.cluster.loops import run
from tests.cluster.memory import FnError, MemoryHost
from tests.cluster.test_engine import EngineCluster

pytestmark = needs_redis


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


def trial(
    server: RedisServer,
    test: Callable[[EngineCluster, list[MemoryHost]], Awaitable[None]],
    replicate: str = "on_demand",
    **options: object,
) -> None:
    """Two nodes."""

    async def main() -> None:
        cluster = EngineCluster(server, LONG, replicate)
        cluster.options = options
        try:
            for _ in range(2):
                cluster.host()
            await cluster.start()
            await cluster.connected()
            await cluster.agreed()
            await test(cluster, cluster.hosts)
            cluster.check()
        finally:
            await cluster.close()

    run(main())


def relay_of(host: MemoryHost) -> EngineRelay:
    assert isinstance(host.relay, EngineRelay)
    return host.relay


def counter(host: MemoryHost, name: str) -> int:
    return relay_of(host).status().counters[name]


def keys_of(server: RedisServer, end: bytes) -> list[bytes]:
    return [key for key in server.command("KEYS", "coopshm:*") if key.endswith(end)]


def the_key(server: RedisServer, end: bytes) -> bytes:
    (key,) = keys_of(server, end)
    return key


async def stored(server: RedisServer, host: MemoryHost, key: bytes, value: object) -> None:
    assert await host.cached(key, Fn(value)) == value
    await until(lambda: any(server.command("HEXISTS", name, key) for name in keys_of(server, b":values")))


def test_an_entry_that_was_tampered_with_is_dropped_counted_and_computed_anew(server: RedisServer) -> None:
    async def test(cluster: EngineCluster, hosts: list[MemoryHost]) -> None:
        for number, change in enumerate(
            (lambda b: b[:-1] + b"x", lambda b: b"", lambda b: b"x" + b[1:], lambda b: b * 2)
        ):
            key = b"k%d" % number
            await stored(server, hosts[0], key, "right")
            values = the_key(server, b":values")
            server.command("HSET", values, key, change(server.command("HGET", values, key)))
            assert await hosts[1].cached(key, Fn("computed")) == "computed"
            assert counter(hosts[1], "tampered") == number + 1

    trial(server, test)


def test_an_entry_under_another_key_is_not_believed(server: RedisServer) -> None:
    async def test(cluster: EngineCluster, hosts: list[MemoryHost]) -> None:
        await stored(server, hosts[0], b"a", "of a")
        values = the_key(server, b":values")
        server.command("HSET", values, b"b", server.command("HGET", values, b"a"))
        assert await hosts[1].cached(b"b", Fn("of b")) == "of b"
        assert counter(hosts[1], "tampered") == 1

    trial(server, test)


def test_messages_and_claims_that_are_not_authentic_are_counted_and_harmless(server: RedisServer) -> None:
    async def test(cluster: EngineCluster, hosts: list[MemoryHost]) -> None:
        head, log = the_key(server, b":head"), the_key(server, b":log")
        epoch, seq = server.command("HMGET", head, "epoch", "seq")
        server.command("HINCRBY", head, "seq", 1)
        server.command("XADD", log, b"%s-%d" % (epoch, int(seq) + 1), "m", b"x" * 100)
        await until(lambda: all(counter(host, "tampered") for host in hosts))
        server.command("HSET", head, "claim", b"x" * 100)
        stamp = await hosts[0].reset(b"2")
        await until(lambda: hosts[1].stamp == stamp)
        fn = Fn("new")
        assert await asyncio.gather(*(host.cached(b"k", fn) for host in hosts)) == ["new"] * 2
        assert fn.calls == 1

    trial(server, test)


def test_a_server_that_has_forgotten_the_scripts_is_given_them(server: RedisServer) -> None:
    async def test(cluster: EngineCluster, hosts: list[MemoryHost]) -> None:
        server.command("SCRIPT", "FLUSH")
        await stored(server, hosts[0], b"k", "value")
        assert await hosts[1].cached(b"k", Fn("another")) == "value"
        assert server.command("SCRIPT", "EXISTS", LEASE.sha, WRITE.sha) == [True, True]
        assert counter(hosts[0], "losses") == 0

    trial(server, test)


def test_who_has_lost_the_lease_to_another_does_not_write(server: RedisServer) -> None:
    async def test(cluster: EngineCluster, hosts: list[MemoryHost]) -> None:
        late, fn = Fn("late", opened=False), Fn("in time", opened=False)
        first = asyncio.ensure_future(hosts[0].cached(b"k", late))
        await late.called()
        server.command("DEL", the_key(server, b":lease:k"))  # as if it had expired
        second = asyncio.ensure_future(hosts[1].cached(b"k", fn))
        await fn.called()
        late.open.set()
        assert await first == "late"
        await until(lambda: counter(hosts[0], "entries_refused") == 1)
        fn.open.set()
        assert await second == "in time"
        await until(lambda: counter(hosts[1], "entries_sent") == 1)

    trial(server, test)


def test_a_lease_without_an_end_is_given_one(server: RedisServer) -> None:
    """No script leaves one, but who restores keys by hand may."""

    async def test(cluster: EngineCluster, hosts: list[MemoryHost]) -> None:
        failing = Fn(FnError("not now"), opened=False)
        call = asyncio.ensure_future(hosts[0].cached(b"k", failing))
        await failing.called()
        lease = the_key(server, b":lease:k")
        copy = server.command("DUMP", lease)
        failing.open.set()
        with pytest.raises(FnError):
            await call
        await until(lambda: not server.command("EXISTS", lease))
        server.command("RESTORE", lease, 0, copy)
        assert await hosts[1].cached(b"k", Fn("value")) == "value"
        await until(lambda: counter(hosts[1], "entries_sent") == 1)  # it had a lease of its own then

    trial(server, test, lease_ttl=1.0)


def test_who_joins_or_leaves_while_all_nodes_are_looked_up_is_there_or_not(server: RedisServer) -> None:
    """The answer to that comes by another connection than the log does, so either may be the older one."""

    async def test(cluster: EngineCluster, hosts: list[MemoryHost]) -> None:
        nodes, key = relay_of(hosts[0])._parts["c"].nodes, the_key(server, b":nodes")
        before, asked = nodes.known(), server.command("HGETALL", key)
        cluster.host()
        await cluster.start(2)
        await cluster.connected()
        nodes.take(asked, before)
        assert set(nodes.live()) == {"n1", "n2"}
        before, asked = nodes.known(), server.command("HGETALL", key)
        await cluster.stop(2)
        await until(lambda: set(nodes.live()) == {"n1"})
        nodes.take(asked, before)
        assert set(nodes.live()) == {"n1"}
        nodes.take({}, nodes.known())
        assert set(nodes.live()) == set()

    trial(server, test)


def test_what_does_not_fit_stays_on_its_host_and_reaches_who_waits(server: RedisServer) -> None:
    async def test(cluster: EngineCluster, hosts: list[MemoryHost]) -> None:
        fn = Fn("x" * 300_000, opened=False)
        calls = [asyncio.ensure_future(host.cached(b"large", fn)) for host in hosts]
        await fn.called()
        await until(lambda: any(host.flight(b"large").wanted for host in hosts))
        fn.open.set()
        assert [len(value) for value in await asyncio.gather(*calls)] == [300_000] * 2
        assert fn.calls == 1
        assert sum(counter(host, "entries_not_kept") for host in hosts) >= 1

    trial(server, test, bytes_max=100_000)


def test_large_and_compressed_values_cross_whole(server: RedisServer) -> None:
    async def test(cluster: EngineCluster, hosts: list[MemoryHost]) -> None:
        for number, size in enumerate((10, 300_000, 3_000_000)):
            value = "0123456789" * (size // 10)
            await stored(server, hosts[0], b"k%d" % number, value)
            assert await hosts[1].cached(b"k%d" % number, Fn("another")) == value
        assert int(server.command("HGET", the_key(server, b":head"), "bytes")) < 100_000

    trial(server, test, compress_above=1000)


def test_who_asks_while_an_entry_is_refused_room_is_answered(server: RedisServer) -> None:
    """It was handed over before anybody asked, found no room, and says so after somebody has."""

    async def test(cluster: EngineCluster, hosts: list[MemoryHost]) -> None:
        await stored(server, hosts[0], b"k", "value")
        hosts[1].room = 0
        call = asyncio.ensure_future(hosts[1].cached(b"k", Fn("another")))
        await asyncio.sleep(0)  # it has asked
        relay_of(hosts[1])._parts["c"].wishes.delivered(b"k", hosts[1].stamp, Delivered.FULL)
        assert await call == "value"

    trial(server, test)


@pytest.mark.parametrize("replicate", ["all", "on_demand"])
def test_who_was_away_for_longer_than_the_log_goes_back_takes_all_anew(server: RedisServer, replicate: str) -> None:
    async def test(cluster: EngineCluster, hosts: list[MemoryHost]) -> None:
        cluster.isolate(1, "cut")
        await until(lambda: not cluster.sees(1))
        for number in range(500):
            await hosts[0].cached(b"%d" % number, Fn(number))
        await until(lambda: counter(hosts[0], "entries_sent") == 500)
        assert server.command("XLEN", the_key(server, b":log")) < 500  # Redis trims by the hundred
        cluster.isolate(1, "")
        await cluster.connected()
        await until(lambda: counter(hosts[1], "gaps") == 1)
        fn = Fn("anew")
        assert [await hosts[1].cached(b"%d" % number, fn) for number in range(500)] == list(range(500))
        assert fn.calls == 0
        if replicate == "all":
            await until(lambda: len(hosts[1].log) == 500)

    trial(server, test, replicate, messages_max=10)


def test_what_was_on_its_way_when_the_engine_was_lost_comes_when_it_is_back(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log has told of it, and will not again."""
    stuck = asyncio.Event()

    async def test(cluster: EngineCluster, hosts: list[MemoryHost]) -> None:
        await hosts[0].cached(b"before", Fn("before"))
        await until(lambda: b"before" in hosts[1].stored())  # all there was has been taken
        deliver = hosts[1].deliver

        async def delivering(stamp: Stamp, entry: Entry) -> Delivered:
            stuck.set()
            await asyncio.Event().wait()
            raise AssertionError

        monkeypatch.setattr(hosts[1], "deliver", delivering)
        await hosts[0].cached(b"k", Fn("value"))
        await stuck.wait()
        cluster.isolate(1, "cut")
        await until(lambda: not cluster.sees(1))
        monkeypatch.setattr(hosts[1], "deliver", deliver)
        cluster.isolate(1, "")
        await until(lambda: b"k" in hosts[1].stored())
        assert counter(hosts[1], "gaps") == 0

    trial(server, test, "all")


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again after a pause is so at once."""
    monkeypatch.setattr(reading, "AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(reading, "AGAIN_SECONDS_MAX", 0.05)


def received(host: MemoryHost) -> int:
    return counter(host, "entries_received")


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("how", ["as the log tells", "with all there is", "more than are remembered"])
def test_what_the_host_could_not_take_is_taken_later(
    server: RedisServer, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lock was not to be had, say. The log has told of it, and will not again."""
    if how == "more than are remembered":
        monkeypatch.setattr(reading, "MISSED_MAX", 2)

    async def test(cluster: EngineCluster, hosts: list[MemoryHost]) -> None:
        await hosts[0].cached(b"before", Fn("before"))
        await until(lambda: b"before" in hosts[1].stored())
        if how == "with all there is":
            await cluster.stop(1)
        else:
            hosts[1].locked = True
        before = received(hosts[1]) if hosts[1].relay is not None else 0
        keys = {b"key %d" % number for number in range(5)}
        for key in keys:
            await hosts[0].cached(key, Fn("value"))
        if how == "with all there is":
            hosts[1].locked = True
            await cluster.start(1)
        await until(lambda: received(hosts[1]) >= before + 5 + 5)  # and has been tried once more
        assert hosts[1].stored() == {b"before"}
        relay = hosts[1].relay
        assert isinstance(relay, EngineRelay)
        assert all(len(part.reading._missed) <= reading.MISSED_MAX for part in relay._parts.values())
        await hosts[0].cached(b"later", Fn("later"))
        hosts[1].locked = False
        await until(lambda: hosts[1].stored() == {b"before", b"later", *keys})

    trial(server, test, "all")


@pytest.mark.usefixtures("soon")
def test_what_a_worker_was_computing_as_it_came_comes_when_nothing_has_come_of_that(server: RedisServer) -> None:
    async def test(cluster: EngineCluster, hosts: list[MemoryHost]) -> None:
        failing = Fn(FnError("not here"), opened=False)
        relay, hosts[1].relay = hosts[1].relay, None  # as after lease_timeout
        call = asyncio.ensure_future(hosts[1].cached(b"k", failing))
        await failing.called()
        hosts[1].relay = relay
        assert await hosts[0].cached(b"k", Fn("value")) == "value"
        await until(lambda: received(hosts[1]) == 1)
        failing.open.set()
        with pytest.raises(FnError):
            await call
        await until(lambda: b"k" in hosts[1].stored())
        assert await hosts[1].cached(b"k", Fn("another")) == "value"

    trial(server, test, "all")


def test_what_nobody_waits_for_any_more_comes_all_the_same(server: RedisServer) -> None:
    """Who waited goes in the very moment in which the log tells of it, and computes nothing."""

    async def test(cluster: EngineCluster, hosts: list[MemoryHost]) -> None:
        fn = Fn("value", opened=False)
        first = asyncio.ensure_future(hosts[0].cached(b"k", fn))
        await fn.called()
        second = asyncio.ensure_future(hosts[1].cached(b"k", Fn(FnError("own"))))
        await until(lambda: hosts[1].flight(b"k").held)
        wishes = relay_of(hosts[1])._parts["c"].wishes
        stored = wishes.stored

        def goes(key_id: bytes, size: int) -> bool:
            waited = stored(key_id, size)
            wishes.withdrawn(hosts[1].stamp, key_id)
            hosts[1].grant(hosts[1].stamp, key_id)
            return waited

        wishes.stored = goes  # type: ignore[method-assign]
        fn.open.set()
        assert await first == "value"
        with pytest.raises(FnError):
            await second
        await until(lambda: b"k" in hosts[1].stored())

    trial(server, test, "all")


def test_what_was_refused_is_written_when_nothing_has_come_of_the_lease(server: RedisServer) -> None:
    async def test(cluster: EngineCluster, hosts: list[MemoryHost]) -> None:
        late, failing = Fn("late", opened=False), Fn(FnError("not now"), opened=False)
        first = asyncio.ensure_future(hosts[0].cached(b"k", late))
        await late.called()
        server.command("DEL", the_key(server, b":lease:k"))  # as if it had expired
        second = asyncio.ensure_future(hosts[1].cached(b"k", failing))
        await failing.called()
        late.open.set()
        assert await first == "late"
        await until(lambda: counter(hosts[0], "entries_refused") == 1)
        failing.open.set()
        with pytest.raises(FnError):
            await second
        await until(lambda: counter(hosts[0], "entries_sent") == 1)
        assert await hosts[1].cached(b"k", Fn("another")) == "late"

    trial(server, test, lease_ttl=1.0)
