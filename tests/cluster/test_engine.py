"""The engine relay: the contract over hosts in memory and a real server, with every node behind a proxy of its own."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest

from coopshm.cluster.engine import EngineConfig, EngineRelay
from coopshm.cluster.engine.address import parse
from coopshm.cluster.relay import Relay
from tests.cluster.contract import Cluster, RelayContract
from tests.cluster.engines import RedisServer, needs_redis
from tests.cluster.proxy import Proxy
from tests.cluster.test_peers import address

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

    def __init__(self, server: RedisServer, lease_timeout: float, replicate: str) -> None:
        super().__init__(lease_timeout)
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
            lease_ttl=5.0,
            timeout=4.0,
            heartbeat=0.2,
            away_after=6.0,
            **self.options,  # type: ignore[arg-type]
        )

    async def make_relay(self, index: int) -> Relay:
        if index not in self.proxies:
            proxy = self.proxies[index] = Proxy((address(), PORT), (self.server.address, self.server.port))
            await proxy.start()
            self.isolate(index, self.isolated.get(index, ""))
        return EngineRelay(self.config(index))

    def isolate(self, index: int, how: str) -> None:
        self.isolated[index] = how
        proxy = self.proxies.get(index)
        if proxy is None:
            return
        proxy.refusing = how == "cut"
        proxy.pause, proxy.chunk = (0.01, 20_000) if how == "slow" else (0.0, 65536)
        if how == "cut":
            proxy.cut()
        blocked = {"drop": ("there", "back"), "deaf": ("back",), "mute": ("there",)}
        proxy.block(*blocked.get(how, ()))

    async def close(self) -> None:
        for relay in self.relays:
            if relay is not None:
                await relay.stop(0)
        for host in self.hosts:
            host.relay = None
            for flight in list(host.flights.values()):
                if flight.timer is not None:
                    flight.timer.cancel()
        for proxy in self.proxies.values():
            await proxy.stop()


class EngineContract(RelayContract):
    replicate = ""

    @pytest.fixture(autouse=True)
    def _server(self, server: RedisServer) -> None:
        self.server = server


class TestAll(EngineContract):
    def cluster_of(self, lease_timeout: float) -> EngineCluster:
        return EngineCluster(self.server, lease_timeout, "all")
