"""What the contract's tests have: computations and clusters under their control. A test class for a relay gives a
`cluster_of`, which makes clusters of its kind (see peers_world.py).

Everything happens over real sockets. Tests wait for conditions, not for time; `procs.WATCHDOG` ends what hangs.
"""

from __future__ import annotations

import asyncio
import itertools
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any

from coopshm.cluster.relay import NodeState, Relay, Stamp
from tests.cluster.loops import run
from tests.cluster.memory import MemoryHost
from tests.loops import until

#: Seconds. Long where a test must not come to it, short where it is about it.
LONG = 50.0
SHORT = 0.3

#: Seconds of silence after which nodes, or an engine, are taken to be lost, in tests that wait for that. In all others
#: it is LONG: on a machine that has too much to do, this process or the engine stands still for seconds, and then
#: nodes would part, each of which computes. That is what is promised (docs/cluster.md), and not what they are about.
SILENCE = 4.0


class Fn:
    """A computation under a test's control, which counts how often it is called, on whatever host."""

    def __init__(self, result: object = "value", opened: bool = True) -> None:
        self.result = result
        self.calls = 0
        self.open = asyncio.Event()
        if opened:
            self.open.set()

    async def __call__(self) -> object:
        self.calls += 1
        await self.open.wait()
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    async def called(self, times: int = 1) -> None:
        await until(lambda: self.calls >= times)


class Cluster(ABC):
    """Nodes, each with one cache `c`, that one relay each connects."""

    def __init__(self, lease_timeout: float, silence: float = LONG) -> None:
        self.lease_timeout = lease_timeout
        self.silence = silence
        self.hosts: list[MemoryHost] = []
        self.relays: list[Relay | None] = []

    @abstractmethod
    async def make_relay(self, index: int) -> Relay:
        """A relay for the host of that number, not started."""

    @abstractmethod
    def isolate(self, index: int, how: str) -> None:
        """Cut a node off from all others: "cut" (connections end, and new ones are refused), "drop" (nothing gets
        through, and nobody is told), "deaf" (nothing reaches it), "mute" (nothing comes from it), "slow", or "" (as it
        should be)."""

    async def close(self) -> None:
        """End all that runs."""
        for index in range(len(self.hosts)):
            self.isolate(index, "")  # or one would say farewell to who cannot hear it, for as long as it may take
        for relay in self.relays:
            if relay is not None:
                await relay.stop(0)
        for host in self.hosts:
            host.close()

    def host(self, **options: Any) -> MemoryHost:
        self.hosts.append(MemoryHost(f"n{len(self.hosts)}", self.lease_timeout, **options))
        self.relays.append(None)
        return self.hosts[-1]

    async def start(self, *indices: int) -> None:
        """Start the sidecars of these hosts, of all by default."""
        for index in indices or range(len(self.hosts)):
            relay = await self.make_relay(index)
            self.relays[index] = relay
            self.hosts[index].relay = relay
            await relay.start({"c": self.hosts[index]})

    async def stop(self, index: int, drain: float = 0.0) -> None:
        """End a sidecar; its host goes on without."""
        relay, self.relays[index] = self.relays[index], None
        assert relay is not None
        self.hosts[index].sidecar_died()
        await relay.stop(drain)

    def sees(self, index: int) -> set[str]:
        """The nodes that this one is connected to."""
        relay = self.relays[index]
        assert relay is not None
        return {n.name for n in relay.status().nodes if n.connected} - {self.hosts[index].node}

    def links(self, *indices: int) -> dict[tuple[str, str], float]:
        """Of these (all by default): since when each one has seen each other one."""
        nodes = [self.hosts[index].node for index in indices or range(len(self.hosts))]
        return {
            (host.node, seen.name): seen.since
            for host in self.hosts
            if host.node in nodes and host.relay is not None
            for seen in host.relay.status().nodes
            if seen.connected and seen.name in nodes and seen.name != host.node
        }

    def once(self, fn: Fn, before: dict[tuple[str, str], float], *indices: int) -> bool:
        """Whether these nodes (all by default), which had such links before, have computed it once, as they promise
        while they are connected. Where a silence parts nodes, a machine that stands still does so too: that shows, and
        then each of them has computed it once at most."""
        parted = self.silence < LONG and self.links(*indices) != before
        return 1 <= fn.calls <= (len(indices or self.hosts) if parted else 1)

    async def connected(self, *indices: int) -> None:
        """Return once these (all by default) see each other, and no others."""
        indices = indices or tuple(range(len(self.hosts)))
        names = {self.hosts[index].node for index in indices}
        await until(lambda: all(self.sees(index) == names - {self.hosts[index].node} for index in indices))

    async def agreed(self, *indices: int) -> Stamp:
        """Return the one stamp of these (all by default), once they have one, and know of each other that they do."""
        hosts = [self.hosts[index] for index in indices or range(len(self.hosts))]
        await until(lambda: len({host.stamp for host in hosts}) == 1)
        await until(
            lambda: all(
                host.acknowledgements.get(other.node, (0, 0))[1] is NodeState.LIVE
                for host in hosts
                for other in hosts
                if other is not host
            )
        )
        return hosts[0].stamp

    async def same_entries(self, *indices: int) -> set[bytes]:
        hosts = [self.hosts[index] for index in indices or range(len(self.hosts))]
        await until(lambda: all(host.stored() == hosts[0].stored() for host in hosts))
        return hosts[0].stored()

    async def ready(self, count: int, **options: Any) -> list[MemoryHost]:
        """That many nodes, connected and caught up with each other."""
        for _ in range(count):
            self.host(**options)
        await self.start()
        await self.connected()
        await self.agreed()
        await self.caught_up()
        return self.hosts

    async def caught_up(self) -> None:
        """Return once what one stores reaches the others by itself."""
        for host in [host for host in self.hosts if host.relay is not None]:
            probe = f"probe {next(PROBES)}".encode()
            await host.cached(probe, Fn("probe"))
            live = [o for o in self.hosts if o.relay is not None and o.stamp == host.stamp and o.room > 99]
            await until(
                lambda probe=probe, live=live: all(probe in other.stored() for other in live if other.room > 99)
            )

    def computed(self, key: bytes) -> int:
        return sum(key == each for host in self.hosts for each, _ in host.computations)

    def check(self) -> None:
        for host in self.hosts:
            assert host.faults == []


PROBES = itertools.count()


class Trials(ABC):
    """What every part of the contract has. Every test ends with the check of all histories."""

    @abstractmethod
    def cluster_of(self, lease_timeout: float, silence: float) -> Cluster: ...

    def trial(
        self, test: Callable[[Cluster], Awaitable[None]], lease_timeout: float = LONG, silence: float = LONG
    ) -> None:
        async def main() -> None:
            cluster = self.cluster_of(lease_timeout, silence)
            try:
                await test(cluster)
                cluster.check()
            finally:
                await cluster.close()

        run(main())
