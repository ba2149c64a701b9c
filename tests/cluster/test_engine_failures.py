"""The engine dies, hangs, forgets, refuses, is full, is replaced: hosts go on, and come together again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.contract import LONG, SILENCE, Fn, until
from tests.cluster.engine_world import Load, Nodes, trial
from tests.cluster.engines import RedisServer, Sentinels, needs_redis

pytestmark = needs_redis


def lose(server: RedisServer, how: str) -> None:
    match how:
        case "killed" | "killed, and remembers":
            server.kill()
        case "stopped":
            server.pause()
        case "a replica now":
            server.command("REPLICAOF", "127.0.0.1", "1")
        case "full":
            server.command("CONFIG", "SET", "maxmemory", "1")


def bring_back(server: RedisServer, how: str) -> None:
    match how:
        case "killed" | "killed, and remembers":
            server.start()
        case "stopped":
            server.resume()
        case "a replica now":
            server.command("REPLICAOF", "NO", "ONE")
        case "full":
            server.command("CONFIG", "SET", "maxmemory", "0")


LOSSES = ["killed", "killed, and remembers", "stopped", "a replica now"]


@pytest.mark.parametrize("how", LOSSES)
def test_without_the_engine_each_host_computes_at_once_for_itself(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """At once: these workers would wait for an answer longer than the test may take."""

    async def test(nodes: Nodes) -> None:
        hosts = await nodes.ready(3)
        stuck = Fn("late", opened=False)
        held = asyncio.ensure_future(hosts[0].cached(b"held", stuck))
        await stuck.called()
        own = Fn("own")
        waiting = [asyncio.ensure_future(host.cached(b"held", own)) for host in hosts[1:]]
        await until(lambda: all(host.flight(b"held").held for host in hosts[1:]))
        lose(server, how)
        assert await asyncio.gather(*waiting) == ["own"] * 2  # who waited for another host
        await nodes.alone()
        for number in range(20):
            fn = Fn(number)
            await asyncio.gather(*(host.cached(b"%d" % number, fn) for host in hosts for _ in range(3)))
            assert fn.calls == 3
        stuck.open.set()
        assert await held == "late"
        assert all(host.timeouts == 0 for host in hosts)
        stamp = await hosts[1].reset(b"2")
        assert await hosts[1].cached(b"new", Fn("new")) == "new"
        assert hosts[0].stamp.counter == 0  # it cannot know
        bring_back(server, how)
        await nodes.together()
        assert {host.stamp for host in hosts} == {stamp}
        assert await hosts[0].cached(b"new", Fn("another")) == "new"
        await nodes.compute_once(b"a", b"b")
        lost = [r for r in caplog.records if "lost" in r.getMessage()]
        found = [r for r in caplog.records if "connected with the engine" in r.getMessage()]
        assert (len(lost), len(found)) == (3, 3)  # one word of each node for it, and one when it is back

    with caplog.at_level("INFO", "coopshm.cluster"), RedisServer(tmp_path, aof="remembers" in how) as server:
        trial(Nodes(server.url, silence=SILENCE if how == "stopped" else LONG), test)


def test_a_full_engine_keeps_nothing_more_and_resets_travel_again_when_it_has_room(tmp_path: Path) -> None:
    async def test(nodes: Nodes) -> None:
        hosts = await nodes.ready(3)
        lose(server, "full")
        for number in range(10):
            fn = Fn(number)
            values = await asyncio.gather(*(host.cached(b"%d" % number, fn) for host in hosts))
            assert values == [number] * 3
        assert all(host.timeouts == 0 for host in hosts)
        stamp = await hosts[0].reset(b"2")
        assert await hosts[0].cached(b"k", Fn("new")) == "new"
        bring_back(server, "full")
        await nodes.together()
        assert {host.stamp for host in hosts} == {stamp}
        await nodes.compute_once(b"a", b"b")

    with RedisServer(tmp_path) as server:
        trial(Nodes(server.url), test)


@pytest.mark.parametrize("how", ["flushed", "scripts flushed", "connections ended", "its log is gone"])
def test_what_the_engine_forgets_is_put_there_again(tmp_path: Path, how: str) -> None:
    async def test(nodes: Nodes) -> None:
        hosts = await nodes.ready(3)
        stamp = await hosts[0].reset(b"2")
        await nodes.together()
        for number in range(30):
            await hosts[number % 3].cached(b"%d" % number, Fn(number))
        await nodes.same_entries()
        if how == "flushed":
            server.flush()
        elif how == "scripts flushed":
            server.command("SCRIPT", "FLUSH")
        elif how == "connections ended":
            server.command("CLIENT", "KILL", "TYPE", "normal")
        else:
            (log,) = [key for key in server.all_keys() if key.endswith(b":log")]
            server.command("DEL", log)
        await nodes.together()
        assert {host.stamp for host in hosts} == {stamp}
        # A newcomer gets all of it, from the engine only.
        nodes.host()
        await nodes.start(3)
        await nodes.connected()
        assert len(await nodes.same_entries()) >= 30
        assert all(host.computations.count((b"7", stamp)) <= 1 for host in hosts)
        await nodes.compute_once(b"a", b"b")

    with RedisServer(tmp_path) as server:
        trial(Nodes(server.url), test)


@pytest.mark.parametrize("what", ["reset", "entries", "resets on both sides"])
def test_a_failover_that_loses_what_was_acknowledged_takes_nobody_back(tmp_path: Path, what: str) -> None:
    async def test(nodes: Nodes) -> None:
        hosts = await nodes.ready(3)
        await hosts[0].reset(b"2")
        await nodes.together()
        await asyncio.to_thread(servers.synced)
        servers.lose_writes()
        if what != "entries":
            await hosts[1].reset(b"3")
            await nodes.agreed()
        for number in range(20):
            await hosts[number % 3].cached(b"%d" % number, Fn(number))
        before = await nodes.agreed()
        entries = await nodes.same_entries()
        killing = asyncio.ensure_future(asyncio.to_thread(servers.failover))
        if what == "resets on both sides":
            await nodes.alone()
            await asyncio.gather(hosts[0].reset(b"4"), hosts[2].reset(b"5"))
        await killing
        await nodes.together()
        if what == "resets on both sides":
            assert hosts[0].stamp > before
        else:
            assert {host.stamp for host in hosts} == {before}
            assert entries <= await nodes.same_entries()
        await nodes.compute_once(b"a", b"b")
        nodes.host()
        await nodes.start(3)
        await nodes.connected()
        await nodes.agreed()
        await nodes.same_entries()

    with Sentinels(tmp_path) as servers:
        trial(Nodes(servers.url), test)


@pytest.mark.parametrize("mode", ["WRITE", "ALL"])
def test_a_paused_engine_is_lost_until_it_goes_on(tmp_path: Path, mode: str) -> None:
    async def test(nodes: Nodes) -> None:
        hosts = await nodes.ready(3)
        server.command("CLIENT", "PAUSE", 3000, mode)
        for host in hosts:
            assert await host.cached(b"k", Fn(host.node)) == host.node
        await hosts[0].reset(b"2")
        await nodes.together()
        assert hosts[0].stamp.counter == 1
        await nodes.compute_once(b"a", b"b")

    with RedisServer(tmp_path) as server:
        trial(Nodes(server.url, silence=1.0), test)


def test_an_engine_that_stands_still_for_a_moment_parts_nobody(tmp_path: Path) -> None:
    """For less than it is waited for: keys that are asked for meanwhile, and those that are held, are computed once."""

    async def test(nodes: Nodes) -> None:
        hosts = await nodes.ready(3)
        held, asked = Fn("held", opened=False), [Fn(number) for number in range(20)]
        calls = [asyncio.ensure_future(host.cached(b"held", held)) for host in hosts]
        await until(lambda: sum(host.flight(b"held").held for host in hosts) == 2)
        links = nodes.links()
        await asyncio.to_thread(server.pause)
        calls += [
            asyncio.ensure_future(host.cached(b"%d" % number, fn)) for number, fn in enumerate(asked) for host in hosts
        ]
        held.open.set()
        await until(lambda: any(call.done() for call in calls))  # whoever had the lease
        assert [fn.calls for fn in asked] == [0] * 20
        await asyncio.to_thread(server.resume)
        await asyncio.gather(*calls)
        assert [fn.calls for fn in (held, *asked)] == [1] * 21
        assert nodes.links() == links
        assert nodes.counted("losses") == 0

    with RedisServer(tmp_path) as server:
        trial(Nodes(server.url), test)


@pytest.mark.parametrize("seed", range(2))
def test_histories_hold_whatever_the_engine_does_under_load(tmp_path: Path, seed: int) -> None:
    async def test(nodes: Nodes) -> None:
        chance = random.Random(seed)
        hosts = await nodes.ready(4)
        events: list[Callable[[], object]] = [
            server.flush,
            server.restart,
            lambda: server.command("SCRIPT", "FLUSH"),
            lambda: server.command("CLIENT", "KILL", "TYPE", "normal"),
            lambda: server.command("CLIENT", "PAUSE", 1500, "WRITE"),
        ]
        async with Load(nodes) as load:
            for _ in range(10):
                await load.goes_on(chance.randrange(60))
                await chance.choice(hosts).reset(b"%d" % chance.randrange(3))
                await load.goes_on(chance.randrange(20))
                await asyncio.to_thread(chance.choice(events))
                if chance.random() < 0.5:
                    await chance.choice(hosts).reset(b"%d" % chance.randrange(3))
                index = chance.randrange(4)
                if chance.random() < 0.3:
                    await nodes.stop(index)
                    await load.goes_on(5)
                    await nodes.start(index)
        await nodes.together()
        await nodes.same_entries()
        assert all(host.flights == {} for host in hosts)
        await nodes.compute_once(b"a", b"b")

    with RedisServer(tmp_path, aof=True) as server:
        trial(Nodes(server.url, lease_timeout=2.0, silence=1.0), test)


@pytest.mark.parametrize("count", [3, 10])
def test_sidecars_of_one_engine_are_one_cache(tmp_path: Path, count: int) -> None:
    async def test(nodes: Nodes) -> None:
        hosts = await nodes.ready(count)
        await nodes.compute_once(*(b"%d" % number for number in range(20)))
        await asyncio.gather(*(host.reset(host.node.encode()) for host in hosts))
        await nodes.agreed()
        await nodes.compute_once(*(b"%d" % number for number in range(20)))
        await nodes.same_entries()
        assert all(host.timeouts == 0 for host in hosts)

    with RedisServer(tmp_path) as server:
        trial(Nodes(server.url), test)
