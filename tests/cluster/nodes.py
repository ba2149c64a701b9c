"""Nodes that the peers relay connects, over real segments: a namespace, a host and worker processes of its own each.

Their segments share this machine's /dev/shm; their relays and hosts share this process's event loop, as a sidecar's
would have its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from coopshm import config as configuration
from coopshm.cluster import trust
from coopshm.cluster.host import SegmentHost
from coopshm.cluster.peers import Peers, PeersConfig
from coopshm.cluster.relay import NodeState, Stamp
from tests.cluster.hosting import LONG, Worker, worker
from tests.cluster.peers_world import PORT, address, trusted
from tests.loops import until
from tests.procs import Tally


class Node:
    """A host with its sidecar's insides, and some workers. The sidecar may be stopped and started again."""

    def __init__(
        self, settings: dict[str, Any], number: int, addresses: list[str], how: trust.Trust, lease: float
    ) -> None:
        self.settings = {**settings, "namespace": f"{settings['namespace']}-{number}"}
        self.name = f"n{number}"
        self.config = PeersConfig(
            name=self.name,
            namespace="test",
            listen=f"{addresses[number]}:{PORT}",
            nodes=[f"{each}:{PORT}" for each in addresses],
            trust=how,
            lease_timeout=lease,
        )
        self.workers: list[Worker] = []
        self._running: tuple[Peers, SegmentHost] | None = None

    async def start(self) -> None:
        loaded = configuration.load(self.settings)
        relay = Peers(self.config)
        host = SegmentHost(loaded.namespace, loaded.caches["c"], self.name, self.config.lease_timeout, relay)
        self._running = relay, host
        await relay.start({"c": host})
        await host.start()

    async def stop(self) -> None:
        if self._running is not None:
            (relay, host), self._running = self._running, None
            await relay.stop(0)
            await host.stop()

    @property
    def running(self) -> bool:
        return self._running is not None

    @property
    def relay(self) -> Peers:
        assert self._running is not None
        return self._running[0]

    @property
    def host(self) -> SegmentHost:
        assert self._running is not None
        return self._running[1]

    @property
    def stamp(self) -> Stamp | None:
        standing = self.host.standing()
        return standing.stamp if standing is not None else None

    def sees(self) -> set[str]:
        """The nodes that it is connected to, itself among them."""
        return {node.name for node in self.relay.status().nodes if node.connected}

    def together(self) -> set[str]:
        """The nodes that stand where this one does."""
        caches = {node.name: node.caches.get("c") for node in self.relay.status().nodes}
        return {name for name, cache in caches.items() if cache is not None and cache.state is NodeState.LIVE}


@asynccontextmanager
async def cluster(
    settings: dict[str, Any],
    tally: Tally,
    count: int,
    workers: int = 1,
    how: trust.Trust | None = None,
    lease_timeout: float = LONG,
) -> AsyncIterator[list[Node]]:
    """That many nodes, together; each has its workers until the test ends."""
    addresses = [address() for _ in range(count)]
    nodes = [Node(settings, number, addresses, how or trusted(), lease_timeout) for number in range(count)]
    for node in nodes:
        node.workers = await asyncio.gather(*(worker(node.settings, tally) for _ in range(workers)))
    try:
        for node in nodes:
            await node.start()
        await together(nodes)
        yield nodes
    finally:
        for node in nodes:
            await node.stop()


async def together(nodes: list[Node]) -> None:
    """Return once these see each other and no others, are at one stamp, and each follows the others' logs."""
    names = {node.name for node in nodes}

    def are_together() -> bool:
        return (
            len({node.stamp for node in nodes}) == 1
            and all(node.sees() == names for node in nodes)
            and all(node.together() == names - {node.name} for node in nodes)
            and not any(node.relay._following.behind("c") for node in nodes)
        )

    await until(are_together)
