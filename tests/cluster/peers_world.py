"""Nodes in memory that meet as peers: every connection goes through a proxy, which a test can break."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Awaitable, Callable, Sequence

from coopshm.cluster import trust
from coopshm.cluster.peers import Peers, PeersConfig
from coopshm.cluster.relay import Relay
from tests.cluster.contract import LONG, Cluster
from tests.cluster.loops import run
from tests.cluster.proxy import Proxy

SECRET = b"a secret of 32 bytes or more, for tests"
PORT = 7411
_addresses = itertools.count()


def address() -> str:
    """An address of this host that no other test uses at the same time: there are 2^24 of them in 127/8."""
    number = (os.getpid() * 251 + next(_addresses)) % (2**24 - 2) + 1
    return f"127.{number >> 16}.{(number >> 8) & 255}.{number & 255}"


class PeersCluster(Cluster):
    """Every connection goes through a proxy of its own."""

    def __init__(self, lease_timeout: float, how: trust.Trust, silence: float = LONG) -> None:
        super().__init__(lease_timeout, silence)
        self.trust = how
        self.addresses: list[str] = []
        self.proxies: dict[tuple[int, int], Proxy] = {}  # from, to
        self.extra: list[str] = []

    def config(self, index: int, nodes: Sequence[str]) -> PeersConfig:
        return PeersConfig(
            name=self.hosts[index].node,
            namespace="test",
            listen=f"{self.addresses[index]}:{PORT}",
            nodes=nodes,
            trust=self.trust,
            lease_timeout=self.lease_timeout,
            heartbeat=0.2,
            dead_after=self.silence,
        )

    async def make_relay(self, index: int) -> Relay:
        while len(self.addresses) < len(self.hosts):
            await self._add_node()
        return Peers(self.config(index, [*self.nodes(index), *self.extra]))

    def nodes(self, index: int) -> list[str]:
        """What that node is to dial."""
        proxied = [f"{proxy.address[0]}:{PORT}" for (one, _), proxy in self.proxies.items() if one == index]
        return [*proxied, f"{self.addresses[index]}:{PORT}"]

    async def _add_node(self) -> None:
        new = len(self.addresses)
        self.addresses.append(address())
        for other in range(new):
            for one, to in ((new, other), (other, new)):
                proxy = self.proxies[one, to] = Proxy((address(), PORT), (self.addresses[to], PORT))
                await proxy.start()
        for other in range(new):
            relay = self.relays[other]
            if relay is not None:
                await relay.reload([*self.nodes(other), *self.extra])

    def isolate(self, index: int, how: str) -> None:
        for (one, to), proxy in self.proxies.items():
            if to == index:
                proxy.fail(how, inward="there", outward="back")
            elif one == index:
                proxy.fail(how, inward="back", outward="there")

    async def close(self) -> None:
        await super().close()
        for proxy in self.proxies.values():
            await proxy.stop()


@functools.lru_cache
def trusted() -> trust.Trust:
    return trust.from_secret(SECRET, "test")


def trial(
    test: Callable[[PeersCluster], Awaitable[None]], how: trust.Trust | None = None, silence: float = LONG
) -> None:
    async def main() -> None:
        cluster = PeersCluster(LONG, how or trusted(), silence)
        try:
            await test(cluster)
        finally:
            await cluster.close()

    run(main())


def peer(cluster: PeersCluster, index: int) -> Peers:
    relay = cluster.relays[index]
    assert isinstance(relay, Peers)
    return relay
