"""Each way to an engine: over TCP, a socket of the host, TLS, Sentinels, a Cluster; as a user who may do little."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from coopshm.cluster.engine.address import Tls, parse
from tests.cluster.authority import Authority
from tests.cluster.contract import Fn, until
from tests.cluster.engine_world import Nodes, trial
from tests.cluster.engines import ENGINES, RedisCluster, RedisServer, Sentinels, needs_redis

#: As docs/cluster.md says.
RIGHTS = "resetchannels ~coopshm:* +@read +@write +@scripting +@connection +info +time"


async def works(nodes: Nodes) -> None:
    hosts = await nodes.ready(3)
    await nodes.compute_once(*(b"%d" % number for number in range(10)))
    large = "x" * 1_000_000
    assert await hosts[0].cached(b"large", Fn(large)) == large
    stamp = await hosts[1].reset(b"2")
    assert await nodes.agreed() == stamp
    assert await hosts[2].cached(b"large", Fn(large)) == large
    await nodes.same_entries()
    assert nodes.counted("losses") == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_over_tcp(tmp_path: Path, engine: str) -> None:
    with RedisServer(tmp_path, engine=engine) as server:
        trial(Nodes(server.url), works)


@needs_redis
@pytest.mark.parametrize(
    "way",
    [
        *("socket", "user", "TLS", "Sentinels", "Sentinels with a password", "Sentinels with TLS"),
        *("Cluster", "Cluster with TLS"),
    ],
)
def test_other_ways(tmp_path: Path, way: str) -> None:
    more: dict[str, Any] = {}
    authority = None
    if "TLS" in way:
        authority = Authority(tmp_path)
        certificate, key = authority.certify("client")
        more = {"tls": Tls(str(authority.path), str(certificate), str(key))}
    with ExitStack() as stack:
        if way == "socket":
            url = stack.enter_context(RedisServer(tmp_path)).unix_url
        elif way == "user":
            url = stack.enter_context(RedisServer(tmp_path, user=("shop", "secret", RIGHTS))).url
        elif way == "TLS":
            url = stack.enter_context(RedisServer(tmp_path, tls=authority)).url
        elif way in ("Sentinels", "Sentinels with TLS"):
            url = stack.enter_context(Sentinels(tmp_path, tls=authority)).url
        elif way == "Sentinels with a password":
            url = stack.enter_context(Sentinels(tmp_path, password="of-the-Sentinels")).url
            more = {"address": parse(url)._replace(sentinel_password="of-the-Sentinels")}
        else:
            url = stack.enter_context(RedisCluster(tmp_path, tls=authority)).url
        trial(Nodes(url, **more), works)


@needs_redis
@pytest.mark.parametrize("what", ["password", "authority", "Sentinels"])
def test_who_is_not_let_in_goes_on_alone_and_says_why(tmp_path: Path, what: str) -> None:
    async def test(nodes: Nodes) -> None:
        host = nodes.host()
        await nodes.start()
        assert await host.cached(b"k", Fn("own")) == "own"
        relay = nodes.relays[0]
        assert relay is not None
        await until(lambda: relay.status().nodes[0].error not in ("", "not yet connected"))
        error = relay.status().nodes[0].error
        assert {"authority": "certificate", "password": "password", "Sentinels": "no master found"}[
            what
        ] in error.lower()
        assert "hush" not in error

    if what == "Sentinels":
        with Sentinels(tmp_path, password="of-the-Sentinels") as servers:
            trial(Nodes("", address=parse(servers.url)._replace(sentinel_password="hush")), test)
        return
    authority = Authority(tmp_path)
    with RedisServer(
        tmp_path,
        tls=authority if what == "authority" else None,
        user=("shop", "secret", RIGHTS),
    ) as server:
        url = server.url if what == "authority" else server.url.replace("secret", "hush")
        tls = Tls(str(Authority(tmp_path, "stranger").path), *map(str, authority.certify("client")))
        trial(Nodes(url, tls=tls if what == "authority" else Tls()), test)
