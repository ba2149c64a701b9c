"""What else can be done to an engine: it is killed in each step, made to forget, shared, asked for odd keys."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from coopshm.cluster.engine import scripts
from coopshm.cluster.engine.connection import Link
from coopshm.cluster.engine.keys import Keys
from coopshm.cluster.engine.scripts import Script
from coopshm.cluster.relay import KEY_ID_BYTES_MAX
from tests.cluster.contract import Fn, until
from tests.cluster.engine_world import Load, Nodes, trial
from tests.cluster.engines import RedisCluster, RedisServer, needs_redis
from tests.cluster.memory import FnError

pytestmark = needs_redis

SCRIPTS: dict[str, Script] = {name: getattr(scripts, name) for name in scripts.__all__}


async def provoke(nodes: Nodes, number: int, renewed: Callable[[], bool]) -> None:
    """Have each of the scripts run, but those of sidecars that end; `renewed`: whether a lease was."""
    hosts = nodes.hosts
    await hosts[0].reset(b"%d" % number)  # STAND, ANNOUNCE, and later BEAT
    await hosts[1].cached(b"large %d" % number, Fn("x" * 600_000))  # LEASE, PIECE, WRITE
    failing = Fn(FnError("not now"), opened=False)
    call = asyncio.ensure_future(hosts[1].cached(b"failing %d" % number, failing))
    await failing.called()
    await until(renewed)  # RENEW
    failing.open.set()
    with pytest.raises(FnError):  # RELEASE
        await call


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", [name for name in SCRIPTS if name not in ("DISCARD", "WHO")])
def test_the_engine_is_killed_in_the_middle_of_any_step(
    tmp_path: Path, name: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it has done it, and comes back empty; or when it has, and comes back with all that it acknowledged."""
    send = Link._send
    killed = asyncio.Event()
    ran: Counter[str] = Counter()

    async def killing(link: Link, lane: Any, batch: Sequence[Any]) -> list[object]:
        shas = [words[1] for words in batch if words[0] == "EVALSHA"]
        ran.update(shas)
        if killed.is_set() or SCRIPTS[name].sha not in shas:
            return await send(link, lane, batch)
        if when == "after":
            await send(link, lane, batch)
        if not killed.is_set():
            server.kill()
            killed.set()
        raise ConnectionError("killed")

    async def test(nodes: Nodes) -> None:
        hosts = await nodes.ready(3)
        monkeypatch.setattr(Link, "_send", killing)
        number = 0
        async with Load(nodes) as load:
            while not killed.is_set():
                before = ran[scripts.RENEW.sha]
                await provoke(nodes, number, lambda before=before: killed.is_set() or ran[scripts.RENEW.sha] > before)
                number += 1
                if name in ("LEAVE", "LACKS"):  # a sidecar ends, another one begins, and offers what is there
                    await nodes.agreed()
                    await hosts[2].cached(b"there", Fn("there"))
                    await nodes.stop(2)
                    await nodes.start(2)
                    await killed.wait()
            await asyncio.to_thread(server.start)
            await load.goes_on(20)
        await nodes.together()
        await nodes.compute_once(b"a", b"b")

    with RedisServer(tmp_path, aof=when == "after") as server:
        trial(Nodes(server.url, lease_timeout=2.0, lease_ttl=0.5), test)


@pytest.mark.parametrize("policy", ["allkeys-random", "volatile-lru"])
def test_an_engine_that_evicts_what_it_likes_takes_nobody_back(tmp_path: Path, policy: str) -> None:
    async def test(nodes: Nodes) -> None:
        hosts = await nodes.ready(3)
        async with Load(nodes) as load:
            for number in range(5):
                await hosts[number % 3].reset(b"%d" % number)
                used = server.info("memory")["used_memory"]
                server.command("CONFIG", "SET", "maxmemory", used + 300_000)
                for key in range(20):
                    await hosts[key % 3].cached(b"%d" % key, Fn("x" * 100_000))
                await load.goes_on(20)
                server.command("CONFIG", "SET", "maxmemory", 0)
        assert server.info("stats")["evicted_keys"] > 0
        await nodes.together()
        await nodes.compute_once(b"a", b"b")

    with RedisServer(tmp_path, config={"maxmemory-policy": policy}) as server:
        trial(Nodes(server.url, lease_timeout=2.0), test)


def test_what_was_evicted_takes_no_room(tmp_path: Path) -> None:
    async def test(nodes: Nodes) -> None:
        host = nodes.host()
        await nodes.start()
        await nodes.agreed()
        await host.cached(b"large", Fn("x" * 900_000))
        await host.cached(b"k", Fn("x" * 50_000))

        def keys(end: bytes) -> list[bytes]:
            return [key for key in server.all_keys() if key.endswith(end)]

        await until(lambda: keys(b":values") and server.command("HLEN", keys(b":values")[0]) == 2)
        (head,) = keys(b":head")
        assert int(server.command("HGET", head, "bytes")) > 900_000
        server.command("DEL", *keys(b":values"), *keys(b":pieces"))
        await until(lambda: server.command("HGET", head, "bytes") is None)
        await host.cached(b"another", Fn("x" * 800_000))
        await until(lambda: nodes.counted("entries_sent") == 3)
        assert nodes.counted("entries_not_kept") == 0

    with RedisServer(tmp_path) as server:
        trial(Nodes(server.url, bytes_max=1_000_000), test)


ODD = [b"{", b"}", b"{}", b"}{x}", b"{a}:head", b"\x00\xff\r\n", b"*", b"x" * KEY_ID_BYTES_MAX]


@pytest.mark.parametrize("clustered", [False, True], ids=["server", "Cluster"])
def test_odd_keys_are_keys(tmp_path: Path, clustered: bool) -> None:
    async def test(nodes: Nodes) -> None:
        hosts = await nodes.ready(2)
        for key in ODD:
            fn = Fn(key.hex())
            calls = await asyncio.gather(*(host.cached(key, fn) for host in hosts))
            assert (set(calls), fn.calls) == ({key.hex()}, 1)
        await nodes.same_entries()
        assert nodes.counted("losses") == nodes.counted("tampered") == 0

    with RedisCluster(tmp_path) if clustered else RedisServer(tmp_path) as engine:
        trial(Nodes(engine.url), test)


def test_all_keys_of_a_cache_have_one_hash_tag() -> None:
    """Whatever is in the names that a key bears: the first pair of braces counts, and it is ours."""
    keys = Keys("shop", "pages", "01234567")
    names = [keys.head, keys.log, keys.nodes, keys.beats, keys.values("g"), keys.pieces("g"), keys.passing("g", b"{x}")]
    for name in [*names, *(keys.lease("g", key) for key in ODD)]:
        before, _, rest = name.partition(b"{")
        assert (before, rest.partition(b"}")[0]) == (b"coopshm:2:", b"shop/pages/01234567")


def test_namespaces_in_one_engine_know_nothing_of_each_other(tmp_path: Path) -> None:
    async def test(nodes: Nodes) -> None:
        one, other = nodes.host(), nodes.host()
        await nodes.start(0)
        nodes.settings["namespace"] = "test2"
        await nodes.start(1)
        await nodes.agreed(0)
        await nodes.agreed(1)
        for number in range(3):
            assert await one.cached(b"%d" % number, Fn("one")) == "one"
            assert await other.cached(b"%d" % number, Fn("other")) == "other"
        await one.reset(b"2")
        await nodes.agreed(0)
        assert other.stamp.counter == 0
        assert await other.cached(b"0", Fn("anew")) == "other"
        assert (nodes.sees(0), nodes.sees(1)) == (set(), set())
        assert nodes.counted("tampered") == 0

    with RedisServer(tmp_path) as server:
        trial(Nodes(server.url), test)
