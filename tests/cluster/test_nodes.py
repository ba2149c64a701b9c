"""Real segments, real workers, real sockets: two and three hosts in a cluster, which share this machine's /dev/shm
under different namespaces."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from coopshm import config as configuration
from coopshm.cluster import trust
from coopshm.cluster.host import SegmentHost
from coopshm.cluster.peers import Peers, PeersConfig
from coopshm.cluster.relay import NodeState
from tests.conftest import SHM
from tests.loops import go, until
from tests.procs import Tally

from .hosting import Worker, encoded, worker
from .test_peers import PORT, address

LEASE_TIMEOUT = 10.0  # none of these tests comes to it


class Node:
    """A host with two workers and a sidecar on this event loop."""

    def __init__(self, name: str, settings: dict[str, Any], listen: str, nodes: list[str]) -> None:
        self.name = name
        self.settings = settings
        self.listen = listen
        self.nodes = nodes
        self.workers: list[Worker] = []
        self.host: SegmentHost | None = None
        self.relay: Peers | None = None

    async def start(self) -> None:
        config = configuration.load(self.settings)
        self.relay = Peers(
            PeersConfig(
                self.name,
                "test",
                f"{self.listen}:{PORT}",
                [f"{node}:{PORT}" for node in self.nodes],
                trust.without(),
                LEASE_TIMEOUT,
                heartbeat=0.2,
                dead_after=2.0,
            )
        )
        self.host = SegmentHost(config.namespace, config.caches["c"], self.name, LEASE_TIMEOUT, self.relay)
        await self.relay.start({"c": self.host})
        await self.host.start()

    async def stop(self) -> None:
        relay, host, self.relay, self.host = self.relay, self.host, None, None
        if relay is not None and host is not None:
            await relay.stop(0.0)
            await host.stop()

    @property
    def stamp(self) -> Any:
        assert self.host is not None
        standing = self.host.standing()
        return standing.stamp if standing is not None else None

    def sees(self) -> set[str]:
        assert self.relay is not None
        return {n.name for n in self.relay.status().nodes if n.connected}


class Cluster:
    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes

    async def connected(self) -> None:
        names = {node.name for node in self.nodes if node.host is not None}
        await until(lambda: all(node.sees() == names for node in self.nodes if node.host is not None))
        await self.agreed()

    async def agreed(self) -> None:
        """One stamp everywhere, and all know it of each other."""
        running = [node for node in self.nodes if node.host is not None]
        await until(lambda: len({node.stamp for node in running}) == 1)

        def live(node: Node, other: Node) -> bool:
            assert node.relay is not None
            states = {n.name: n.caches["c"].state for n in node.relay.status().nodes if "c" in n.caches}
            return states.get(other.name) is NodeState.LIVE

        await until(lambda: all(live(a, b) for a in running for b in running if a is not b))


@pytest.fixture
def cluster(settings: Any, namespace: str, tally: Tally) -> Any:
    @contextlib.asynccontextmanager
    async def make(n: int, **options: Any) -> AsyncIterator[Cluster]:
        addresses = [address() for _ in range(n)]
        nodes = []
        for i in range(n):
            conf = {**settings(version=1, **options), "namespace": f"{namespace}-{i}"}
            nodes.append(Node(f"n{i}", conf, addresses[i], addresses))
        for node in nodes:
            node.workers = [await worker(node.settings, tally) for _ in range(2)]
        try:
            for node in nodes:
                await node.start()
            made = Cluster(nodes)
            await made.connected()
            yield made
        finally:
            for node in nodes:
                await node.stop()

    yield make
    for path in SHM.glob(f"coopshm:{namespace}-*"):
        path.unlink()


def test_a_key_is_computed_once_in_the_cluster(cluster, tally) -> None:
    async def main() -> None:
        async with cluster(3) as made:
            for n in range(10):
                asked = [w.ask(n) for node in made.nodes for w in node.workers]
                assert await asyncio.gather(*asked) == [("got", f"computed {n}")] * 6
        assert sorted(tally.items()) == sorted(repr(n) for n in range(10))

    go(main)


def test_who_follows_a_log_pins_nothing_while_there_is_nothing_to_send(cluster, tally) -> None:
    async def main() -> None:
        async with cluster(2) as made:
            for node in made.nodes:
                assert await node.workers[0].ask(node.name) == ("got", f"computed {node.name}")
            infos = [node.host._at.segment.segment.describe for node in made.nodes if node.host is not None]
            await until(lambda: [info().entries for info in infos] == [2, 2])
            await until(lambda: [info().pinned_chunks for info in infos] == [0, 0])

    go(main)


def test_failures_and_uncached_values_are_shared_as_on_one_host(cluster, tally) -> None:
    async def main() -> None:
        async with cluster(2) as made:
            one, two = made.nodes
            first = one.workers[0].ask("f", "fail", slow=True)
            assert await first == ("computing", "f")
            waits = two.workers[0].ask("f", "fail")
            assert two.host is not None
            await until(lambda: encoded("f") in two.host._leases)
            await until(lambda: one.host._at.segment.segment.describe().waiters >= 1)  # its outcome is wanted
            one.workers[0].child.send("go")
            assert (await asyncio.to_thread(one.workers[0].child.receive))[:2] == ("raised", "FailingError")
            assert (await waits)[:2] == ("raised", "FailingError")
        assert len(tally) == 1

    go(main)


def test_a_reset_anywhere_is_a_reset_everywhere(cluster, tally) -> None:
    async def main() -> None:
        async with cluster(3) as made:
            workers = [node.workers[0] for node in made.nodes]
            assert await asyncio.gather(*[w.ask("k") for w in workers]) == [("got", "computed k")] * 3
            assert await workers[1].say("reset") == 2
            await made.agreed()
            assert [await w.say("version") for w in workers] == [2, 2, 2]
            assert await asyncio.gather(*[w.ask("k") for w in workers]) == [("got", "computed k")] * 3
            assert len(tally) == 2
            await asyncio.gather(*[w.say("reset") for w in workers])  # all at once
            await made.agreed()
            assert len({await w.say("version") for w in workers}) == 1
            assert await asyncio.gather(*[w.ask("k") for w in workers]) == [("got", "computed k")] * 3
        assert len(tally) == 3

    go(main)


def test_a_node_that_comes_back_has_what_the_others_have(cluster, tally) -> None:
    async def main() -> None:
        async with cluster(2) as made:
            one, two = made.nodes
            assert await one.workers[0].ask("before") == ("got", "computed before")
            await two.stop()
            assert await two.workers[0].ask("alone") == ("got", "computed alone")  # per-host once, at once
            assert await one.workers[0].say("reset") == 2
            assert await one.workers[0].ask("after") == ("got", "computed after")
            assert await two.workers[0].say("version") == 1
            await two.start()
            await made.connected()
            assert await two.workers[0].say("version") == 2
            assert two.host is not None
            await until(lambda: two.host is not None and two.host.find(two.stamp, encoded("after")) is not None)
            assert await two.workers[0].ask("after") == ("got", "computed after")
            assert len(tally) == 3

    go(main)


def test_what_a_sidecar_held_for_others_is_computed_when_it_ends(cluster, tally) -> None:
    async def main() -> None:
        async with cluster(2) as made:
            one, two = made.nodes
            assert await one.workers[0].ask("k", slow=True) == ("computing", "k")
            waits = two.workers[0].ask("k")
            await until(lambda: two.host is not None and encoded("k") in two.host._leases)
            await one.stop()
            assert await waits == ("got", "computed k")
            one.workers[0].child.send("go")
            assert await asyncio.to_thread(one.workers[0].child.receive) == ("got", "computed k")

    go(main)
