"""The engine relay: the contract over hosts in memory and a real server, with every node behind a proxy of its own."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Iterator

import pytest

from coopshm.cluster.engine import EngineConfig, EngineRelay
from coopshm.cluster.engine.address import parse
from coopshm.cluster.relay import Relay
from tests.cluster.contract import LONG, Cluster, Fn, RelayContract
from tests.cluster.engines import RedisServer, needs_redis
from tests.cluster.peers_world import address
from tests.cluster.proxy import Proxy

pytestmark = needs_redis

SECRET = b"a secret of 32 bytes or more, for tests"
PORT = 6379
_namespaces = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """For tests that do nothing to it: each has a namespace of its own."""
    with RedisServer(tmp_path_factory.mktemp("engine")) as server:
        yield server


class EngineCluster(Cluster):
    """Every node reaches the server through a proxy of its own."""

    def __init__(self, server: RedisServer, lease_timeout: float, replicate: str, silence: float = LONG) -> None:
        super().__init__(lease_timeout, silence)
        self.server = server
        self.replicate = replicate
        self.namespace = f"test{os.getpid()}.{next(_namespaces)}"
        self.proxies: dict[int, Proxy] = {}
        self.isolated: dict[int, str] = {}
        self.options: dict[str, object] = {}

    def config(self, index: int) -> EngineConfig:
        return EngineConfig(
            name=self.hosts[index].node,
            namespace=self.namespace,
            address=parse(f"redis://{self.proxies[index].address[0]}:{PORT}"),
            secret=SECRET,
            replicate=self.replicate,
            lease_timeout=self.lease_timeout,
            timeout=self.silence,
            bulk_timeout=max(self.silence, 10.0),
            heartbeat=0.2,
            away_after=self.silence + 2,
            **{"lease_ttl": self.silence + 1, **self.options},  # type: ignore[arg-type]
        )

    async def make_relay(self, index: int) -> Relay:
        if index not in self.proxies:
            proxy = self.proxies[index] = Proxy((address(), PORT), (self.server.address, self.server.port))
            await proxy.start()
            self.isolate(index, self.isolated.get(index, ""))
        return EngineRelay(self.config(index))

    def isolate(self, index: int, how: str) -> None:
        self.isolated[index] = how
        if index in self.proxies:
            self.proxies[index].fail(how, inward="back", outward="there")

    async def close(self) -> None:
        await super().close()
        for proxy in self.proxies.values():
            await proxy.stop()


class EngineContract(RelayContract):
    replicate = ""

    @pytest.fixture(autouse=True)
    def _server(self, server: RedisServer) -> None:
        self.server = server


class TestAll(EngineContract):
    def cluster_of(self, lease_timeout: float, silence: float) -> EngineCluster:
        return EngineCluster(self.server, lease_timeout, "all", silence)


class OnDemandCluster(EngineCluster):
    """Entries come to a host when its workers ask for them: the same entries are where all have asked for all."""

    async def same_entries(self, *indices: int) -> set[bytes]:
        hosts = [self.hosts[index] for index in indices or range(len(self.hosts))]
        everything: set[bytes] = set().union(*(host.stored() for host in hosts))
        for host in hosts:
            await asyncio.gather(*(host.cached(key, Fn("another")) for key in everything - host.stored()))
        return await super().same_entries(*indices)

    async def caught_up(self) -> None:
        for host in [host for host in self.hosts if host.relay is not None]:
            await host.cached(b"probe of " + host.node.encode(), Fn("probe"))


class TestOnDemand(EngineContract):
    """As above, where a test does not wait for entries that nobody asks for."""

    def cluster_of(self, lease_timeout: float, silence: float) -> EngineCluster:
        return OnDemandCluster(self.server, lease_timeout, "on_demand", silence)

    def test_a_full_node_harms_nobody(self) -> None:
        async def test(cluster: Cluster) -> None:
            hosts = await cluster.ready(3)
            hosts[2].room = 0
            await asyncio.gather(*(hosts[0].cached(b"key %d" % number, Fn(number)) for number in range(200)))
            await cluster.same_entries(0, 1)
            for number in range(200):
                assert await hosts[2].cached(b"key %d" % number, Fn("another")) == number
            relay = hosts[2].relay
            assert relay is not None
            assert relay.status().counters["entries_without_room"] == 200

        self.trial(test)

    def test_stopping_hands_on_what_is_there(self) -> None:
        async def test(cluster: Cluster) -> None:
            hosts = await cluster.ready(3)
            for number in range(500):
                await hosts[0].cached(b"key %d" % number, Fn("x" * 1000))
            await cluster.stop(0, drain=LONG)
            fn = Fn("another")
            for host in hosts[1:]:
                await asyncio.gather(*(host.cached(b"key %d" % number, fn) for number in range(500)))
            assert fn.calls == 0

        self.trial(test)

    @pytest.mark.parametrize("how", ["stopped", "cut", "drop"])
    def test_when_the_node_that_is_copied_from_goes_another_one_is(self, how: str) -> None:
        """Nobody is copied from: what a node computed is there when it is gone."""

        async def test(cluster: Cluster) -> None:
            hosts = await cluster.ready(3)
            for number in range(100):
                await hosts[number % 3].cached(b"key %d" % number, Fn("x" * 10_000))
            await cluster.same_entries()
            if how == "stopped":
                await cluster.stop(0)
            else:
                cluster.isolate(0, how)
            newcomer, fn = cluster.host(), Fn("another")
            await cluster.start(3)
            await cluster.agreed(1, 2, 3)
            await asyncio.gather(*(newcomer.cached(b"key %d" % number, fn) for number in range(100)))
            assert fn.calls == 0

        self.trial(test)
